"""Retention, one decision at a time: what leaves the log, what stays, and who is told."""

from __future__ import annotations

from typing import Any

import pytest

from bus.core.batches import Batch
from bus.model.repository import RemoveMessages
from bus.settings import Keep, RetentionSettings, Settings
from bus.wire.frames import (
    Ack,
    Code,
    Credit,
    Nak,
    Ping,
    RetryDeadLetters,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
)

from .worker import Worker, delivered, frames, published


def world(**retention: Any) -> Worker:
    keep = RetentionSettings(**{"sweep_seconds": 1.0, "portion_messages_max": 4} | retention)
    worker = Worker(Settings(retention=keep))
    worker.hello("eve")
    return worker


def send(worker: Worker, *recipients: ToBot | ToChannel, **fields: Any) -> None:
    worker.say(b"eve", published(*recipients, **fields))
    worker.commit()


def gaps(said: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    return [(frame["from_seq"], frame["to_seq"], frame["reason"]) for frame in said if frame["op"] == "gap"]


def test_nothing_leaves_unless_it_is_told_so() -> None:
    worker = world()
    send(worker, *[ToChannel("news")] * 20)
    worker.settle(100)
    assert len(worker.log.messages) == 20


def test_the_newest_stay() -> None:
    worker = world(messages_max=5)
    send(worker, *[ToChannel("news")] * 20)
    worker.settle(3)
    assert list(worker.log.messages) == [16, 17, 18, 19, 20]
    send(worker, *[ToChannel("news")] * 7)
    worker.settle(3)
    assert list(worker.log.messages) == [23, 24, 25, 26, 27]
    assert worker.core.dispatch.counters.removed == 22


def test_the_newest_bytes_stay() -> None:
    worker = world(bytes_max=10)  # a body of one byte, and headers of two
    send(worker, *[ToChannel("news")] * 20)
    worker.settle(3)
    assert list(worker.log.messages) == [18, 19, 20]


def test_what_is_old_goes_and_the_last_stays() -> None:
    worker = world(age_seconds=10.0)
    send(worker, *[ToChannel("news")] * 6)
    worker.settle(6)
    send(worker, *[ToChannel("news")] * 3)
    worker.settle(6)
    assert list(worker.log.messages) == [7, 8, 9]
    worker.settle(60)
    assert list(worker.log.messages) == [9], "seqs go on from it"


def test_a_channels_limit_is_its_own() -> None:
    worker = world(channels={"ticks": Keep(messages_max=2), "news": Keep(age_seconds=1000.0)})
    send(worker, *[ToChannel("ticks"), ToChannel("news")] * 5, *[ToBot(bot="eve")] * 5)
    worker.settle(3)
    kept = [message.recipient_channel for message in worker.log.messages.values()]
    assert (kept.count("ticks"), kept.count("news"), kept.count(None)) == (2, 5, 5)


def test_the_limits_of_the_log_and_of_a_channel_hold_together() -> None:
    worker = world(messages_max=12, channels={"ticks": Keep(messages_max=5)})
    for _ in range(3):
        send(worker, *[ToChannel("ticks"), ToChannel("news")] * 6)
        worker.settle(4)
        kept = [message.recipient_channel for message in worker.log.messages.values()]
        assert kept.count("ticks") == 5
        assert set(worker.log.messages) <= set(range(worker.log.last_seq - 11, worker.log.last_seq + 1))


def test_what_somebody_waits_for_stays() -> None:
    worker = world(messages_max=3)
    worker.hello("away")
    worker.say(b"away", Subscribe(request=2, channel="news"))
    worker.commit()
    worker.say(b"away", Ack(seqs=[]))
    worker.core.unreachable(b"away", worker.moment)
    send(worker, *[ToChannel("news"), ToChannel("other")] * 10)
    worker.settle(5)
    kept = [message.recipient_channel for message in worker.log.messages.values()]
    assert (kept.count("news"), kept.count("other")) == (10, 2)
    worker.hello("away")
    worker.settle(1)
    worker.say(b"away", Ack(seqs=worker.in_flight(b"away")))
    for _ in range(4):
        worker.say(b"away", Ping())
        worker.settle(1)
    assert list(worker.log.messages) == [18, 19, 20]


def test_what_is_in_flight_or_dead_stays() -> None:
    worker = world(messages_max=1)
    worker.hello("bob")
    send(worker, *[ToBot(bot="bob")] * 3, ToChannel("news"))
    worker.say(b"bob", Ack(seqs=[1]))
    worker.say(b"bob", Term(seqs=[2], reason="no"))
    for _ in range(4):
        worker.say(b"bob", Ping())
        worker.settle(1)
    assert list(worker.log.messages) == [2, 3, 4]
    worker.say(b"bob", RetryDeadLetters(request=5, bot="bob", seqs=[2]))
    assert [message["seq"] for message in delivered(worker.commit())] == [2]


def test_undelivered_messages_go_when_it_is_told_so_and_their_bots_are_told() -> None:
    worker = world(messages_max=3, remove_undelivered=True)
    worker.hello("bob", max_in_flight=2)
    send(worker, *[ToBot(bot="bob")] * 10)
    said: list[dict[str, Any]] = []
    for _ in range(3):
        worker.say(b"bob", Ping())
        said += worker.settle(1)
    assert list(worker.log.messages) == [1, 2, 8, 9, 10], "what is being worked on stays"
    assert gaps(said)[-1] == (3, 7, "retention")
    said = worker.say(b"bob", Ack(seqs=[1, 2]))
    assert [message["seq"] for message in delivered(said)] == [8, 9]


def test_a_bot_that_was_away_is_told_when_it_comes_back_also_after_a_restart() -> None:
    worker = world(messages_max=2, remove_undelivered=True)
    worker.hello("bob")
    worker.core.unreachable(b"bob", worker.moment)
    send(worker, *[ToBot(bot="bob")] * 6)
    worker.settle(3)
    worker.restart()
    said = worker.hello("bob") + worker.settle(1)
    assert gaps(said) == [(1, 4, "retention")]
    assert [message["seq"] for message in delivered(said)] == [5, 6]
    worker.say(b"bob", Ping())
    worker.settle(1)
    worker.restart()
    assert gaps(worker.hello("bob") + worker.settle(1)) == [], "it was told, and heard of after that"


def test_a_group_without_members_holds_what_it_waits_for() -> None:
    worker = world(messages_max=1)
    worker.say(b"eve", Subscribe(request=2, channel="work", group="team"))
    worker.commit()
    worker.core.unreachable(b"eve", worker.moment)
    worker.hello("eve", max_in_flight=0)
    send(worker, *[ToChannel("work")] * 4)
    worker.settle(4)
    assert list(worker.log.messages) == [1, 2, 3, 4]


def test_own_messages_hold_nobody_up() -> None:
    worker = world(messages_max=2)
    worker.say(b"eve", Subscribe(request=2, channel="news"))
    worker.commit()
    send(worker, *[ToChannel("news")] * 8)
    worker.settle(4)
    assert list(worker.log.messages) == [7, 8]
    worker.core.unreachable(b"eve", worker.moment)
    worker.hello("ann")
    worker.say(b"ann", published(*[ToChannel("other")] * 3))
    worker.commit()
    worker.settle(4)
    assert list(worker.log.messages) == [10, 11]


def test_a_full_disk_ends_the_sweep_and_the_next_one_goes_on() -> None:
    worker = world(messages_max=2)
    send(worker, *[ToChannel("news")] * 6)
    worker.tick(1)
    batch = worker.next_batch()
    assert frames(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment)) == []
    assert len(worker.log.messages) == 6
    worker.settle(3)
    assert list(worker.log.messages) == [5, 6]


