"""The keyed store in the core: when it is swept, and who is told of changes."""

from __future__ import annotations

from typing import Any

from bus.core.effects import Effect
from bus.model.keyed import MARKER_SECONDS, REPEAT_SECONDS
from bus.model.repository import KeyedSwept, SweepKeyed
from bus.wire.frames import Code, Goodbye, Hello

from .worker import Worker, frames

ANN, BOB = b"ann", b"bob"


def house() -> Worker:
    """Return a worker with two sessions."""
    worker = Worker()
    for address in (ANN, BOB):
        worker.say(address, Hello(request=1, protocol=1, bot=address.decode(), max_in_flight=0))
        worker.commit()
    return worker


def told(effects: list[Effect]) -> list[tuple[bytes, list[str]]]:
    """Return who is told of which stores."""
    sent = [(effect, frame) for effect in effects for frame in frames([effect])]
    return [(effect.address, frame["kv"]) for effect, frame in sent if frame["op"] == "kv_changed"]  # type: ignore[union-attr]


def change(worker: Worker, *stores: str) -> list[tuple[bytes, list[str]]]:
    worker.core.waking.keyed.changed(stores)
    return told(worker.core.look_at_runs(worker.moment))


def tick(worker: Worker, seconds: float) -> list[Any]:
    """Let time pass, carry out what is to be written, and return the sweeps among it, and who is told."""
    worker.now += seconds
    worker.core.tick(worker.moment)
    before, heard = len(worker.log.sweeps), []
    while (batch := worker.core.take_batch(worker.moment)) is not None:
        heard += told(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    return [*worker.log.sweeps[before:], *heard]


# ── Who is told ──────────────────────────────────────────────────────────────────────────────────────────


def test_who_asked_is_told_once() -> None:
    worker = house()
    keyed = worker.core.waking.keyed
    assert change(worker, "s") == []
    keyed.watch(ANN, "s")
    keyed.watch(BOB, "s")
    keyed.watch(BOB, "t")
    assert change(worker, "other") == []
    assert change(worker, "s", "t") == [(ANN, ["s"]), (BOB, ["s", "t"])]
    assert change(worker, "s", "t") == []
    keyed.watch(ANN, "s")
    assert change(worker, "s") == [(ANN, ["s"])]


def test_a_session_that_has_ended_is_not_told() -> None:
    worker = house()
    worker.core.waking.keyed.watch(ANN, "s")
    worker.say(ANN, Goodbye(request=2))
    worker.core.waking.keyed.watch(ANN, "s")
    assert change(worker, "s") == []
    assert repr(worker.core.waking.keyed) == "<KeyedWatching stores=0>"


def test_a_session_waits_for_so_many_stores() -> None:
    worker = house()
    for number in range(1001):
        worker.core.waking.keyed.watch(ANN, f"s{number}")
    assert change(worker, "s0") == []
    assert change(worker, "s1", "s1000") == [(ANN, ["s1", "s1000"])]


# ── When it is swept ─────────────────────────────────────────────────────────────────────────────────────


def test_it_is_swept_from_time_to_time() -> None:
    worker = house()
    assert tick(worker, 0) == []
    [sweep] = tick(worker, 5)
    assert (sweep.repeat_seconds, sweep.marker_seconds) == (None, MARKER_SECONDS)
    assert tick(worker, 59) == []
    assert len(tick(worker, 1)) == 1


def test_ids_are_left_alone_while_writes_may_be_repeated() -> None:
    worker = house()
    tick(worker, 0)
    assert [sweep.repeat_seconds for sweep in tick(worker, REPEAT_SECONDS - 1)] == [None]
    assert [sweep.repeat_seconds for sweep in tick(worker, 60)] == [REPEAT_SECONDS]
    worker.restart()
    tick(worker, 0)
    assert [sweep.repeat_seconds for sweep in tick(worker, 60)] == [None]


def test_it_is_swept_when_a_value_expires_and_that_is_told() -> None:
    worker = house()
    tick(worker, 0)
    worker.log.swept = [KeyedSwept(next_seconds=20.0), KeyedSwept(("s",))]
    tick(worker, 5)
    worker.core.waking.keyed.watch(BOB, "s")
    assert tick(worker, 19) == []
    assert tick(worker, 1)[1:] == [(BOB, ["s"])]
    worker.core.waking.keyed.expect(3.0)
    assert tick(worker, 2) == []
    assert len(tick(worker, 1)) == 1


def test_a_value_that_is_put_during_a_sweep_is_not_forgotten() -> None:
    worker = house()
    tick(worker, 0)
    worker.now += 5
    worker.core.tick(worker.moment)
    batch = worker.next_batch()
    worker.core.waking.keyed.expect(3.0)
    worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    assert len(tick(worker, 3)) == 1


def test_it_is_swept_again_at_once_if_there_is_more_and_later_if_it_failed() -> None:
    worker = house()
    tick(worker, 0)
    worker.log.swept = [KeyedSwept(more=True)]
    tick(worker, 5)
    assert len(tick(worker, 0)) == 1
    worker.now += 60
    worker.core.tick(worker.moment)
    batch = worker.next_batch()
    assert any(isinstance(change, SweepKeyed) for change in batch.changes)
    worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment)
    assert tick(worker, 1) == []
    assert len(tick(worker, 4)) == 1


def test_who_has_not_the_duties_sweeps_nothing() -> None:
    worker = house()
    worker.core.duties.held = False
    assert tick(worker, 100) == []
