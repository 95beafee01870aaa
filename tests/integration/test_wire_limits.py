"""Limits that answer, and retention, on the wire: who is refused, what goes, and who is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .forked_worker import forked_worker
from .wire import TIMEOUT_SECONDS, Session, bodies, seqs_of, to_bot, to_channel
from .wire_worker import Worker

FULL = """
[limits]
backlog_messages_max = 5
scheduled_messages_max = 2
"""

KEEPS_FEW = """
[retention]
messages_max = 10
sweep_seconds = 0.1
"""

KEEPS_FEW_WHATEVER_HAPPENS = KEEPS_FEW + "remove_undelivered = true\n"


@pytest.fixture
def configured(request: pytest.FixtureRequest, tmp_path: Path, store_url: str) -> Iterator[Worker]:
    with forked_worker(tmp_path, request.param, store_url) as worker:
        yield worker


def wait_for_messages(session: Session, count: int) -> None:
    """Wait until the log has no more than so many."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while session.value("status")["sizes"]["messages"] > count:
        assert time.monotonic() < end, "nothing was removed"
        time.sleep(0.01)


@pytest.mark.parametrize("configured", [FULL], indirect=True)
def test_a_full_mailbox_refuses_and_forgets_nothing(configured: Worker) -> None:
    sender = configured.session("sender")
    configured.session("reader").goodbye()
    messages = [to_bot("reader", number) for number in range(8)]
    answer = sender.try_publish(*messages, to_channel("news", 1))
    assert answer["seqs"] == [1, 2, 3, 4, 5, None, None, None, 6]
    assert {error["code"] for error in answer["errors"]} == {"mailbox_full"}
    again = sender.try_publish(*messages)
    assert (again["seqs"][:5], again["duplicates"]) == ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4])
    assert [error["index"] for error in again["errors"]] == [5, 6, 7]
    reader = configured.session("reader")
    assert bodies(reader.take(5)) == [0, 1, 2, 3, 4]
    assert sender.publish(*messages[5:]) == [7, 8, 9]


@pytest.mark.parametrize("configured", [FULL], indirect=True)
def test_a_full_mailbox_is_full_after_a_restart(configured: Worker) -> None:
    configured.session("reader").goodbye()
    configured.session("sender").publish(*[to_bot("reader", number) for number in range(5)])
    configured.kill()
    configured.close_clients()
    configured.start()
    sender = configured.session("sender")
    end = time.monotonic() + TIMEOUT_SECONDS
    taken = 0
    while "errors" not in sender.try_publish(to_bot("reader", "one more")):
        taken += 1
        assert time.monotonic() < end
    assert taken < 2000, "only what comes while it is being counted, however busy the machine"


@pytest.mark.parametrize("configured", [FULL], indirect=True)
def test_those_that_wait_until_they_are_due_are_bounded(configured: Worker) -> None:
    bot = configured.session("bot")
    answer = bot.try_publish(*[to_bot("bot", number, delay=3600) for number in range(3)])
    assert answer["scheduled"] == [0, 1]
    [refused] = answer["errors"]
    assert (refused["index"], refused["code"]) == (2, "busy")


@pytest.mark.parametrize("configured", [KEEPS_FEW], indirect=True)
def test_retention_leaves_the_newest_and_what_is_waited_for(configured: Worker) -> None:
    away = configured.session("away")
    away.subscribe("news")
    away.goodbye()
    sender = configured.session("sender")
    sender.publish(*[to_channel("news", number) for number in range(30)])
    sender.publish(*[to_channel("other", number) for number in range(100)])
    wait_for_messages(sender, 40)
    assert bodies(sender.history(channel="other", limit=100)) == list(range(99, 89, -1))
    away = configured.session("away")
    found = away.take(30)
    assert bodies(found) == list(range(30))
    away.value("ack", seqs=seqs_of(found))
    wait_for_messages(sender, 10)
    assert sender.history(channel="news") == []
    assert sender.value("status")["counters"]["removed"] == 120


@pytest.mark.parametrize("configured", [KEEPS_FEW_WHATEVER_HAPPENS], indirect=True)
def test_a_mailbox_that_lost_messages_is_told(configured: Worker) -> None:
    away = configured.session("away")
    away.subscribe("news")
    away.goodbye()
    sender = configured.session("sender")
    seqs = sender.publish(*[to_channel("news", number) for number in range(30)])
    wait_for_messages(sender, 10)
    configured.kill()
    configured.close_clients()
    configured.start()
    away = configured.session("away")
    gap = away.receive_until("gap")
    assert gap == {"op": "gap", "from_seq": seqs[0], "to_seq": seqs[19], "reason": "retention"}
    assert seqs_of(away.take(10)) == seqs[20:]
