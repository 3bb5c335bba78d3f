"""The supervisor as a script: first process of ``oomguard run``, parent of the target and of the sidecar.

Run as ``python -I -S main.py NAME=VALUE… -- SIDECAR… TARGET…`` with what `oomguard.supervisor.command` built.
What runs as PID 1 should be small: no site, no typing, no enum, few modules. This file is only a
door, since Python compiles a script anew at each start and keeps 1.7 MB dirty for it, while imported modules
come compiled: 2.9 MB of private dirty memory in all (Python 3.11), of which Python itself takes 2.5.
The order of its work stands in loop.py, the lines that it sends the sidecar in sidecar.py.
"""

import os
import sys

if __name__ == "__main__":
    # At the end, so that nothing installed beside oomguard can stand before the standard library.
    sys.path.append(os.path.abspath(f"{__file__}/../../.."))  # noqa: PTH100 - pathlib would cost 1 MB
    from oomguard.supervisor import signals
    from oomguard.supervisor.log import STDERR
    from oomguard.supervisor.loop import Supervisor

    # A descriptor of 0 to 2 that is closed would be taken by a pipe; exec closes it again for the target.
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        pass
    os.close(fd)
    split = sys.argv.index("--")
    settings = dict(argument.split("=", 1) for argument in sys.argv[1:split])
    commands = sys.argv[split + 1 :]
    count = int(settings["sidecar"])
    signals.prepare()
    sys.exit(Supervisor(settings, commands[:count], commands[count:]).run())
