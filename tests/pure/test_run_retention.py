"""Retention of runs: which go by age and number, and which stay because their message may come again."""

from __future__ import annotations

from typing import Any

import pytest

from bus.core.batches import Batch
from bus.core.effects import Moment
from bus.model.records import later
from bus.model.repository import RemoveRuns
from bus.settings import RetentionSettings, Settings, Workflows
from bus.wire.frames import Ack, Code, Term, ToBot, ToChannel

from .worker import ID, Worker, delivered, published


class Clocked(Worker):
    """A worker whose wall clock somebody may set."""

    set_by = 0.0

    @property
    def moment(self) -> Moment:
        moment = super().moment
        return moment._replace(wall=later(moment.wall, self.set_by))


def settings(**workflows: Any) -> Settings:
    return Settings(workflows=Workflows(**workflows), retention=RetentionSettings(sweep_seconds=1.0))


def world(**workflows: Any) -> Worker:
    worker = Worker(settings(**workflows))
    worker.hello("eve")
    return worker


def ended(worker: Worker, *ids: str, workflow: str = "w", steps: int = 1) -> None:
    """Let runs end now, one a microsecond."""
    for number, id in enumerate(ids):
        worker.log.runs[id] = (workflow, later(worker.moment.wall, number / 1_000_000), steps)


def removals(worker: Worker, seconds: float) -> list[tuple[str, ...]]:
    """Let time pass; return which runs were removed together."""
    found: list[tuple[str, ...]] = []
    worker.tick(seconds)
    while worker.core.has_batch(worker.moment):
        batch = worker.next_batch()
        found += [change.run_ids for change in batch.changes if isinstance(change, RemoveRuns)]
        worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    return found


def test_no_run_goes_unless_it_is_told_so() -> None:
    worker = world()
    ended(worker, *(f"r{number}" for number in range(20)))
    worker.settle(100)
    assert len(worker.log.runs) == 20


def test_runs_go_when_they_ended_long_ago() -> None:
    worker = world(ended_age_seconds=10.0)
    ended(worker, "a", "b")
    worker.settle(6)
    ended(worker, "c", workflow="v")
    worker.settle(6)
    assert list(worker.log.runs) == ["c"]
    worker.settle(6)
    assert worker.log.runs == {}


def test_of_each_workflow_the_newest_stay() -> None:
    worker = world(ended_runs_max=2)
    for workflow in ("v", "w", "x"):
        ended(worker, *(f"{workflow}{number}" for number in range(5)), workflow=workflow)
    ended(worker, "y0", workflow="y")
    worker.settle(3)
    assert list(worker.log.runs) == ["v3", "v4", "w3", "w4", "x3", "x4", "y0"]


def test_runs_go_in_portions_of_few_steps() -> None:
    worker = world(ended_age_seconds=1.0)
    ended(worker, *(f"r{number}" for number in range(250)), steps=30)
    ended(worker, "large", workflow="v", steps=50_000)
    portions = removals(worker, 5)
    assert worker.log.runs == {}
    assert ("large",) in portions
    assert max(map(len, portions)) == 66
    assert sum(map(len, portions)) == 251


def test_a_run_stays_while_its_message_is_unsettled_or_dead() -> None:
    worker = world(ended_runs_max=1, ended_age_seconds=1.0)
    worker.hello("bob")
    ids = [ID % (9_000_000 + number) for number in range(3)]
    for id in ids:
        worker.say(b"eve", published(ToBot(bot="bob"), id=id))
    worker.commit()
    ended(worker, *ids, "other")
    worker.say(b"bob", Term(seqs=[2], reason="no"))
    worker.settle(5)
    assert list(worker.log.runs) == ids
    worker.say(b"bob", Ack(seqs=[1]))
    worker.settle(3)
    assert list(worker.log.runs) == ids[1:], "the second is a dead letter, the third in flight"


def test_a_run_stays_while_its_message_was_not_delivered_to_all() -> None:
    worker = world(ended_age_seconds=1.0)
    worker.hello("away", max_in_flight=0)
    id = ID % 9_100_000
    worker.say(b"eve", published(ToBot(bot="away"), id=id))
    worker.commit()
    ended(worker, id)
    worker.settle(5)
    assert list(worker.log.runs) == [id]


def test_a_run_whose_message_reached_nobody_goes() -> None:
    worker = world(ended_age_seconds=1.0)
    id = ID % 9_200_000
    worker.say(b"eve", published(ToChannel("unread"), id=id))
    worker.commit()
    ended(worker, id)
    worker.settle(5)
    assert worker.log.runs == {}


def test_a_disk_that_is_full_is_tried_again() -> None:
    worker = world(ended_age_seconds=1.0)
    ended(worker, "a")
    worker.tick(3)
    batch = worker.core.take_batch(worker.moment)
    assert isinstance(batch, Batch)
    worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment))
    assert list(worker.log.runs) == ["a"]
    worker.settle(5)
    assert worker.log.runs == {}


@pytest.mark.parametrize("set_by", [-3600.0, 3600.0])
def test_a_clock_that_is_set_removes_nothing_early(set_by: float) -> None:
    worker = Clocked(settings(ended_age_seconds=100.0))
    worker.hello("eve")
    ended(worker, "a")
    worker.settle(2)
    worker.set_by = set_by
    worker.settle(60)
    assert list(worker.log.runs) == ["a"]
    worker.settle(60)
    assert worker.log.runs == {}


def test_what_is_delivered_is_not_affected() -> None:
    worker = world(ended_age_seconds=1.0)
    worker.hello("bob")
    ended(worker, *(f"r{number}" for number in range(150)))
    worker.tick(3)
    worker.say(b"eve", published(ToBot(bot="bob")))
    said = worker.settle(5)
    assert len(delivered(said)) == 1
    assert worker.log.runs == {}