def test_it_works_in_small_portions() -> None:
    worker = world(messages_max=1)
    send(worker, *[ToChannel("news")] * 30)
    worker.tick(1)
    removed: list[int] = []
    while worker.core.has_batch(worker.moment):
        before = len(worker.log.messages)
        worker.commit()
        removed.append(before - len(worker.log.messages))
    assert sum(removed) == 29
    assert max(removed) <= 4


@pytest.mark.parametrize("messages_max", [1, 7, 50])
def test_a_restart_counts_anew(messages_max: int) -> None:
    worker = world(messages_max=messages_max)
    send(worker, *[ToChannel("news")] * 30)
    worker.settle(2)
    worker.restart()
    worker.hello("eve")
    send(worker, *[ToChannel("news")] * 5)
    worker.settle(3)
    assert len(worker.log.messages) == min(messages_max, 35)


@pytest.mark.parametrize("remove_undelivered", [False, True])
def test_what_is_owed_of_a_channel_that_was_left_stays(remove_undelivered: bool) -> None:
    worker = world(messages_max=1, remove_undelivered=remove_undelivered)
    worker.hello("bob")
    worker.say(b"bob", Subscribe(request=2, channel="news"))
    worker.commit()
    send(worker, *[ToChannel("news")] * 3, *[ToChannel("other")] * 4)
    worker.say(b"bob", Term(seqs=[1], reason="no"))
    worker.say(b"bob", Ack(seqs=[2]))
    worker.say(b"bob", Unsubscribe(request=3, channel="news"))
    worker.commit(flush=True)
    for _ in range(4):
        worker.say(b"bob", Ping())
        worker.settle(1)
    assert list(worker.log.messages) == [1, 3, 7], "the dead letter, the one in flight, and the last"
    worker.say(b"bob", Ack(seqs=[3]))
    worker.settle(3)
    assert list(worker.log.messages) == [1, 7]


