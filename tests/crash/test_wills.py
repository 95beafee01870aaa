"""Last wills survive kills and power cuts, and those of a worker that lies are found; `make crash` plays more."""

from __future__ import annotations

import random
import re
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import pytest

from .detector import chosen
from .disk import why_not
from .lies_of_wills import LIES_OF_WILLS
from .nursery import ForkedWorker, shared_nursery
from .rounds import new_seed
from .wills import CONFIGURATION, kills, play, play_cuts

_ROUNDS_MAX = 20
_PATIENCE_SECONDS = 8.0
"""How long a lying worker is waited for."""


def test_wills_survive_kills(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    with closing(ForkedWorker(tmp_path, CONFIGURATION, shared_nursery())) as worker:
        worker.start()
        counted = anyio.run(play, worker.command, tmp_path, seed, kills(worker, 2))
        worker.stop()
    assert counted["lives"] > 3, f"seed {seed}"


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_wills_survive_power_cuts() -> None:
    seed = new_seed()
    assert play_cuts(seed, cuts=1)["lives"] > 3, f"seed {seed}"


@pytest.mark.parametrize("lie", chosen(LIES_OF_WILLS))
def test_a_lie_about_wills_is_found(lie: str, tmp_path: Path) -> None:
    for number in range(_ROUNDS_MAX):
        found = _broken(tmp_path / str(number), lie, number)
        if found is not None:
            assert re.search(LIES_OF_WILLS[lie], found)
            return
    pytest.fail(f"{_ROUNDS_MAX} rounds did not bring {lie} to light")


def _broken(folder: Path, lie: str, seed: int) -> str | None:
    """Return what was broken in a round with a worker that lies."""
    folder.mkdir()
    with closing(ForkedWorker(folder, CONFIGURATION, shared_nursery(), lie=lie)) as worker:
        worker.start()
        playing = partial(play, patience_seconds=_PATIENCE_SECONDS)
        try:
            anyio.run(playing, worker.command, folder, seed, kills(worker, 2))
        except AssertionError as error:
            return str(error)
        worker.stop()
    return None
