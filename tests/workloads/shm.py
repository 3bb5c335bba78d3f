"""Holds --size MB in /dev/shm: memory that no process has on its heap and no cleanup can drop."""

from __future__ import annotations

import argparse
import tempfile
import time

from ping import MB, say, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=300, help="MB")
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()

    # Unlinked at once: it can't be left behind, however this process ends.
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        for _ in range(int(arguments.size)):
            file.write(b"\x03" * MB)
        file.flush()
        serve()
        time.sleep(arguments.seconds)
        say(written=file.tell())


if __name__ == "__main__":
    main()
