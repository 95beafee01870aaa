"""Limits of roles: each makes a share smaller, is told by its name, and is that of the bot, not of a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bus.configuration import parse_settings
from bus.core.effects import Ask
from bus.core.questions import Questions
from bus.core.rates import Rates
from bus.settings import Limits, SettingsError
from bus.wire.frames import Commit, Goodbye, Hello, Publication, Refusal, Status, Subscribe, ToBot, ToChannel

from .ruled import RuledWorker
from .worker import ID, Worker, published

CONFIGURATION = """
[security.roles.small]
publish = ["**"]
send = ["**"]
subscribe = ["**"]
group = ["**"]

[security.roles.small.limits]
{limits}

[security.roles.large.limits]
sessions = 1000
messages_per_second = 1000
"""


def world(limits: str, *roles: str, **settings: Any) -> RuledWorker:
    worker = RuledWorker(CONFIGURATION.format(limits=limits), {"ann": roles or ("small",), "bob": ()})
    worker.hello("bob", max_in_flight=0)
    worker.hello("ann")
    return worker


def settled(worker: Worker, said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    while worker.core.has_batch(worker.moment):
        said += worker.commit()
    return said


def errors(
    worker: Worker, *recipients: ToBot | ToChannel, by: bytes = b"ann", **fields: Any
) -> list[dict[str, Any]]:
    """Return the errors of a frame's messages."""
    said = settled(worker, worker.say(by, published(*recipients, **fields)))
    [answer] = [frame for frame in said if frame["op"] == "published"]
    return [{name: error.get(name) for name in ("index", "code", "details")} for error in answer.get("errors", [])]


def refused(index: int, code: str, limit: str) -> dict[str, Any]:
    return {"index": index, "code": code, "details": {"limit": limit}}


BOB = ToBot(bot="bob")


def too_fast(worker: Worker) -> list[dict[str, Any]]:
    return errors(worker, *[BOB] * 31)


def too_much(worker: Worker) -> list[dict[str, Any]]:
    return errors(worker, *[BOB] * 4, body=msgspec.Raw(b'"' + b"x" * 298 + b'"'))


def too_many_waiting(worker: Worker) -> list[dict[str, Any]]:
    return errors(worker, *[BOB] * 4)


def too_many_delayed(worker: Worker) -> list[dict[str, Any]]:
    return errors(worker, *[BOB] * 4, delay=60.0)


def too_many_channels(worker: Worker) -> list[dict[str, Any]]:
    assert errors(worker, *(ToChannel(f"channel-{number}") for number in range(3))) == []
    return errors(worker, ToChannel("channel-0"), ToChannel("channel-3"))


