"""Runs that schedules start: when the worker looks, and who is told."""

from __future__ import annotations

from typing import Any

from bus.model.records import WORKER_ID, WORKER_NAME
from bus.model.repository import NewMessage, RecoverRuns, Started, StartScheduled
from bus.settings import Settings, Workflows

from .worker import ID, Worker, delivered


def world() -> Worker:
    worker = Worker(Settings(workflows=Workflows(sweep_seconds=5.0)))
    worker.hello("bob")
    worker.core.tick(worker.moment)
    return worker


def sweep(worker: Worker) -> tuple[list[Any], list[dict[str, Any]]]:
    """Write what is to be written; return what that was, and what was sent."""
    batch = worker.next_batch()
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    return batch.changes, said


def notice(worker: Worker, number: int) -> Any:
    return NewMessage(
        id=ID % (7_000_000 + number),
        sender_bot_id=WORKER_ID,
        sender_bot_name=WORKER_NAME,
        recipient_bot_id=worker.core.directory.names["bob"].id,
        recipient_channel=None,
        message_type="workflow.start",
        body=b"{}",
        reply_to=None,
        headers=b"{}",
    )


def test_a_bot_is_told_of_the_runs_that_are_started() -> None:
    worker = world()
    worker.log.started = [Started(["r"], [notice(worker, 1)])]
    worker.tick(5)
    _, said = sweep(worker)
    assert [message["message_type"] for message in delivered(said)] == ["workflow.start"]


def test_the_next_look_is_when_a_time_comes() -> None:
    worker = world()
    worker.log.started = [Started(["r"], [], next_seconds=2.0), Started([], [], next_seconds=100.0)]
    worker.tick(5)
    sweep(worker)
    worker.tick(1)
    assert not worker.core.has_batch(worker.moment)
    worker.tick(1)
    sweep(worker)
    worker.tick(4)
    assert not worker.core.has_batch(worker.moment)
    worker.tick(1)
    assert worker.core.has_batch(worker.moment), "as often as for lost holders"


def test_what_may_be_due_already_is_looked_for_at_once() -> None:
    worker = world()
    worker.log.started = [Started(["r"], [], more=True), Started(["s"], [])]
    worker.tick(5)
    sweep(worker)
    worker.core.tick(worker.moment)
    sweep(worker)
    worker.tick(4)
    assert not worker.core.has_batch(worker.moment)


def test_a_time_soon_after_the_start_takes_no_run_from_its_holder() -> None:
    worker = Worker(Settings(workflows=Workflows(sweep_seconds=5.0)))
    worker.hello("bob")
    worker.core.recovering.expect(1.0)
    worker.tick(1)
    changes, _ = sweep(worker)
    assert [change.runs_max for change in changes if isinstance(change, RecoverRuns)] == [0]
    assert [change.runs_max for change in changes if isinstance(change, StartScheduled)] == [100]
    worker.tick(5)
    changes, _ = sweep(worker)
    assert [change.runs_max for change in changes if isinstance(change, RecoverRuns)] == [100]
