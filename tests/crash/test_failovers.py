"""Some of `tests.crash.failovers`: a house on PostgreSQL that loses nodes and workers, and lies that are found."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ..postgresql.fixtures import need_postgresql
from .bots import Shape
from .detector import chosen
from .failovers import stand
from .lies_of_engines import LIES_OF_ENGINES

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("_postgresql")]

FEW = Shape(
    publishers=1, subscribers=(1,), readers=0, sleepers=0, workers=1, visitors=0, onlookers=0, undertakers=0
)

_ROUNDS_MAX = 5


@pytest.fixture
def _postgresql() -> None:
    need_postgresql()


def test_what_was_acknowledged_survives_a_primary_and_a_worker(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    verdict = stand(tmp_path, ["primary killed", "worker cut off", "quorum lost"], seed=seed)
    assert verdict.ok, str(verdict)
    for name in ("acknowledged", "delivered", "confirmed"):
        assert verdict.counts[name] > 0, f"the load did nothing of {name}: {verdict}"


@pytest.mark.parametrize("lie", chosen(LIES_OF_ENGINES))
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    fault, kinds, workers, noticed = LIES_OF_ENGINES[lie]
    found: set[str] = set()
    for seed in range(_ROUNDS_MAX):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            found |= stand(folder, [fault], seed=seed, shape=FEW, workers=workers, lie=lie).kinds
        except AssertionError as error:
            if not noticed or noticed not in str(error):
                raise
            return
        if found & kinds:
            return
    pytest.fail(f"{_ROUNDS_MAX} times '{fault}' did not bring {lie} to light, but {found}")
