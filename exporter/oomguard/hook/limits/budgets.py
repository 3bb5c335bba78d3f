"""Budgets: bytes that a part of the application may take, reserved before they are taken."""

from __future__ import annotations

import logging
import operator
from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.sizes import check_name, format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.hook.parts import Core

_WARNING, _CRITICAL = 0.8, 0.9
"""Parts of the limit from which on a budget is said to be short."""
_LEVELS = ("ok", "warning", "critical")
_AGAIN = 60.0
"""Seconds until the log hears of the same level again: a budget may cross it with every request."""

_logger = logging.getLogger("oomguard.budgets")


class BudgetExceeded(MemoryError):  # noqa: N818 (the public name says what happened)
    """More was asked for than the budget has left. `budget` is its name; `asked`, `left`, `limit` are bytes."""

    def __init__(self, text: str, *, budget: str = "", asked: int = 0, left: int = 0, limit: int = 0) -> None:
        super().__init__(text)
        self.budget = budget
        self.asked = asked
        self.left = left
        self.limit = limit


class Reservation:
    """Bytes of a budget, taken since this was made: until the end of a `with`, `release()`, or nobody holds it."""

    __slots__ = ("_budget", "_life", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._life = 0
        self._budget: Budget | None = None
        """None: nothing is taken, or no more."""

    def release(self) -> None:
        """Give the bytes back; a second time does nothing."""
        budget, self._budget = self._budget, None
        if budget is not None:
            budget._release(self.size, self._life)  # noqa: SLF001 (two halves of one thing)

    def __enter__(self) -> Reservation:  # noqa: PYI034 (typing.Self needs Python 3.11)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        # A budget that forgotten reservations have filled would refuse for good.
        if hasattr(self, "_budget"):  # else a signal's handler raised out of __init__
            self.release()


class Budget:
    """One budget; may be used by any number of threads. Made by `Budgets.get`."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        """Bytes."""
        self._reserved = 0
        self._refused = 0
        self._life = 0
        """Another one in each forked child: what was reserved before is not given back there."""
        self._told = {"warning": float("-inf"), "critical": float("-inf")}
        # A finalizer or a signal handler may release in any line.
        self._lock = unpatched.allocate_rlock()

    def reserve(self, size: int) -> Reservation:
        """Take bytes, at once: ``with budget.reserve(n):``, or keep what is returned and `release()` it.

        Raises BudgetExceeded if fewer are left, and then takes none; TypeError or ValueError for what is no
        number of bytes.
        """
        size = _checked(self.name, size)
        taken = Reservation(size)
        with self._lock:
            left = max(0, self.limit - self._reserved)
            if size > left:
                self._refused += 1
            else:
                before = self._level()
                taken._life = self._life  # noqa: SLF001 (two halves of one thing)
                self._reserved += size
                taken._budget = self  # noqa: SLF001 (at once, so that no signal's handler raises in between)
                level = self._level()
        if size > left:
            raise BudgetExceeded(
                f"budget {self.name!r}: {format_size(size)} asked for, {format_size(left)} of "
                f"{format_size(self.limit)} left",
                budget=self.name,
                asked=size,
                left=left,
                limit=self.limit,
            )
        if level > before:
            self._tell(_LEVELS[level])
        return taken

    def can_reserve(self, size: int) -> bool:
        """Whether that much is left now; another thread may take it before you do."""
        return self._reserved + _checked(self.name, size) <= self.limit

    def reading(self) -> dict[str, object]:
        """What the sidecar is told; `refused` counts from the start of the process."""
        return {
            "name": self.name,
            "limit": self.limit,
            "reserved": self._reserved,
            "refused": self._refused,
            "state": _LEVELS[self._level()],
        }

    def forked(self) -> None:
        """Begin anew in a forked child: nothing reserved, whatever its parent's threads had."""
        self._lock = unpatched.allocate_rlock()
        self._reserved = self._refused = 0
        self._life += 1

    def _release(self, size: int, life: int) -> None:
        with self._lock:
            if life == self._life:
                self._reserved -= size

    def _level(self) -> int:
        part = self._reserved / self.limit
        return 2 if part >= _CRITICAL else 1 if part >= _WARNING else 0

    def _tell(self, level: str) -> None:
        now = monotonic()
        if now - self._told[level] < _AGAIN:
            return
        self._told[level] = now
        try:
            log = _logger.critical if level == "critical" else _logger.warning
            log(
                "budget %r is at %.0f %%: %s of %s are reserved",
                self.name,
                100 * self._reserved / self.limit,
                format_size(self._reserved),
                format_size(self.limit),
            )
        except Exception:  # noqa: BLE001, S110 (a handler of the application's; the reservation stands)
            pass


class Budgets:
    """All of them, by name."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._budgets: dict[str, Budget] = {}
        self._lock = unpatched.allocate_rlock()

    def get(self, name: str, limit: int | str) -> Budget:
        """The budget of this name, made when it is first asked for; `limit` as bytes or text (``"200MiB"``).

        A handler may ask for it with every request. Another limit than before counts from now on, with a warning.
        Raises TypeError or ValueError for a name or a limit that can't be one.
        """
        check_name("budget", name)
        size = parse_size(f"budget {name!r}", limit)
        with self._lock:
            budget = self._budgets.get(name)
            if budget is None:
                budget = self._budgets[name] = Budget(name, size)
        if budget.limit != size:
            self._core.warn(
                f"budget {name!r} was given another limit, {format_size(size)}: the later one counts"
            )
            budget.limit = size
        return budget

    def reading(self) -> list[dict[str, object]]:
        """The part `budgets` of a reading."""
        return [budget.reading() for budget in list(self._budgets.values())]

    def forked(self) -> None:
        """Begin anew in a forked child."""
        self._lock = unpatched.allocate_rlock()
        for budget in self._budgets.values():
            budget.forked()


def _checked(name: str, size: int) -> int:
    try:
        count = operator.index(size)
    except TypeError:
        raise TypeError(f"budget {name!r}: a number of bytes is needed, not {type(size).__name__}") from None
    if count < 0:
        raise ValueError(f"budget {name!r}: {count} is no number of bytes to reserve")
    return count
