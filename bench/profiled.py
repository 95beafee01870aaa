"""The worker under cProfile, by the processor time of its main thread.

Owns the clock: the usual profile counts the time that passes, and so what other programs do and how long the worker
waits. What the database's thread does is not in it; the profile shows what is left of the loop.

Run as `python -m bench.profiled FILE serve …`.
"""

from __future__ import annotations

import cProfile
import sys
import time

from worker import main

__all__ = []


def _run(file: str, arguments: list[str]) -> None:
    profile = cProfile.Profile(time.thread_time)
    try:
        profile.runcall(main, arguments, prog_name="posthouse")
    finally:
        profile.dump_stats(file)


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
