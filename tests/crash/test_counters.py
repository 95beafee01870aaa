"""Bots that count in a keyed store lose nothing by kills; `make crash` plays many rounds of this."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import anyio

from .counters import play
from .load import CONFIGURATION
from .nursery import ForkedWorker, Nursery


def test_counters_survive_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    with Nursery() as nursery, closing(ForkedWorker(tmp_path, CONFIGURATION, nursery)) as worker:
        worker.start()
        counted = anyio.run(lambda: play(worker, seed, kills=3))
        worker.stop()
    assert counted["counted"] > 0, f"seed {seed}"
    assert counted["turns"] > 0, f"seed {seed}"
