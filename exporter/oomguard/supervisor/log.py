"""The supervisor's own few messages: key=value lines on stderr, never on stdout."""

import os
import select
import time

STDERR = 2


def log(level: str, message: str, **fields: object) -> None:
    """Write one line, unless that would block: signals must be forwarded whoever reads our stderr."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    pairs = "".join(f" {name}={_quote(str(value))}" for name, value in fields.items())
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    try:
        # A pipe is writable when PIPE_BUF bytes fit, more than any of these lines should have.
        if poll.poll(0):
            os.write(
                STDERR,
                f'ts={stamp} level={level} msg="{message}"{pairs}\n'.encode(errors="replace")[
                    : select.PIPE_BUF
                ],
            )
    except OSError:
        pass


def _quote(value: str) -> str:
    if value.isprintable() and not set(value) & set(' "=\\'):
        return value
    plain = "".join(letter if letter.isprintable() else "?" for letter in value)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
