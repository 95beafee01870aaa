"""A worker without the duties of its house leaves what is due to the one that has them."""

from __future__ import annotations

from bus.model.repository import RecoverRuns, ReleaseDue, RemoveMessages, StartScheduled
from bus.settings import RetentionSettings, Settings
from bus.wire.frames import Ack, ToBot

from .worker import Worker, published

DUTIES = {ReleaseDue, RecoverRuns, StartScheduled, RemoveMessages}


def done_in_a_minute(worker: Worker) -> set[type]:
    """Return which duties are done while time passes."""
    done: set[type] = set()
    for _ in range(60):
        worker.tick(1.0)
        while worker.core.has_batch(worker.moment):
            batch = worker.next_batch()
            done |= {type(change) for change in batch.changes}
            worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    return done & DUTIES


def test_duties_are_done_by_whoever_has_them() -> None:
    worker = Worker(Settings(retention=RetentionSettings(messages_max=1, sweep_seconds=1.0)))
    worker.core.duties.held = False
    worker.hello("a")
    worker.hello("b", max_in_flight=0)
    worker.say(b"a", published(ToBot(bot="a"), delay=5.0))
    worker.say(b"a", published(ToBot(bot="a")))
    worker.say(b"a", published(ToBot(bot="a")))
    worker.commit()
    worker.say(b"a", Ack(seqs=[1, 2]))
    assert done_in_a_minute(worker) == set()
    worker.core.duties.held = True
    assert done_in_a_minute(worker) == DUTIES
