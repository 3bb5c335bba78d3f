"""A service of --processes processes (itself and its workers) that does nothing: what does watching cost?"""

from __future__ import annotations

import argparse
import multiprocessing
import time

from ping import register, say, serve


def work(seconds: float) -> None:
    register("nothing", lambda: None, lambda: 0, lambda: 0)
    time.sleep(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60)
    arguments = parser.parse_args()

    workers = [
        multiprocessing.get_context("spawn").Process(target=work, args=(arguments.seconds,), daemon=True)
        for _ in range(arguments.processes - 1)
    ]
    for worker in workers:
        worker.start()
    serve()
    work(arguments.seconds)
    say(processes=arguments.processes)


if __name__ == "__main__":
    main()
