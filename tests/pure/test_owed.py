"""What a mailbox is owed whatever happens to its subscriptions and to the worker: one decision at a time."""

from __future__ import annotations

from typing import Literal

import pytest

from bus.wire.frames import (
    Ack,
    Code,
    Nak,
    RetryDeadLetters,
    StartAt,
    Subscribe,
    Term,
    ToBot,
    ToChannel,
    Unsubscribe,
)

from .worker import Worker, delivered, published


def joined(worker: Worker, start: Literal["new", "all"] | StartAt = "new", group: str | None = None) -> None:
    worker.say(b"bob", Subscribe(request=2, channel="news", start=start, group=group))
    worker.commit()


def seqs(worker: Worker) -> list[int]:
    """Go on for a while, and return what is delivered."""
    return [message["seq"] for message in delivered(worker.settle(2))]


@pytest.mark.parametrize("crash", [False, True], ids=["", "with a crash before the delivery"])
@pytest.mark.parametrize("since", ["left", "joined again", "joined in a group"])
def test_a_dead_letter_of_a_channel_that_was_left_is_delivered_when_it_is_tried_again(
    since: str, crash: bool
) -> None:
    worker = Worker()
    worker.hello("eve")
    worker.hello("bob")
    joined(worker)
    worker.say(b"eve", published(ToChannel("news")))
    worker.commit()
    worker.say(b"bob", Term(seqs=[1], reason="no"))
    worker.say(b"bob", Unsubscribe(request=3, channel="news"))
    worker.commit()
    if since != "left":
        joined(worker, group="team" if since == "joined in a group" else None)
    said = worker.say(b"eve", RetryDeadLetters(request=4, bot="bob", seqs=[1]))
    if crash:
        batch = worker.next_batch()
        worker.log.apply(batch.changes)
        worker.restart()
        worker.hello("bob")
    else:
        said += worker.commit()
        assert {"op": "ok", "request": 4, "value": {"retried": 1}} in said
    assert worker.in_flight(b"bob") == [1]
    worker.say(b"bob", Nak(seqs=[1], delay=1.0))
    assert seqs(worker) == [1], "it is owed until it is settled"
    worker.say(b"bob", Ack(seqs=[1]))
    worker.settle(2)
    assert [state.unsettled for state in worker.log.mailboxes.values()] == [()] * len(worker.log.mailboxes)


def test_a_nak_keeps_its_delay_over_a_restart() -> None:
    worker = Worker()
    worker.hello("bob")
    worker.say(b"bob", published(*[ToBot(bot="bob")] * 2))
    worker.commit()
    worker.say(b"bob", Nak(seqs=[1], delay=60.0))
    worker.say(b"bob", Nak(seqs=[2], delay=60.0, release=True, request=5))
    worker.commit()
    worker.now += 50
    worker.restart()
    worker.hello("bob")
    assert delivered(worker.tick(9)) == []
    assert [message["attempt"] for message in delivered(worker.tick(2))] == [2, 2]


@pytest.mark.parametrize("group", [None, "team"])
def test_a_start_beyond_the_end_waits_for_its_seq_and_harms_nothing_else(group: str | None) -> None:
    worker = Worker()
    worker.hello("eve")
    worker.hello("bob")
    joined(worker, StartAt(seq=6), group)
    worker.say(b"bob", Subscribe(request=3, channel="other", start="all"))
    worker.commit()
    got: list[int] = []
    for number in range(4):
        worker.say(b"eve", published(ToBot(bot="bob"), ToChannel("news")))
        got += [message["seq"] for message in delivered(worker.commit())]
        worker.say(b"bob", Subscribe(request=4, channel=f"another-{number}", start="all"))
        worker.commit(flush=True)
        for state in worker.log.mailboxes.values():
            assert max([state.position, *state.floors.values()]) <= worker.log.last_seq
        worker.restart()
        worker.hello("bob")
        worker.say(b"bob", Ack(seqs=worker.in_flight(b"bob")))
        worker.commit(flush=True)
        worker.hello("eve")
    assert got == [1, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("first", ["the group", "the bot"])
def test_a_message_of_two_mailboxes_comes_to_a_session_from_one_after_the_other(first: str) -> None:
    """A dead letter is tried again whose channel a group of the bot has taken over: it is the group's, too."""
    worker = Worker()
    worker.hello("eve")
    worker.hello("bob")
    joined(worker)
    worker.say(b"eve", published(ToChannel("news")))
    worker.commit()
    worker.say(b"bob", Term(seqs=[1], reason="no"))
    worker.commit(flush=True)
    worker.say(b"bob", Unsubscribe(request=3, channel="news"))
    worker.settle(1)
    retry = RetryDeadLetters(request=4, bot="bob", seqs=[1])
    if first == "the bot":
        worker.say(b"bob", retry)
        assert seqs(worker) == [1]
    worker.say(b"bob", Subscribe(request=2, channel="news", start="all", group="team"))
    assert seqs(worker) == ([1] if first == "the group" else [])
    if first == "the group":
        worker.say(b"bob", retry)
        assert seqs(worker) == []
    assert worker.in_flight(b"bob") == [1]
    worker.say(b"bob", Ack(seqs=[1]))
    assert seqs(worker) == [1], "the other one"
    worker.say(b"bob", Ack(seqs=[1]))
    assert seqs(worker) == []
    assert worker.in_flight(b"bob") == []


def test_what_was_given_up_counts_as_unsettled_until_it_is_a_dead_letter_on_disk() -> None:
    """Whoever waits until nothing is left finds all that was given up."""
    worker = Worker()
    worker.hello("bob")
    worker.say(b"bob", published(ToBot(bot="bob")))
    worker.commit()
    [mailbox] = worker.core.directory.mailboxes.values()
    worker.say(b"bob", Term(seqs=[1]))
    assert (mailbox.reading.loaded(), worker.log.dead_letters) == (1, {})
    batch = worker.core.take_batch(worker.moment, flush=True)
    assert batch is not None
    assert mailbox.reading.loaded() == 1, "it is being written"
    worker.do(worker.core.failed(batch, Code.STORAGE_FULL, "the disk is full", worker.moment))
    assert mailbox.reading.loaded() == 1
    worker.commit(flush=True)
    assert (mailbox.reading.loaded(), list(worker.log.dead_letters)) == (0, [(mailbox.id, 1)])


def test_a_retry_is_stored_with_the_removal_of_its_dead_letter() -> None:
    """A state that has the message again must not be stored while the dead letter is: after a crash it is both."""
    worker = Worker()
    worker.hello("bob")
    worker.say(b"bob", published(ToBot(bot="bob")))
    worker.commit()
    worker.say(b"bob", Term(seqs=[1]))
    worker.commit(flush=True)
    worker.say(b"bob", RetryDeadLetters(request=4, bot="bob", seqs=[1]))
    [mailbox] = worker.core.directory.mailboxes.values()
    assert mailbox.state().unsettled == (), "no batch removes the dead letter yet"
    worker.commit()
    assert worker.log.dead_letters == {}
    assert [item.seq for item in worker.log.mailboxes[mailbox.id].unsettled] == [1]
