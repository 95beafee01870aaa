"""A worker that is broken in what it does with runs is found within a few kills while orders are executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from .command import quiet
from .detector import chosen
from .lies_of_runs import LIES_OF_RUNS
from .orders import orders

_KILLS = 2
_ROUNDS_MAX = 8

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("lie", chosen(LIES_OF_RUNS))
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    found: list[str] = []
    for seed in range(_ROUNDS_MAX):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = orders(folder, _KILLS, seed, quiet, lie=lie).faults
        if any(LIES_OF_RUNS[lie] in fault for fault in found):
            return
    pytest.fail(f"{_ROUNDS_MAX} rounds did not bring {lie} to light, but {found}")
