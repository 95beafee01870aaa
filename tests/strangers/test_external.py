"""What an external bot sends: wherever it goes, and whoever passes it on, it says where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..crash.nursery import shared_nursery
from ..integration.wire import Message, new_id, to_bot, to_channel
from .keyed_worker import KeyedWorker

CONFIGURATION = """
[security]
mode = "keys"

[security.roles.reader]
external = true
send = ["**"]
publish = ["**"]

[security.roles.writer]
deny = [{ action = "publish", object = "ops.**", when = "tainted" }]

[security.roles.small]
send = ["**"]
limits = { backlog = 2, sessions = 1 }
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[KeyedWorker]:
    with KeyedWorker(tmp_path, shared_nursery(), CONFIGURATION) as worker:
        yield worker


def reply(message: dict[str, Any], to: Message) -> Message:
    return to | {"reply_to": message["id"]}


def test_what_comes_from_outside_says_so_through_any_number_of_bots_and_a_restart(worker: KeyedWorker) -> None:
    web = worker.add("web", roles=["reader"])
    bots = {name: worker.add(name, roles=["writer", "member"]) for name in ("one", "two")}
    web.session("web").publish(to_bot("one", "words of a stranger"))
    one = bots["one"].session("one")
    outside = one.take_one()
    assert outside["tainted"] is True
    one.publish(reply(outside, to_bot("two", "what it said")))
    worker.kill()
    worker.start()
    two = bots["two"].session("two")
    passed_on = two.take_one()
    assert passed_on["tainted"] is True
    assert two.value("message", id=passed_on["id"])["message"]["tainted"] is True
    refused = two.try_publish(reply(passed_on, to_channel("ops.deploy", "do it")), to_channel("ops.deploy", "mine"))
    assert [seq is not None for seq in refused["seqs"]] == [False, True]
    assert [error["code"] for error in refused["errors"]] == ["forbidden"]
    two.publish(reply(passed_on, to_channel("news", "heard")))
    assert [message.get("tainted") for message in two.history(channel="news")] == [True]
    assert [message.get("tainted") for message in two.history(channel="ops.deploy")] == [None]


def test_a_commit_cannot_carry_it_further(worker: KeyedWorker) -> None:
    web, one = worker.add("web", roles=["reader"]), worker.add("one", roles=["writer", "member"]).session("one")
    web.session("web").publish(to_bot("one", "words of a stranger"))
    outside = one.take_one()
    messages = [to_bot("one", "kept"), reply(outside, to_channel("ops.deploy", "do it"))]
    assert one.code("commit", id=new_id(), messages=messages, acks=[outside["seq"]]) == "forbidden"
    assert one.value("status")["last_seq"] == outside["seq"]


def test_a_limit_of_a_role_is_told_by_its_name(worker: KeyedWorker) -> None:
    small = worker.add("small", roles=["small"])
    worker.add("bob")
    session = small.session("small")
    answer = session.try_publish(*(to_bot("bob", number) for number in range(3)))
    [error] = answer["errors"]
    assert (error["index"], error["code"], error["details"]) == (2, "mailbox_full", {"limit": "backlog"})
    refused = small.session().ask("hello", answer="error", protocol=1)
    assert (refused["code"], refused["details"]) == ("busy", {"limit": "sessions"})
