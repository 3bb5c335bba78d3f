"""The baseline: the least that can save a box. No metrics, no measurement, no rules, one application alone.

usage: bare_loop.py CGROUP THRESHOLD SOCKET

Reads the cgroup's usage through kept-open files, sleeps for the time in which it could be filled from here
at the fastest, and sends a datagram when usage less file cache exceeds the threshold.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

FILL_RATE = 6e9  # bytes a second: earlyoom's figure for the fastest machine
FASTEST, SLOWEST = 0.005, 1.0


def main() -> None:
    folder, threshold, address = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    usage = os.open(folder / "memory.usage_in_bytes", os.O_RDONLY)
    stat = os.open(folder / "memory.stat", os.O_RDONLY)
    orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    while True:
        fields = dict(line.split() for line in os.pread(stat, 8192, 0).splitlines())
        cache = int(fields[b"total_active_file"]) + int(fields[b"total_inactive_file"])
        room = threshold - (int(os.pread(usage, 32, 0)) - cache)
        if room < 0:
            try:
                orders.sendto(b"clear", address)
            except OSError:  # the target has not begun, or has ended
                time.sleep(FASTEST)
        time.sleep(min(SLOWEST, max(FASTEST, room / FILL_RATE)))


if __name__ == "__main__":
    main()
