"""Bots that count in a keyed store lose nothing by kills; `make crash` plays many rounds of this."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from ..postgresql.fixtures import need_postgresql
from .counters import kills, play
from .engine_counters import play_faults
from .lies_of_values import LIES_OF_VALUES
from .load import CONFIGURATION
from .nursery import ForkedWorker, shared_nursery

_ROUNDS_MAX = 20


def test_counters_survive_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    with closing(ForkedWorker(tmp_path, CONFIGURATION, shared_nursery())) as worker:
        worker.start()
        counted = anyio.run(play, [worker.command], seed, kills(worker, 3))
        worker.stop()
    assert counted["counted"] > 0, f"seed {seed}"
    assert counted["turns"] > 0, f"seed {seed}"


@pytest.mark.timeout(600)
def test_counters_survive_an_engine(tmp_path: Path) -> None:
    need_postgresql()
    seed = random.SystemRandom().randrange(2**32)
    counted = play_faults(tmp_path, ["worker killed"], seed=seed, workers=1)
    assert counted["counted"] > 0, f"seed {seed}"


@pytest.mark.parametrize("lie", LIES_OF_VALUES)
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    for number in range(_ROUNDS_MAX):
        folder = tmp_path / str(number)
        folder.mkdir()
        with closing(ForkedWorker(folder, CONFIGURATION, shared_nursery(), lie=lie)) as worker:
            worker.start()
            try:
                anyio.run(play, [worker.command], number, kills(worker, 1))
            except AssertionError:
                return
            worker.stop()
    pytest.fail(f"{_ROUNDS_MAX} kills did not bring {lie} to light")
