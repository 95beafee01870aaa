"""What a worker has of the machine, under many clients: some of the kinds of faults that concern it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .command import Campaign, Outcome, Progress, quiet
from .connections import connections
from .frames import frames
from .herd import herds
from .starvation import starvations


def small_herds(directory: Path, rounds: int, seed: int, progress: Progress) -> Outcome:
    return herds(directory, rounds, seed, progress, bots=300)


@pytest.mark.parametrize(
    ("run", "rounds"),
    [(connections, 2), (starvations, 1), (small_herds, 1), (frames, 1)],
    ids=["connections", "descriptors", "herd", "frames"],
)
def test_it_harms_nobody(run: Campaign, rounds: int, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    outcome = run(tmp_path, rounds, seed, quiet)
    assert not outcome.faults, outcome.faults
    assert outcome.counts.total() >= rounds
