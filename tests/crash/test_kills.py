"""A short selection of kills under load; `make crash` has all kinds, for as long as there is time."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from ..integration.wire_worker import Worker
from .__main__ import Row, table
from .kills import one_file
from .kinds import KINDS_OF_FAULTS, Kind
from .load import CONFIGURATION
from .nursery import ForkedWorker, shared_nursery

RANDOM_SEED = random.SystemRandom().randrange(2**32)


@pytest.mark.parametrize("seed", [1, RANDOM_SEED], ids=["fixed", "random"])
def test_what_was_acknowledged_survives_kills(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")  # noqa: T201
    with closing(ForkedWorker(tmp_path, CONFIGURATION, shared_nursery())) as worker:
        verdict = one_file(worker, tmp_path, seed=seed, rounds=10)
    assert verdict.ok, str(verdict)
    assert verdict.counts["kills"] + verdict.counts["stops"] == 11, "the last one is the stop at the end"
    # Of the rest a slow machine may not come to all.
    for name in ("acknowledged", "delivered", "same_ids"):
        assert verdict.counts[name] > 0, f"the load did nothing of {name}: {verdict}"


def test_a_worker_that_is_started_as_usual_survives_kills(tmp_path: Path) -> None:
    with closing(Worker(tmp_path, CONFIGURATION)) as worker:
        verdict = one_file(worker, tmp_path, seed=RANDOM_SEED, rounds=2)
    assert verdict.ok, f"seed {RANDOM_SEED}: {verdict}"


# ── The frame ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", KINDS_OF_FAULTS, ids=lambda kind: kind.module)
def test_each_kind_can_be_played_or_says_why_not(kind: Kind) -> None:
    reason = kind.why_not()
    assert reason is None or reason.strip()


def test_the_table_says_what_came_of_it() -> None:
    row = Row(Kind("tests.crash.kills", "SIGKILL", "kills"))
    row.counts.update(kills=1200, acknowledged=40)
    row.took(2.0)
    row.broke(7, AssertionError("lost: one is gone\nlost: another is\nout_of_order: some"))
    assert table([row]).splitlines() == [
        "| kind | rounds | faults | acknowledged | lost | duplicated | out of order | command |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| SIGKILL | 1 | 1,200 | 40 | 2 | 0 | 1 | `python -m tests.crash.kills` |",
    ]
    assert row.broken == ["tests.crash.kills, seed 7: lost: one is gone\nlost: another is\nout_of_order: some"]