def test_what_waits_for_its_end_of_a_channel_that_was_left_is_saved_with_its_removal() -> None:
    worker = world(messages_max=1)
    worker.hello("bob")
    worker.say(b"bob", Subscribe(request=2, channel="news"))
    worker.commit()
    send(worker, *[ToChannel("news")] * 2, *[ToChannel("other")] * 2)
    worker.say(b"bob", Nak(seqs=[1], delay=0.0))
    worker.commit(flush=True)
    worker.say(b"bob", Unsubscribe(request=3, channel="news"))
    worker.settle(4)
    owed = {item.seq for state in worker.log.mailboxes.values() for item in state.unsettled}
    assert owed <= worker.log.messages.keys()


def being_removed(worker: Worker) -> Batch:
    """Go on until messages are being removed."""
    worker.tick(1)
    batch = worker.next_batch()
    assert any(isinstance(change, RemoveMessages) for change in batch.changes)
    return batch


def test_what_is_being_removed_is_not_handed_out() -> None:
    worker = world(messages_max=1, remove_undelivered=True)
    worker.hello("bob", max_in_flight=0)
    send(worker, *[ToBot(bot="bob")] * 4)
    batch = being_removed(worker)
    said = worker.say(b"bob", Credit(max_in_flight=10))
    assert [message["seq"] for message in delivered(said)] == [4]
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    assert gaps(said) == [(1, 3, "retention")]
    assert worker.in_flight(b"bob") == [4]
    worker.restart()
    worker.hello("bob")
    assert worker.in_flight(b"bob") == [4]


def test_what_is_not_removed_after_all_is_handed_out() -> None:
    worker = world(messages_max=1, remove_undelivered=True)
    worker.hello("bob", max_in_flight=0)
    send(worker, *[ToBot(bot="bob")] * 4)
    batch = being_removed(worker)
    worker.say(b"bob", Credit(max_in_flight=10))
    said = frames(worker.core.failed(batch, Code.STORAGE_FULL, "full", worker.moment))
    assert [message["seq"] for message in delivered(said)] == [1, 2, 3]
    assert gaps(said) == []


def test_what_is_handed_out_before_its_removal_is_written_stays() -> None:
    worker = world(messages_max=1, remove_undelivered=True)
    worker.hello("bob", max_in_flight=0)
    send(worker, *[ToBot(bot="bob")] * 4)
    worker.tick(1)  # their removal waits for the next batch
    worker.say(b"bob", Credit(max_in_flight=2))
    said = worker.commit()
    assert sorted(worker.log.messages) == [1, 2, 4]
    assert gaps(said) == [(3, 3, "retention")]


def test_what_expires_while_it_is_being_removed_is_no_dead_letter() -> None:
    worker = world(messages_max=1, remove_undelivered=True)
    worker.hello("bob", max_in_flight=0)
    send(worker, *[ToBot(bot="bob")] * 3, ttl=2.0)
    batch = being_removed(worker)
    worker.now += 5
    worker.say(b"bob", Credit(max_in_flight=10))
    worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    worker.settle(2)
    assert [seq for _, seq in worker.log.dead_letters] == [3]
    assert set(worker.log.messages) == {3}


def test_a_dead_letter_that_is_tried_again_is_not_lost_before_it_is_settled() -> None:
    worker = world(messages_max=1, remove_undelivered=True)
    worker.hello("bob")
    send(worker, ToBot(bot="bob"), ToChannel("news"))
    worker.say(b"bob", Term(seqs=[1], reason="no"))
    worker.say(b"bob", RetryDeadLetters(request=5, bot="bob", seqs=[1]))
    worker.say(b"bob", Credit(max_in_flight=0))
    worker.commit()
    worker.core.unreachable(b"bob", worker.moment)
    worker.settle(4)
    assert list(worker.log.messages) == [1, 2]


def test_what_a_channel_that_is_left_drops_is_no_loss() -> None:
    worker = world(messages_max=1, remove_undelivered=True)
    worker.hello("bob", max_in_flight=0)
    worker.say(b"bob", Subscribe(request=2, channel="news"))
    worker.commit()
    send(worker, *[ToChannel("news")] * 4)
    worker.say(b"bob", Unsubscribe(request=3, channel="news"))
    worker.tick(1)  # both are in one batch
    said: list[dict[str, Any]] = []
    while worker.core.has_batch(worker.moment):
        said += worker.commit()
    assert list(worker.log.messages) == [4]
    assert gaps(said) == []