@pytest.mark.parametrize(
    ("limits", "does", "expected"),
    [
        ("messages_per_second = 3", too_fast, [refused(30, "rate_limited", "messages_per_second")]),
        ("bytes_per_second = 100", too_much, [refused(3, "rate_limited", "bytes_per_second")]),
        ("backlog = 3", too_many_waiting, [refused(3, "mailbox_full", "backlog")]),
        ("delayed = 3", too_many_delayed, [refused(3, "busy", "delayed")]),
        ("channels = 3", too_many_channels, [refused(1, "busy", "channels")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_message_beyond_a_limit_of_a_role_is_refused_by_its_name(
    limits: str, does: Callable[[Worker], list[dict[str, Any]]], expected: list[dict[str, Any]]
) -> None:
    assert does(world(limits)) == expected
    assert does(world("", "large", "small")) == [], "and what no role limits is not"


def test_others_are_not_affected() -> None:
    worker = world("backlog = 1\nmessages_per_second = 1")
    assert errors(worker, *[ToBot(bot="ann")] * 50, by=b"bob") == []


def test_a_rate_fills_again_and_is_that_of_the_bot() -> None:
    worker = world("messages_per_second = 1")
    assert len(errors(worker, *[BOB] * 12)) == 2
    worker.do(worker.core.receive(b"ann 2", Hello(request=1, protocol=1), worker.moment, worker.principal("ann")))
    assert len(errors(worker, BOB, by=b"ann 2")) == 1
    worker.now += 2
    assert errors(worker, BOB, BOB) == []


def test_a_message_larger_than_a_burst_may_come_alone() -> None:
    worker = world("bytes_per_second = 1")
    body = msgspec.Raw(b'"' + b"x" * 100 + b'"')
    assert errors(worker, BOB, body=body) == []
    assert errors(worker, BOB, body=body) == [refused(0, "rate_limited", "bytes_per_second")]


def test_subscriptions_and_groups_of_a_role_are_bounded() -> None:
    worker = world("subscriptions = 3\ngroups = 1")

    def subscribed(number: int, channel: str, group: str | None = None) -> dict[str, Any]:
        frame = Subscribe(request=number, channel=channel, group=group)
        return settled(worker, worker.say(b"ann", frame))[0]

    assert subscribed(1, "a", "team")["op"] == "ok"
    assert subscribed(2, "b", "team")["details"] == {"limit": "groups"}
    assert [subscribed(number, f"own-{number}")["op"] for number in (3, 4)] == ["ok", "ok"]
    answer = subscribed(5, "own-5")
    assert (answer["code"], answer["details"]) == ("busy", {"limit": "subscriptions"})
    assert subscribed(6, "own-4")["op"] == "ok", "which it has"


def test_sessions_of_a_role_are_bounded_and_one_may_return() -> None:
    worker = world("sessions = 2")
    token = "the secret of one client"
    said = worker.say(b"ann 2", Hello(request=1, protocol=1, token=token))
    assert said[0]["op"] == "welcome"
    answer = worker.say(b"ann 3", Hello(request=1, protocol=1))[0]
    assert (answer["code"], answer["details"]) == ("busy", {"limit": "sessions"})
    assert worker.say(b"ann 4", Hello(request=1, protocol=1, token=token))[0]["op"] == "welcome"
    assert worker.say(b"ann", Hello(request=1, protocol=1))[0]["op"] == "welcome"
    worker.say(b"ann 4", Goodbye(request=2))
    assert worker.say(b"ann 3", Hello(request=1, protocol=1))[0]["op"] == "welcome"


def test_questions_of_a_role_are_bounded() -> None:
    worker = world("questions = 1")
    share = worker.core.shares.of(worker.principal("ann"))
    questions = Questions(Limits())
    questions.add(Ask(b"ann", "ann", Status(request=1)), lambda _: True, share)
    with pytest.raises(Refusal) as refusal:
        questions.add(Ask(b"ann", "ann", Status(request=2)), lambda _: True, share)
    assert refusal.value.details == {"limit": "questions"}


def test_a_commit_beyond_a_limit_is_refused_as_a_whole() -> None:
    worker = world("backlog = 1")
    messages = [Publication(id=ID % (930 + n), recipient=BOB, body=msgspec.Raw(b"1")) for n in range(2)]
    said = settled(worker, worker.say(b"ann", Commit(request=5, id=ID % 935, messages=messages)))
    [error] = [frame for frame in said if frame["op"] == "error"]
    assert (error["code"], error["details"]) == ("mailbox_full", {"limit": "backlog"})
    assert not worker.log.messages


def test_of_several_roles_the_smallest_limit_counts() -> None:
    worker = world("messages_per_second = 3\nbacklog = 900", "large", "small")
    share = worker.core.shares.of(worker.principal("ann"))
    assert (share.messages_per_second, share.sessions, share.backlog) == (3, 1000, 900)
    assert share.of_role == {"messages_per_second", "sessions", "backlog"}


def test_a_role_gives_no_more_than_everybody_has() -> None:
    worker = world("subscriptions = 1_000_000\ndelayed = 500_000")
    share = worker.core.shares.of(worker.principal("ann"))
    assert share == worker.core.shares.of(None)


def test_other_limits_count_after_the_rules_were_read_again() -> None:
    worker = world("backlog = 1")
    worker.rules(CONFIGURATION.format(limits="backlog = 3"))
    assert errors(worker, *[BOB] * 4) == [refused(3, "mailbox_full", "backlog")]


def test_without_keys_nothing_is_counted_for_a_role() -> None:
    shares = Worker().core.shares
    assert shares.of(None).of_role == frozenset()
    assert Rates(Limits()).are_off(shares.of(None))


@pytest.mark.parametrize("limits", ["messages_per_second = 0", "sessions = 0", "delayed = -1", "stored = 1"])
def test_a_limit_that_means_nothing_is_refused(limits: str) -> None:
    with pytest.raises(SettingsError, match="role 'small'"):
        parse_settings("security.mode = 'keys'\n" + CONFIGURATION.format(limits=limits))
