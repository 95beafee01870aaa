"""The kinds of faults that a worker is put through: each a module that plays a round from a seed.

Owns the list. A module of a kind has `play_round(seed)`, which gives what it counted and raises AssertionError
where a promise was broken, and may have `why_not()`, which says why this machine cannot play it, or None. It runs
alone by `python -m` and its name.
"""

from __future__ import annotations

import importlib
import time
from collections import Counter
from typing import NamedTuple

__all__ = ["KINDS_OF_FAULTS", "Kind"]


class Kind(NamedTuple):
    """One kind. `faults` is what its rounds count its faults by."""

    module: str
    says: str
    faults: str

    def why_not(self) -> str | None:
        """Say why it cannot be played here; None where it can."""
        why_not = getattr(importlib.import_module(self.module), "why_not", None)
        reason: str | None = why_not() if why_not is not None else None
        return reason

    def parts(self) -> tuple[str, ...]:
        """Return the names of the faults of which it has several, as its rounds count them."""
        return tuple(getattr(importlib.import_module(self.module), "FAULTS", ()))

    def play_round(self, seed: int) -> Counter[str]:
        """Play the round of a seed."""
        counted: Counter[str] = importlib.import_module(self.module).play_round(seed)
        return counted

    def play_timed(self, seed: int) -> tuple[float, Counter[str]]:
        """Play the round of a seed, and give the seconds that it took as well."""
        began = time.monotonic()
        counted = self.play_round(seed)
        return time.monotonic() - began, counted


KINDS_OF_FAULTS = [
    Kind("tests.crash.kills", "SIGKILL at random moments under load", "kills"),
    Kind("tests.crash.counters", "SIGKILL while bots count in a keyed store", "kills"),
    Kind("tests.crash.removals", "SIGKILL while operators remove and erase", "kills"),
    Kind("tests.crash.backups", "SIGKILL of backups, of the worker, and of a restoration", "kills"),
    Kind("tests.crash.wills", "SIGKILL of bots with last wills, and of the worker, or a power cut", "kills"),
    Kind("tests.crash.orders", "SIGKILL of bots that execute runs, and of the worker", "kills"),
    Kind("tests.crash.exact_kills", "SIGKILL at one system call, and a power cut after half of them", "reached"),
    Kind("tests.crash.power_cuts", "power cuts at random moments under load", "cuts"),
    Kind("tests.crash.unfinished_syncs", "SIGKILL in a sync, then a power cut after the repeat's answer", "cuts"),
    Kind("tests.crash.bad_disks", "an I/O error at one system call", "reached"),
    Kind("tests.crash.full_disks", "a full disk, with a kill on half of them", "rounds"),
    Kind("tests.crash.bit_flips", "one flipped bit in the database or its WAL", "rounds"),
    Kind("tests.crash.network", "the cable to the worker pulled under load", "pulls"),
    Kind("tests.crash.stops", "a client stopped for longer than its session may be silent", "stops"),
    Kind("tests.crash.connections", "connections of all manners that come and go", "connections"),
    Kind("tests.crash.starvation", "no descriptor left in the worker", "starvations"),
    Kind("tests.crash.herd", "a thousand bots that come back at once", "returns"),
    Kind("tests.crash.frames", "frames that are nearly right, at a whole worker", "frames"),
    Kind("tests.crash.failovers", "nodes of PostgreSQL, and workers on it, that fail in every way", "faults"),
    Kind("tests.crash.engine_counters", "the same while bots count in a keyed store", "faults"),
]
