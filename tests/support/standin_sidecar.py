"""A stand-in for the sidecar that speaks the supervisor's two pipes and writes down what it is told.

``standin_sidecar.py LOG KIND``; KIND is ``good``, ``silent`` (never ready), ``deaf`` (ignores end of file
and SIGTERM), ``loud`` (writes to stdout), or a number: it ends with that before it is ready.
"""

import os
import signal
import sys
import time


def main() -> None:
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    kind = sys.argv[2]
    control = int(os.environ["OOMGUARD_CONTROL_FD"])
    ready = int(os.environ["OOMGUARD_READY_FD"])
    if kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(log, b"started %d\n" % os.getpid())
    if kind.isdigit():
        print("the user's error", file=sys.stderr)
        sys.exit(int(kind))
    if kind == "loud":
        print("noise", flush=True)
    if kind != "silent":
        os.write(ready, b"ready\n")
    while chunk := os.read(control, 4096):
        os.write(log, chunk)
    os.write(log, b"eof %d\n" % os.getpid())
    while kind == "deaf":
        time.sleep(60)


main()
