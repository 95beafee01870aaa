"""A bad network between a worker and its clients: some of `tests.crash.network` and `tests.crash.stops`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .command import quiet
from .namespace import why_not
from .network import pulls
from .stops import stops

PULLS = 5


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_cable_that_is_pulled_loses_nothing(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    outcome = pulls(tmp_path, PULLS, seed, quiet)
    assert not outcome.faults, outcome.faults
    assert outcome.counts["acknowledged"] > 0
    assert outcome.counts["delivered"] > 0


def test_a_client_that_is_stopped_and_goes_on(tmp_path: Path) -> None:
    outcome = stops(tmp_path, 1, 1, quiet)
    assert not outcome.faults, outcome.faults
