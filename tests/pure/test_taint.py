"""Taint in deliveries: what comes from outside, and what answers it, says so to everybody who gets it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.core.effects import Tap
from bus.wire.frames import Ack, Commit, Credit, Publication, Subscribe, ToBot, ToChannel

from .worker import ID, Worker, delivered, published


def world(*, external: str = "eve") -> Worker:
    worker = Worker()
    for name in ("ann", "bob", "eve"):
        worker.hello(name)
    worker.core.directory.external.add(worker.core.directory.names[external].id)
    return worker


def got(worker: Worker, sender: str, *recipients: ToBot | ToChannel, **fields: Any) -> list[dict[str, Any]]:
    """Return what is delivered of a frame."""
    worker.say(sender.encode(), published(*recipients, **fields))
    return delivered(worker.commit())


def bits(messages: list[dict[str, Any]]) -> list[bool]:
    return [message.get("tainted", False) for message in messages]


def test_what_is_external_and_its_answers_are_delivered_as_such() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    [answer] = got(worker, "ann", ToBot(bot="bob"), reply_to=outside["id"])
    [further] = got(worker, "bob", ToBot(bot="ann"), reply_to=answer["id"])
    [beside] = got(worker, "bob", ToBot(bot="ann"))
    assert bits([outside, answer, further, beside]) == [True, True, True, False]
    assert "tainted" not in beside


def test_a_redelivery_and_a_delivery_after_a_restart_say_it_too() -> None:
    worker = world()
    worker.say(b"ann", Credit(max_in_flight=0))
    got(worker, "eve", ToBot(bot="ann"))
    worker.restart()
    assert bits(delivered(worker.hello("ann"))) == [True]
    worker.core.unreachable(b"ann", worker.moment)
    assert bits(delivered(worker.hello("ann"))) == [True]


def test_answers_of_one_frame_are_told_apart_and_keep_their_order() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    [inside] = got(worker, "bob", ToBot(bot="ann"))
    parents = [outside["id"], inside["id"], inside["id"], outside["id"]]
    frames = [published(ToBot(bot="bob"), reply_to=parent).messages[0] for parent in parents]
    worker.say(b"ann", msgspec.structs.replace(published(ToBot(bot="bob")), messages=frames))
    found = delivered(worker.commit())
    assert [message["seq"] for message in found] == [3, 4, 5, 6]
    assert bits(found) == [True, False, False, True]


def test_a_channel_a_group_and_the_tap_say_it() -> None:
    worker = world()
    worker.say(b"ann", Subscribe(request=2, channel="news"))
    worker.say(b"bob", Subscribe(request=2, channel="news", group="team"))
    worker.commit()
    worker.do(worker.core.tap_topic(b"channel/news\0", worker.moment, wanted=True))
    worker.say(b"eve", published(ToChannel("news")))
    batch = worker.core.take_batch(worker.moment)
    assert batch is not None
    effects = worker.core.applied(batch, worker.log.apply(batch.changes), worker.moment)
    taps = [msgspec.json.decode(effect.frame) for effect in effects if isinstance(effect, Tap)]
    assert bits(taps) == [True]
    assert bits(delivered(worker.do(effects))) == [True, True]


def test_an_awaited_reply_says_it() -> None:
    worker = world()
    worker.say(b"ann", published(ToBot(bot="eve"), expects_reply=True))
    [question] = delivered(worker.commit())
    [answer] = got(worker, "eve", ToBot(bot="ann"), reply_to=question["id"])
    assert bits([question, answer]) == [False, True]


def test_a_delayed_message_says_it_when_it_is_due() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    worker.say(b"ann", Ack(seqs=[outside["seq"]]))
    got(worker, "ann", ToBot(bot="bob"), reply_to=outside["id"], delay=3.0)
    assert bits(delivered(worker.settle(5))) == [True]


def test_what_a_commit_sends_says_it() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    message = Publication(id=ID % 900, recipient=ToBot(bot="bob"), body=msgspec.Raw(b"1"), reply_to=outside["id"])
    worker.say(b"ann", Commit(request=5, id=ID % 901, messages=[message], acks=[outside["seq"]]))
    assert bits(delivered(worker.commit())) == [True]


@pytest.mark.parametrize("external", ["ann", "bob"])
def test_nothing_else_is_tainted(external: str) -> None:
    worker = world(external=external)
    [message] = got(worker, "eve", ToBot(bot="eve"))
    [answer] = got(worker, "eve", ToBot(bot="eve"), reply_to=message["id"])
    assert bits([message, answer]) == [False, False]
