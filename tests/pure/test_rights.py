"""Rights where they are asked for: sending, subscribing, replying, and what stays as it was without keys."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.settings import Settings
from bus.wire.frames import Ack, Code, Commit, Nak, Publication, Subscribe, ToBot, ToChannel

from .ruled import RuledWorker
from .worker import ID, Worker, delivered, published

CONFIGURATION = """
[security.roles.billing]
publish = ["billing.**"]
send = ["ledger"]
subscribe = ["billing.**"]
group = ["work/billing"]

[security.roles.silent]

[security.channels.board]
private = true
subscribe = ["role:billing"]
publish = ["chair"]
"""


BOTS = {"ledger": (), "bob": (), "eve": (), "silent": ("silent",), "ann": ("billing",)}


@pytest.fixture
def worker() -> RuledWorker:
    worker = RuledWorker(CONFIGURATION, BOTS)
    for bot in BOTS:
        worker.hello(bot)
    return worker


def sent(worker: Worker, *recipients: ToBot | ToChannel, by: str = "ann", **fields: Any) -> dict[str, Any]:
    """Let a bot publish, and return the answer."""
    said = worker.say(by.encode(), published(*recipients, **fields))
    return next(frame for frame in said or worker.commit() if frame["op"] in ("published", "error"))


def test_messages_that_are_not_allowed_do_not_affect_the_others(worker: RuledWorker) -> None:
    answer = sent(
        worker,
        ToChannel("billing.eu"),
        ToChannel("news"),
        ToBot(bot="ledger"),
        ToBot(bot="bob"),
        ToChannel("board"),
    )
    assert [seq is not None for seq in answer["seqs"]] == [True, False, True, False, False]
    assert [(error["index"], error["code"]) for error in answer["errors"]] == [
        (1, "forbidden"),
        (3, "forbidden"),
        (4, "forbidden"),
    ]
    assert answer["errors"][0]["details"] == {
        "action": "publish",
        "object": "news",
        "rule": "no rule of security.roles.billing allows it",
    }
    assert "news" not in worker.core.directory.channels
    assert "board" not in worker.core.directory.channels


def test_whether_a_bot_exists_is_not_told_to_one_that_may_not_send_to_it(worker: RuledWorker) -> None:
    [known, unknown] = (sent(worker, ToBot(bot=name))["errors"][0] for name in ("bob", "rob"))
    assert known["message"].replace("bob", "rob") == unknown["message"]
    assert (known["code"], unknown["code"]) == ("forbidden", "forbidden")
    ids = worker.core.directory.names["bob"].id, ID % 0xABC
    [known, unknown] = (sent(worker, ToBot(bot_id=id))["errors"][0] for id in ids)
    assert known["message"].replace(ids[0], ids[1]) == unknown["message"]
    assert (known["code"], unknown["code"]) == ("unknown_bot", "unknown_bot")
    assert "details" not in known


def test_a_repeat_is_told_that_it_is_stored_even_if_the_right_is_gone(worker: RuledWorker) -> None:
    message = published(ToBot(bot="ledger"))
    worker.say(b"ann", message)
    [first, *_] = worker.commit()
    worker.rules("[security.roles.billing]")
    worker.say(b"ann", message)
    [again, *_] = [frame for frame in worker.commit() if frame["op"] == "published"]
    assert (again["seqs"], again["duplicates"]) == (first["seqs"], [0])
    assert "errors" not in again
    new = sent(worker, ToBot(bot="ledger"))
    assert new["errors"][0]["code"] == "forbidden"


def test_a_delayed_message_is_refused_when_it_is_sent(worker: RuledWorker) -> None:
    assert sent(worker, ToBot(bot="bob"), delay=60.0)["errors"][0]["code"] == "forbidden"
    assert delivered(worker.settle(61)) == []


def commit(worker: RuledWorker, *messages: Publication) -> dict[str, Any]:
    worker.say(b"ann", Commit(request=8, id=ID % 0xC0, messages=list(messages)))
    return worker.commit()[0]


def publication(recipient: ToBot | ToChannel, **fields: Any) -> Publication:
    return published(recipient, **fields).messages[0]


def test_a_commit_with_a_message_that_is_not_allowed_is_refused_as_a_whole(worker: RuledWorker) -> None:
    said = commit(worker, publication(ToBot(bot="ledger")), publication(ToBot(bot="bob")))
    assert (said["op"], said["code"]) == ("error", "forbidden")
    assert said["details"]["object"] == "bob"
    assert worker.core.last_seq == 0


@pytest.mark.parametrize(
    ("channel", "group", "allowed"),
    [
        ("billing.eu", None, True),
        ("billing.eu", "billing", False),
        ("work", None, False),
        ("work", "billing", True),
        ("work", "other", False),
        ("board", None, True),
        ("news", None, False),
    ],
)
@pytest.mark.parametrize("start", ["new", "all"])
def test_a_bot_subscribes_to_what_it_may(
    worker: Worker, channel: str, group: str | None, allowed: bool, start: Any
) -> None:
    said = worker.say(b"ann", Subscribe(request=4, channel=channel, group=group, start=start))
    if allowed:
        assert said == []
        [answer] = worker.commit()
        assert answer["op"] == "ok"
        return
    [error] = said
    assert error["code"] == "forbidden"
    action, object = ("subscribe", channel) if group is None else ("group", f"{channel}/{group}")
    assert (error["details"]["action"], error["details"]["object"]) == (action, object)
    assert channel not in worker.core.directory.channels


def test_a_private_channel_cannot_be_taken_by_creating_it_first(worker: RuledWorker) -> None:
    assert sent(worker, ToChannel("board"), by="bob")["errors"][0]["code"] == "forbidden"
    [error] = worker.say(b"bob", Subscribe(request=4, channel="board"))
    assert error["code"] == "forbidden"
    [error] = worker.say(b"bob", Subscribe(request=4, channel="board", group="mine"))
    assert error["code"] == "forbidden"
    assert "board" not in worker.core.directory.channels


# ── Replies ──────────────────────────────────────────────────────────────────────────────────────────────


def asked(worker: RuledWorker, bot: str = "ann") -> tuple[str, int]:
    """Let bob ask a bot, and return the id and the seq of the question."""
    question = published(ToBot(bot=bot))
    worker.say(b"bob", question)
    [message] = delivered(worker.commit())
    return question.messages[0].id, message["seq"]


def replied(worker: RuledWorker, question: str, **fields: Any) -> str:
    """Let ann answer bob, and return what the worker says of it."""
    answer = sent(worker, ToBot(bot="bob"), reply_to=question, **fields)
    return str(answer["errors"][0]["code"]) if "errors" in answer else "stored"


def test_who_holds_a_message_may_reply_to_it_once_whatever_the_rules(worker: RuledWorker) -> None:
    question, _ = asked(worker)
    assert replied(worker, question) == "stored"
    assert replied(worker, question) == "forbidden"


def test_a_reply_may_be_repeated(worker: RuledWorker) -> None:
    question, seq = asked(worker)
    reply = ID % 0xEE
    assert replied(worker, question, id=reply) == "stored"
    assert replied(worker, question, id=reply) == "stored"
    worker.say(b"ann", Ack(seqs=[seq]))
    assert replied(worker, question, id=reply) == "stored"


def test_a_reply_by_id_and_one_in_a_commit_have_the_same_right(worker: RuledWorker) -> None:
    bob = ToBot(bot_id=worker.core.directory.names["bob"].id)
    question, _ = asked(worker)
    assert "errors" not in sent(worker, bob, reply_to=question)
    question, _ = asked(worker)
    assert commit(worker, publication(bob, reply_to=question))["op"] == "ok"


def test_only_the_sender_of_a_message_that_is_held_may_be_replied_to(worker: RuledWorker) -> None:
    question, seq = asked(worker)
    answer = sent(worker, ToBot(bot="eve"), reply_to=question)
    assert answer["errors"][0]["code"] == "forbidden"
    assert replied(worker, ID % 0xDD) == "forbidden"
    worker.say(b"ann", Ack(seqs=[seq]))
    assert replied(worker, question) == "forbidden", "it is settled"


def test_an_id_that_two_senders_use_is_answered_to_each(worker: RuledWorker) -> None:
    question, _ = asked(worker)
    worker.say(b"eve", published(ToBot(bot="ann"), id=question))
    assert len(delivered(worker.commit())) == 1
    for sender in ("bob", "eve"):
        assert "errors" not in sent(worker, ToBot(bot=sender), reply_to=question)
        assert "errors" in sent(worker, ToBot(bot=sender), reply_to=question)


def test_a_message_that_another_bot_holds_gives_no_right(worker: RuledWorker) -> None:
    question, _ = asked(worker)
    answer = sent(worker, ToBot(bot="bob"), by="silent", reply_to=question)
    assert answer["errors"][0]["code"] == "forbidden"


def test_a_redelivery_gives_no_second_reply(worker: RuledWorker) -> None:
    question, seq = asked(worker)
    assert replied(worker, question) == "stored"
    again = worker.say(b"ann", Nak(seqs=[seq], delay=0))
    assert [message["seq"] for message in delivered(again)] == [seq]
    assert replied(worker, question) == "forbidden"


def test_a_frame_of_replies_uses_each_right_once(worker: RuledWorker) -> None:
    one, other = asked(worker)[0], asked(worker)[0]
    replies = [publication(ToBot(bot="bob"), reply_to=question) for question in (one, other, one, ID % 0xDD)]
    frame = msgspec.structs.replace(published(), messages=replies)
    worker.say(b"ann", frame)
    [answer] = [frame for frame in worker.commit() if frame["op"] == "published"]
    assert [seq is not None for seq in answer["seqs"]] == [True, True, False, False]
    assert {error["code"] for error in answer["errors"]} == {Code.FORBIDDEN}


# ── Without keys ─────────────────────────────────────────────────────────────────────────────────────────


def test_without_keys_nobody_is_asked_for_a_right() -> None:
    worker = Worker(Settings())
    worker.hello("ann")
    worker.hello("bob")
    assert "errors" not in sent(worker, ToBot(bot="bob"), ToChannel("board"))
    worker.say(b"ann", Subscribe(request=4, channel="board"))
    assert worker.commit()[0]["op"] == "ok"
    assert "remembered=0" in repr(worker.core.permitting.access)
