"""Removals under load survive kills, and those of a worker that lies are found; `make crash` plays many rounds."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from .lies_of_removals import LIES_OF_REMOVALS
from .nursery import ForkedWorker, shared_nursery
from .removals import CONFIGURATION, play


def test_removals_survive_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    with closing(ForkedWorker(tmp_path, CONFIGURATION, shared_nursery())) as worker:
        worker.start()
        counted = anyio.run(lambda: play(worker, seed, kills=3))
        worker.stop()
    assert counted["removals"] > 0, f"seed {seed}"
    assert counted["erasures"] > 0, f"seed {seed}"


@pytest.mark.parametrize("lie", LIES_OF_REMOVALS)
def test_a_lie_about_removals_is_found(lie: str, tmp_path: Path) -> None:
    with closing(ForkedWorker(tmp_path, CONFIGURATION, shared_nursery(), lie=lie)) as worker:
        worker.start()
        with pytest.raises(AssertionError, match=LIES_OF_REMOVALS[lie]):
            anyio.run(lambda: play(worker, 1, kills=1))
