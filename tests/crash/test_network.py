"""A bad network between a worker and its clients: some of `tests.crash.network` and `tests.crash.stops`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .namespace import lack
from .network import pulls
from .stops import stops

PULLS = 8


def _quiet(text: str) -> None:
    """Nobody looks at the progress of a test."""


@pytest.mark.skipif(lack() is not None, reason=str(lack()))
def test_a_cable_that_is_pulled_loses_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    verdict = pulls(tmp_path, PULLS, seed, _quiet)
    assert verdict.ok, verdict
    assert verdict.counts["acknowledged"] > 100
    assert verdict.counts["delivered"] > 100


def test_a_client_that_is_stopped_and_goes_on(tmp_path: Path) -> None:
    assert stops(tmp_path, 1, 1, _quiet) == []
