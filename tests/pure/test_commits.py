"""Commits on their way to the disk, as the core sees them."""

from __future__ import annotations

from typing import Any

import pytest

from bus.errors import RecordDamaged
from bus.model.repository import Applied, NotCommitted
from bus.wire.codec import decode_request
from bus.wire.frames import Code, Commit, ToBot

from .worker import ID, Worker, delivered, published


def _receiver() -> tuple[Worker, list[int]]:
    """Return a worker whose bot `a` has two messages in flight."""
    worker = Worker()
    worker.hello("b", max_in_flight=0)
    worker.hello("a")
    worker.say(b"b", published(ToBot(bot="a"), ToBot(bot="a")))
    return worker, [message["seq"] for message in delivered(worker.commit())]


def _commit(number: int, acks: list[int], *, request: int = 7, **fields: Any) -> Commit:
    return Commit(request=request, id=ID % (0xC000 + number), acks=acks, **fields)


@pytest.mark.parametrize("depth", [101, 500, 990, 994, 1_000, 100_000])
@pytest.mark.parametrize(
    "values", ['"context":%s', '"steps":[{"id":"s","run_id":"r","step_id":"s","step_name":"s","input":%s}]']
)
def test_a_value_that_is_nested_too_deep_is_refused_and_never_cut(depth: int, values: str) -> None:
    worker, _ = _receiver()
    values = values % ("[" * depth + "]" * depth)
    frame = f'{{"op":"commit","request":7,"id":"{ID % 1}","run_id":"r","fence":1,{values}}}'
    [refused] = worker.say(b"a", decode_request(frame.encode(), 1 << 20))
    assert (refused["op"], refused["code"], refused["request"]) == ("error", "bad_request", 7)
    assert "nested deeper than 100" in refused["message"]


def test_a_commit_weighs_what_it_holds() -> None:
    worker, _ = _receiver()
    context = "x" * (worker.settings.limits.batch_bytes_max // 2)
    for number in range(2):
        assert not worker.core.full
        worker.say(b"a", _commit(number, [], run_id="r", fence=1, context=context))
    assert worker.core.full


def test_a_commit_that_is_repeated_while_the_disk_refuses_the_first_is_carried_out() -> None:
    worker, [first, second] = _receiver()
    worker.say(b"a", _commit(1, [first]))
    batch = worker.next_batch()
    worker.say(b"a", _commit(1, [first], request=8))
    [refused] = worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment))
    assert refused["code"] == "storage_full"
    [done] = worker.commit()
    assert done == {"op": "ok", "request": 8, "value": {"seqs": []}}
    assert worker.in_flight(b"a") == [second]


def test_two_commits_of_one_id_settle_nothing_of_each_other() -> None:
    worker, [first, second] = _receiver()
    worker.say(b"a", _commit(1, [first]))
    worker.say(b"a", _commit(1, [second], request=8))
    done, refused = worker.commit()
    assert (done["op"], refused["code"]) == ("ok", "conflict")
    assert worker.in_flight(b"a") == [second]
    worker.restart()
    assert [message["seq"] for message in delivered(worker.hello("a"))] == [second]


def test_a_commit_on_what_is_damaged_is_told_so() -> None:
    worker, [first, second] = _receiver()
    worker.say(b"a", _commit(1, [first]))
    batch = worker.next_batch()
    damaged = NotCommitted(RecordDamaged("workflow_runs", "id r"))
    applied = Applied([damaged, *[None] * (len(batch.changes) - 1)], batch.timestamp)
    [refused] = worker.do(worker.core.applied(batch, applied, worker.moment))
    assert (refused["code"], refused["retry"], refused["request"]) == ("internal", True, 7)
    assert "posthouse check" in refused["message"]
    assert worker.in_flight(b"a") == [first, second]
