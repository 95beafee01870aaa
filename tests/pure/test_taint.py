"""Taint in deliveries: what comes from outside, and what answers it, says so to everybody who gets it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from bus.configuration import parse_settings
from bus.core.effects import Tap
from bus.settings import SettingsError
from bus.wire.frames import Ack, Commit, Credit, Publication, Subscribe, ToBot, ToChannel

from .ruled import RuledWorker
from .worker import ID, Worker, delivered, published

CONFIGURATION = """
[security.roles.outside]
external = true
send = ["**"]
publish = ["**"]
deny = [{ action = "publish", object = "ops.**", when = "tainted" }]

[security.roles.careful]
deny = [
    { action = "publish", object = "ops.**", when = "tainted" },
    { action = "send", object = "oscar", when = "tainted" },
]
"""


def world(*, external: str = "eve") -> Worker:
    bots = {name: ("outside",) if name == external else ("careful", "member") for name in ("ann", "bob", "eve")}
    worker = RuledWorker(CONFIGURATION, bots | {"oscar": ("outside",) if external == "oscar" else ()})
    for name in (*bots, "oscar"):
        worker.hello(name)
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
    batch = worker.next_batch()
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


# ── Rules for what is tainted ────────────────────────────────────────────────────────────────────────────


def answered(worker: Worker, by: str, *recipients: ToBot | ToChannel, **fields: Any) -> dict[str, Any]:
    """Return the answer to a frame of a bot."""
    said = worker.say(by.encode(), published(*recipients, **fields)) or worker.commit()
    return next(frame for frame in said if frame["op"] == "published")


@pytest.mark.parametrize("recipient", [ToChannel("ops.deploy"), ToBot(bot="oscar")])
def test_a_tainted_message_is_refused_where_others_are_not(recipient: ToBot | ToChannel) -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    [inside] = got(worker, "bob", ToBot(bot="ann"))
    refused = answered(worker, "ann", recipient, reply_to=outside["id"])
    [error] = refused["errors"]
    assert (refused["seqs"], error["code"]) == ([None], "forbidden")
    assert error["details"]["rule"].startswith("security.roles.careful.deny[")
    for fields in ({"reply_to": inside["id"]}, {}):
        assert "errors" not in answered(worker, "ann", recipient, **fields)
    assert "errors" not in answered(worker, "ann", ToBot(bot="bob"), reply_to=outside["id"])


def test_the_messages_of_a_frame_are_refused_one_by_one() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    [inside] = got(worker, "bob", ToBot(bot="ann"))
    parents = [outside["id"], inside["id"], outside["id"]]
    frames = [published(ToChannel("ops.deploy"), reply_to=parent).messages[0] for parent in parents]
    [answer] = worker.say(b"ann", msgspec.structs.replace(published(ToBot(bot="bob")), messages=frames)) or [
        frame for frame in worker.commit() if frame["op"] == "published"
    ]
    assert answer["seqs"] == [None, 3, None]
    assert [error["index"] for error in answer["errors"]] == [0, 2]


def test_an_external_bot_is_refused_at_once() -> None:
    answer = answered(world(), "eve", ToChannel("ops.deploy"))
    assert [error["code"] for error in answer["errors"]] == ["forbidden"]


def test_the_right_to_reply_does_not_lift_a_rule_for_tainted_messages() -> None:
    worker = world(external="oscar")
    [outside] = got(worker, "oscar", ToBot(bot="ann"))
    answer = answered(worker, "ann", ToBot(bot="oscar"), reply_to=outside["id"])
    assert [error["code"] for error in answer["errors"]] == ["forbidden"]


def test_a_delayed_message_is_refused_when_it_is_published() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    answer = answered(worker, "ann", ToChannel("ops.deploy"), reply_to=outside["id"], delay=5.0)
    assert [error["code"] for error in answer["errors"]] == ["forbidden"]
    assert not worker.log.scheduled


def test_a_commit_is_refused_as_a_whole_and_changes_nothing() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    messages = [
        Publication(
            id=ID % (910 + number), recipient=ToChannel(name), body=msgspec.Raw(b"1"), reply_to=outside["id"]
        )
        for number, name in enumerate(("news", "ops.deploy"))
    ]
    worker.say(b"ann", Commit(request=5, id=ID % 902, messages=messages, acks=[outside["seq"]]))
    [error] = [frame for frame in worker.commit() if frame["op"] == "error"]
    assert (error["code"], error["details"]["object"]) == ("forbidden", "ops.deploy")
    assert worker.in_flight(b"ann") == [outside["seq"]]
    assert len(worker.log.messages) == 1


def test_a_repeat_of_what_was_sent_before_the_rule_is_a_duplicate() -> None:
    worker = world()
    [outside] = got(worker, "eve", ToBot(bot="ann"))
    [sent] = got(worker, "ann", ToBot(bot="bob"), reply_to=outside["id"], id=ID % 920)
    again = answered(worker, "ann", ToBot(bot="oscar"), reply_to=outside["id"], id=ID % 920)
    assert (again["seqs"], again["duplicates"]) == ([sent["seq"]], [0])


@pytest.mark.parametrize(
    ("deny", "fault"),
    [
        ('{ action = "subscribe", object = "**", when = "tainted" }', "`when` means nothing for subscribe"),
        ('{ action = "publish", object = "**", when = "late" }', "when"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(deny: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        parse_settings(f"security.mode = 'keys'\n[security.roles.a]\ndeny = [{deny}]")


@pytest.mark.parametrize("allowed", [(), ("**",)])
def test_a_rule_for_tainted_messages_does_not_tell_which_bots_there_are(allowed: tuple[str, ...]) -> None:
    send = msgspec.json.encode(allowed).decode()
    deny = '{ action = "send", object = "**", when = "tainted" }'
    configuration = f"[security.roles.outside]\nexternal = true\nsend = {send}\ndeny = [{deny}]\n"
    worker = RuledWorker(configuration, {"eve": ("outside",), "ann": ()})
    worker.hello("eve")

    def told(recipient: ToBot, instead: str) -> str:
        said = worker.say(b"eve", published(recipient))
        while worker.core.has_batch(worker.moment):
            said += worker.commit()
        [answer] = [each for each in said if each["op"] == "published"]
        return str(answer["errors"]).replace(instead, "…")

    assert told(ToBot(bot="ann"), "'ann'") == told(ToBot(bot="bob"), "'bob'")
    if not allowed:
        known, unknown = worker.core.directory.names["ann"].id, ID % 0xABC
        assert told(ToBot(bot_id=known), known) == told(ToBot(bot_id=unknown), unknown)
