"""How long to wait before something is started again."""


class Backoff:
    """Delays that double from `first` to `longest`, and begin anew after a life of `reset` seconds."""

    def __init__(self, first: float, longest: float, reset: float) -> None:
        self.first = first
        self.longest = longest
        self.reset = reset
        self._next = first

    def after(self, lived: float) -> float:
        """How long to wait after something that lived for `lived` seconds."""
        if lived >= self.reset:
            self._next = self.first
        delay = self._next
        self._next = min(delay * 2, self.longest)
        return delay
