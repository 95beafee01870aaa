"""Kills at some of the calls: two that are the same each time, and one that is drawn."""

from __future__ import annotations

import random

import pytest

from . import exact_kills
from .disk import Disks
from .exact_kills import CALLS, Kill, count, every_kill, kill_at
from .rounds import new_seed
from .tracing import DATABASE, LOCK, Point

pytestmark = pytest.mark.skipif(exact_kills.why_not() is not None, reason=str(exact_kills.why_not()))


def test_nothing_acknowledged_is_lost_by_a_kill_before_a_sync() -> None:
    counted = kill_at(Kill(0, Point("fdatasync", DATABASE, 25)), None)
    assert counted["reached"] == 1


def test_nothing_acknowledged_is_lost_by_a_kill_between_commit_and_answer_and_a_power_cut() -> None:
    with Disks() as disks:
        counted = kill_at(Kill(1, Point("pwrite64", LOCK, 3)), disks)
    assert counted["reached"] == 1


def test_nothing_acknowledged_is_lost_by_a_kill_at_any_call() -> None:
    seed = new_seed()
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    kill = chance.choice(list(every_kill()))
    with Disks() as disks:
        kill_at(kill, chance.choice([disks, None]), chance)


def test_the_calls_that_are_drawn_from_are_those_that_are_made() -> None:
    for key, counted in count(DATABASE).items():
        assert counted.keys() == CALLS[key].keys()
        for call, number in CALLS[key].items():
            assert number * 0.8 <= counted[call] <= number * 1.2 + 1
