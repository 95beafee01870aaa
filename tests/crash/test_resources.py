"""What a worker has of the machine, under many clients: some of the kinds of faults that concern it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from ..integration.wire_worker import Worker
from .command import Campaign, Outcome, Progress, quiet
from .connections import connections
from .frames import frames, pester
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


def test_a_frame_that_ends_the_connection_may_take_the_ping_behind_it(tmp_path: Path) -> None:
    """Every other one does, and a round goes on: its ping is repeated."""
    with Worker(tmp_path) as worker:
        for _ in range(6):
            assert pester(worker.session(), [b"[" * 1_100_000]) == []
