"""Ids that others can compute, or have seen: using one takes nothing from the bot whose message has it."""

from __future__ import annotations

import pytest

from bus.wire.frames import ToBot

from ..integration.wire import Session, bodies, new_id, to_bot, to_channel
from ..integration.wire_worker import Worker
from ..pure.worker import Worker as PureWorker
from ..pure.worker import delivered, published
from .conftest import Serve


def outcome(session: Session, *messages: dict[str, object]) -> dict[str, object]:
    """Publish, and return what the answer says beside the seqs."""
    answer = session.try_publish(*messages)
    return {name: value for name, value in answer.items() if name not in ("op", "request", "seqs")}


@pytest.mark.parametrize("delay", [0, 3600])
def test_an_id_that_was_used_beforehand_is_still_its_senders(worker: Worker, delay: int) -> None:
    ann, bob, eve = worker.session("ann"), worker.session("bob"), worker.session("eve")
    id = new_id()
    outcome(eve, to_bot("bob", "eve's", id=id, delay=delay))
    assert outcome(ann, to_bot("bob", "ann's", id=id)) == {}
    assert outcome(ann, to_bot("bob", "ann's", id=id)) == {"duplicates": [0]}
    taken = bob.take(1 if delay else 2)
    assert bodies(taken) == (["ann's"] if delay else ["eve's", "ann's"])
    assert bob.value("message", id=id, sender="ann")["message"]["body"] == "ann's"
    assert ann.value("message", id=id)["message"]["body"] == "ann's"


def test_an_id_that_was_used_beforehand_refuses_no_commit(worker: Worker) -> None:
    ann, eve = worker.session("ann"), worker.session("eve")
    id = new_id()
    outcome(eve, to_channel("news", "eve's", id=id))
    assert ann.value("commit", id=new_id(), messages=[to_channel("news", "ann's", id=id)])["seqs"] == [2]


def test_no_answer_tells_that_another_bot_used_an_id(serve: Serve) -> None:
    worker = serve("[limits]\nbacklog_messages_max = 1\nscheduled_messages_max = 1\n")
    ann, eve = worker.session("ann"), worker.session("eve")
    worker.session("bob", max_in_flight=0)
    known, new = new_id(), new_id()
    outcome(ann, to_bot("bob", 1, id=known), to_bot("bob", 2, delay=3600))
    for delay, code in ((0, "mailbox_full"), (3600, "busy")):
        answers = [eve.try_publish(to_bot("bob", 1, id=id, delay=delay)) for id in (known, new)]
        assert [(answer["seqs"], answer.get("duplicates")) for answer in answers] == [([None], None)] * 2
        assert [error["code"] for answer in answers for error in answer["errors"]] == [code] * 2


def test_a_copied_id_hides_no_message_from_whom_it_concerns(worker: Worker) -> None:
    ann, bob, eve = worker.session("ann"), worker.session("bob"), worker.session("eve")
    ann.subscribe("news")
    question, news = new_id(), new_id()
    for id in (question, news):
        outcome(eve, to_bot("eve", "eve's", id=id))
    outcome(ann, to_bot("bob", "question", id=question))
    bob.publish(to_bot("ann", "reply", reply_to=question), to_channel("news", "news", id=news))
    eve.publish(to_channel("other", "eve's", id=new_id(), reply_to=question))
    for session in (ann, bob):
        assert session.value("message", id=question)["message"]["body"] == "question"
        assert session.value("message", id=news)["message"]["body"] == "news"
        assert bodies(session.history(thread=question)) == ["eve's", "reply", "question"]
    assert bodies(eve.history(thread=question, sender="ann")) == ["eve's", "reply", "question"]


def test_a_copied_id_brings_no_other_thread_into_a_thread(worker: Worker) -> None:
    ann, eve, fay = worker.session("ann"), worker.session("eve"), worker.session("fay")
    question, other = new_id(), new_id()
    ann.publish(to_channel("news", "question", id=question))
    fay.publish(to_channel("elsewhere", "other", id=other), to_channel("elsewhere", "said", reply_to=other))
    eve.publish(to_channel("eve", "eve's", id=question, reply_to=other))
    assert bodies(ann.history(thread=question)) == ["question"]
    assert bodies(fay.history(thread=question, sender="ann")) == ["question"]


def test_a_copied_question_takes_no_reply() -> None:
    """Two bots ask the same bot under one id: each gets the reply that is sent to it."""
    worker = PureWorker()
    for bot in ("ann", "eve"):
        worker.hello(bot, max_in_flight=0)
    worker.hello("bob")
    id = new_id()
    for asker in ("eve", "ann"):
        worker.say(asker.encode(), published(ToBot(bot="bob"), id=id, expects_reply=True))
    worker.commit()
    for asker in ("ann", "eve"):
        worker.say(b"bob", published(ToBot(bot=asker), reply_to=id))
        [reply] = [each for each in delivered(worker.commit()) if each["reply_to"] == id]
        assert reply["recipient"]["bot_id"] == worker.core.directory.names[asker].id


def test_a_copied_id_with_no_hops_ends_no_thread(worker: Worker) -> None:
    ann, bob, eve = worker.session("ann"), worker.session("bob"), worker.session("eve")
    worker.session("cid")
    id = new_id()
    ann.publish(to_bot("bob", "question", id=id, hops=1))
    outcome(eve, to_bot("bob", "eve's", id=id, hops=0), to_bot("eve", "eve's", id=id, hops=0, delay=3600))
    for recipient in (to_bot("ann", "reply"), to_bot("cid", "passed on"), to_channel("news", "told")):
        assert outcome(bob, recipient | {"id": new_id(), "reply_to": id}) == {}
    assert ann.take_one()["headers"] == {"posthouse-hops": "0"}
    assert outcome(bob, to_bot("eve", "reply", reply_to=id))["errors"]


@pytest.mark.parametrize("op", ["message", "history"])
def test_the_sender_of_a_message_is_a_bot_or_the_worker(worker: Worker, op: str) -> None:
    session = worker.session("ann")
    fields = {"id": new_id()} if op == "message" else {"thread": new_id()}
    assert session.code(op, **fields, sender="nobody") == "unknown_bot"
    if op == "message":
        assert session.code(op, **fields, sender="posthouse") == "not_found"
    else:
        assert session.history(**fields, sender="posthouse") == []
        assert session.code(op, channel="news", sender="ann") == "bad_request"
