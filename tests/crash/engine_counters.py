"""Bots that count in a keyed store on an engine, while its nodes and workers fail.

Run as `python -m tests.crash.engine_counters`. Owns the round: the faults are those of `failovers`, and what has to
hold is in `counters`.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread

from ..postgresql.cluster import missing, quorum
from .counters import Disturb, Ledger, play
from .failovers import FAULTS, Stage
from .house import WORKERS, House
from .load import Load
from .rounds import command

__all__ = ["play_faults", "play_round", "why_not"]

_FAULTS_A_ROUND = 6
_GLANCE_SECONDS = 0.01


class _Counting:
    """The bots that count, as the load of a stage."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.recorder = self
        self.over = False

    @property
    def answers(self) -> int:
        """How many writes were answered."""
        return len(self._ledger.known)

    def mark(self, what: str) -> None:
        """Write nothing down."""

    def check_alive(self) -> None:
        """Raise AssertionError if the bots have ended."""
        assert not self.over, "the bots have ended"

    def wait(self, events_max: int, *, seconds: float) -> None:
        """Wait for so many answers, or so long."""
        wanted, deadline = self.answers + events_max, time.monotonic() + seconds
        while self.answers < wanted and time.monotonic() < deadline:
            self.check_alive()
            time.sleep(_GLANCE_SECONDS)


def _failing(house: House, faults: Sequence[str]) -> Disturb:
    async def disturb(ledger: Ledger, chance: random.Random) -> int:
        counting = _Counting(ledger)
        stage = Stage(house, cast(Load, counting), chance)

        def fail() -> None:
            for name in faults:
                stage.serves()
                stage.work()
                FAULTS[name](stage)
            stage.serves()

        try:
            await anyio.to_thread.run_sync(fail, abandon_on_cancel=True)
        finally:
            counting.over = True
        return len(faults)

    return disturb


def play_faults(folder: Path, faults: Sequence[str], *, seed: int, workers: int = WORKERS) -> Counter[str]:
    """Put a new house through these faults while bots count; AssertionError where a promise was broken."""
    with quorum() as nodes, House(folder, nodes, workers=workers) as house:
        house.start()
        return anyio.run(play, house.commands, seed, _failing(house, faults))


def why_not() -> str | None:
    """Return why no nodes can be started here; None if they can."""
    return missing()


def play_round(seed: int) -> Counter[str]:
    """Let many things fail in one house; AssertionError where a promise was broken."""
    faults = random.Random(seed).choices(list(FAULTS), k=_FAULTS_A_ROUND)
    folder = Path(tempfile.mkdtemp(prefix="posthouse-engine-counters-"))
    try:
        counted = play_faults(folder, faults, seed=seed)
    except AssertionError as error:
        error.add_note(f"after {', '.join(faults)}; what there is to look at lies in {folder}")
        raise
    shutil.rmtree(folder)
    counted["faults"] = counted.pop("kills")
    return counted + Counter(faults)


main = command("engine_counters", play_round, why_not, rounds=1)

if __name__ == "__main__":
    main()
