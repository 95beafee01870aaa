"""The machine's own speed: what the figures of a run are to be read beside.

Owns which four figures that are. They are measured before and after a run, so that a machine that changed is seen.
"""

from __future__ import annotations

import statistics
import time

from . import limits, machine
from .results import Calibration
from .workloads import Scale

__all__ = ["calibrate"]

_TURNS = 100_000
_REPEATS = 25


def calibrate(moment: str, scale: Scale) -> Calibration:
    """Measure SQLite alone, the disk and this Python. `moment` names the time in the run."""
    load = machine.load()
    return Calibration(
        moment=moment,
        load=load,
        sqlite_rows=limits.inserts(4096)(scale)["rate"],
        loop_ns=statistics.median(_loop() for _ in range(_REPEATS)),
        fdatasync_p50_ms=limits.syncs(scale)["p50_ms"],
        commit_p50_ms=limits.commits(scale)["p50_ms"],
    )


def _loop() -> float:
    """Return the nanoseconds that a turn of a fixed loop takes. The loop never changes, or runs do not compare."""
    total = 0
    began = time.perf_counter_ns()
    for turn in range(_TURNS):
        total += turn & 7
    return (time.perf_counter_ns() - began) / _TURNS
