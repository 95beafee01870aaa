"""The power is cut under a worker at any moment of a load: what it acknowledged is on the disk.

    python -m tests.crash.power_cuts --rounds 40    # each of some cuts, one after the other, in one history

Owns the moment. The worker is stopped in its tracks, and what its disk has by then is all that the next one starts
on. Some of what was not synced may be on it too, in any order: the kernel may write at any time.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..integration.wire_worker import SERVE
from .bots import Shape
from .disk import Disks, why_not
from .load import CONFIGURATION, RULES, Load
from .player import Gone
from .rounds import command
from .stage import Broken, Stage

__all__ = ["CUTS", "cut_under_load", "main", "play_round", "why_not"]

CUTS = 5
"""Cuts in one history: each finds what the ones before it left."""

_EVENTS_MAX = 250
"""So much is written down at most between two cuts."""

_MOMENT_SECONDS = 0.01

_SHAPE = Shape(packers=1)
"""A cut meets a file that is just becoming smaller, too."""


def cut_under_load(
    seed: int, cuts: int = CUTS, *, serve: Sequence[str] = SERVE, shape: Shape = _SHAPE
) -> Counter[str]:
    """Play a history with so many cuts, and judge it."""
    chance = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        Disks() as disks,
        Stage(Path(folder), disks, configuration=CONFIGURATION) as stage,
    ):
        stage.start(serve)
        with Load(stage.worker.command, recorder=stage.recorder, seed=seed, shape=shape) as load:
            load.start()
            for _ in range(cuts):
                load.wait(chance.randint(1, _EVENTS_MAX))
                time.sleep(chance.random() * _MOMENT_SECONDS)
                stage.cut_power(chance)
                _start_again(stage, serve)
            final = load.drain()
        if stage.stop() != 0:
            raise Broken(f"the worker does not stop in order:\n{stage.worker.log_tail()}")
        counted = stage.verdict(final, RULES)
    names = ("acknowledged", "delivered", "repeated", "confirmed", "checkpointed")
    return Counter(rounds=1, cuts=cuts) + Counter({name: counted[name] for name in names})


def _start_again(stage: Stage, serve: Sequence[str]) -> None:
    try:
        stage.start(serve)
    except Gone:
        code = stage.ended()
        raise Broken(f"the worker does not start again (exit code {code}):\n{stage.worker.log_tail()}") from None


def play_round(seed: int) -> Counter[str]:
    """Play the history of a seed."""
    return cut_under_load(seed)


main = command("power_cuts", play_round, why_not, rounds=40)

if __name__ == "__main__":
    main()
