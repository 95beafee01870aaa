"""Rate limits on the wire: each message refused for itself, and who is too fast is listed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .forked_worker import forked_worker
from .wire import TIME, bodies, to_bot, to_channel
from .wire_worker import Worker

CONFIGURATION = """
[limits]
sender_messages_per_second_max = 20
pair_messages_per_second_max = 2
rate_burst_seconds = 2
"""


@pytest.fixture
def slow_worker(tmp_path: Path, store_url: str) -> Iterator[Worker]:
    with forked_worker(tmp_path, CONFIGURATION, store_url) as running:
        yield running


def test_what_is_over_a_rate_is_refused_for_itself(slow_worker: Worker) -> None:
    sender = slow_worker.session("sender", max_in_flight=0)
    first, second = slow_worker.session("first"), slow_worker.session("second")
    messages = [to_bot("first", number) for number in range(6)] + [to_bot("second", 6), to_channel("news", 7)]
    answer = sender.try_publish(*messages)
    assert [index for index, seq in enumerate(answer["seqs"]) if seq is None] == [4, 5]
    for error in answer["errors"]:
        assert set(error) == {"index", "code", "message", "retry_after"}
        assert error["code"] == "rate_limited"
        assert "'sender' may send 'first' no more than 2 a second, and 4 at once" in error["message"]
        assert 0 < error["retry_after"] <= 0.5
    assert bodies(first.take(4)) == [0, 1, 2, 3]
    assert bodies(second.take(1)) == [6]
    assert first.waiting_deliveries() == []

    # The same message again, with its id, when there is room: it was not stored before.
    deadline = time.monotonic() + 30
    while "errors" in (again := sender.try_publish(messages[4])):
        assert time.monotonic() < deadline
        time.sleep(again["errors"][0]["retry_after"])
    assert set(again) == {"op", "request", "seqs"}
    assert bodies(first.take(1)) == [4]


def test_who_is_too_fast_is_listed(slow_worker: Worker) -> None:
    sender, other = slow_worker.session("sender"), slow_worker.session("other")
    assert sender.value("status")["rate_limited"] == []
    refused = sender.try_publish(*(to_channel("news", number) for number in range(50)))["errors"]
    assert len(refused) == 10
    assert {error["index"] for error in refused} == set(range(40, 50))
    assert "'sender' may publish no more than 20 a second, and 40 at once" in refused[0]["message"]
    assert len(other.try_publish(*(to_bot("sender", number) for number in range(7)))["errors"]) == 3
    status = other.value("status")
    assert status["counters"]["rate_limited"] == 13
    assert status["counters"]["refused"] == 13
    listed = [(each["sender"], each["recipient"], each["times"]) for each in status["rate_limited"]]
    assert listed == [("other", "sender", 3), ("sender", None, 10)]
    assert all(TIME.fullmatch(each["last_at"]) for each in status["rate_limited"])
    slow_worker.kill()
    slow_worker.start()
    sender.hello("sender")
    assert sender.value("status")["rate_limited"] == [], "rates are not kept over a restart"
    sender.publish(*(to_channel("news", number) for number in range(40)))
