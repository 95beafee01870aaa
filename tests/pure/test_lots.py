"""Lots: messages that are alike are handled together, whatever frame they came in, and no one's order changes."""

from __future__ import annotations

import random

import msgspec
import pytest

from bus.model.repository import Added, AddMessages, Lot, Outcome, each, joined, outcome_of, outcomes_of
from bus.wire.frames import Publish, ToBot, ToChannel

from .worker import ID, Worker, delivered, published


def some_lots(chance: random.Random) -> list[Lot]:
    lots: list[Lot] = []
    for number in range(chance.randrange(8)):
        ids = [f"{number}.{at}" for at in range(chance.randint(1, 4))]
        reply_tos = [f"to {id}" for id in ids] if chance.random() < 0.5 else None
        bodies = [id.encode() for id in ids]
        sender, known_only = chance.choice("ab"), chance.random() < 0.3
        lots.append(
            Lot(ids, bodies, reply_tos, sender, sender, "reader", None, "note", b"{}", known_only=known_only)
        )
    return lots


@pytest.mark.parametrize("seed", range(300))
def test_joined_lots_have_the_same_messages_and_their_outcomes_are_given_back(seed: int) -> None:
    chance = random.Random(seed)
    lots = some_lots(chance)
    fewer = joined(lots)
    assert [message for lot in fewer for message in lot.messages()] == [
        message for lot in lots for message in lot.messages()
    ]
    added: list[Added] = []
    outcomes: list[Outcome] = []
    for lot in fewer:
        its = [
            Added(len(added) + at) if chance.random() < 0.9 else Added(1, duplicate=True)
            for at in range(len(lot.ids))
        ]
        added += its
        outcomes.append(outcome_of(its))
    parts = list(outcomes_of(lots, fewer, outcomes))
    assert [one for lot, part in zip(lots, parts, strict=True) for one in each(lot, part)] == added


def numbered(recipient: ToBot | ToChannel, *numbers: int) -> Publish:
    frame = published(*[recipient] * len(numbers))
    bodies = [msgspec.Raw(b"%d" % number) for number in numbers]
    messages = [
        msgspec.structs.replace(message, body=body) for message, body in zip(frame.messages, bodies, strict=True)
    ]
    return msgspec.structs.replace(frame, messages=messages)


def test_frames_of_one_sender_are_a_lot_in_the_order_in_which_they_were_sent() -> None:
    worker = Worker()
    for bot in ("reader", "ann", "bob"):
        worker.hello(bot)
    for number in range(10):
        worker.say(b"ann", numbered(ToBot(bot="reader"), number))
        worker.say(b"bob", numbered(ToBot(bot="reader"), 100 + number))
    batch = worker.next_batch()
    [change] = [change for change in batch.changes if isinstance(change, AddMessages)]
    assert [len(lot.ids) for lot in change.lots] == [10, 10]
    said = worker.do(worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment))
    messages = delivered(said)
    assert [message["seq"] for message in messages] == list(range(1, 21))
    for sender, first in (("ann", 0), ("bob", 100)):
        bodies = [message["body"] for message in messages if message["sender_bot_name"] == sender]
        assert bodies == list(range(first, first + 10))
    answers = [frame["seqs"] for frame in said if frame["op"] == "published"]
    assert sorted(seqs[0] for seqs in answers) == list(range(1, 21))


def test_what_a_sender_sends_to_several_recipients_keeps_its_order_for_each() -> None:
    worker = Worker()
    for bot in ("ann", "one", "two"):
        worker.hello(bot)
    for number in range(12):
        worker.say(b"ann", numbered(ToBot(bot=("one", "two")[number % 2]), number))
    messages = delivered(worker.commit())
    assert sorted(message["body"] for message in messages) == list(range(12))
    for rest in (0, 1):
        bodies = [message["body"] for message in messages if message["body"] % 2 == rest]
        assert bodies == sorted(bodies)


def test_a_repeat_leaves_its_neighbours_one_lot() -> None:
    worker = Worker()
    worker.hello("reader")
    worker.hello("ann")
    first = numbered(ToBot(bot="reader"), 0)
    worker.say(b"ann", first)
    worker.commit()
    more = numbered(ToBot(bot="reader"), 1, 2, 3)
    mixed = msgspec.structs.replace(more, messages=[*more.messages[:2], *first.messages, *more.messages[2:]])
    worker.say(b"ann", mixed)
    said = worker.commit()
    [answer] = [frame for frame in said if frame["op"] == "published"]
    assert (answer["seqs"], answer["duplicates"]) == ([2, 3, 1, 4], [2])
    assert [message["body"] for message in delivered(said)] == [1, 2, 3]
    mailbox = worker.core.directory.mailboxes[worker.core.directory.names["reader"].id]
    assert len({id(mailbox.outstanding.get(seq)) for seq in (2, 3, 4)}) == 1, "they share what is known of them"


# ── Awaited replies ──────────────────────────────────────────────────────────────────────────────────────


def asked(worker: Worker, count: int, bot: str = "ann") -> list[str]:
    """Let the asker, which has no credit, ask a bot so many questions; return their ids."""
    questions = published(*[ToBot(bot=bot)] * count, expects_reply=True)
    worker.say(b"asker", questions)
    worker.commit()
    return [message.id for message in questions.messages]


def replies(ids: list[str], first: int = 0) -> Publish:
    frame = numbered(ToBot(bot="asker"), *range(first, first + len(ids)))
    messages = [
        msgspec.structs.replace(message, reply_to=id) for message, id in zip(frame.messages, ids, strict=True)
    ]
    return msgspec.structs.replace(frame, messages=messages)


def test_awaited_replies_share_a_frame_even_of_several_senders() -> None:
    worker = Worker()
    for bot, credit in (("asker", 0), ("ann", 100), ("bob", 100)):
        worker.hello(bot, max_in_flight=credit)
    ids = asked(worker, 3) + asked(worker, 3, "bob")
    worker.say(b"ann", replies(ids[:3]))
    worker.say(b"bob", replies(ids[3:], first=3))
    said = worker.commit()
    [frame] = [frame for frame in said if frame["op"] == "deliver"]
    assert [message["reply_to"] for message in frame["messages"]] == ids
    assert [message["body"] for message in frame["messages"]] == list(range(6))
    assert len(worker.in_flight(b"asker")) == 6


def test_only_the_first_reply_of_a_frame_is_ahead_of_its_turn() -> None:
    worker = Worker()
    for bot, credit in (("asker", 0), ("ann", 100)):
        worker.hello(bot, max_in_flight=credit)
    [id] = asked(worker, 1)
    worker.say(b"ann", replies([id, ID % 999, id]))
    messages = delivered(worker.commit())
    assert [message["body"] for message in messages] == [0]


def test_replies_do_not_wait_for_what_takes_the_credit_in_the_same_turn() -> None:
    worker = Worker()
    for bot, credit in (("asker", 2), ("ann", 100)):
        worker.hello(bot, max_in_flight=credit)
    ids = asked(worker, 3)
    worker.say(b"ann", numbered(ToBot(bot="asker"), 100, 101))
    worker.say(b"ann", replies(ids))
    messages = delivered(worker.commit())
    assert sorted(message["body"] for message in messages) == [0, 1, 2, 100, 101]
