"""Reading what is not one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from bus.wire.answers import HistoryPage
from bus.wire.frames import (
    Bots,
    Channels,
    DeadLetters,
    History,
    MailboxQuery,
    MessageQuery,
    Query,
    RetryDeadLetters,
    SessionsQuery,
    Status,
    Subscribe,
    Subscriptions,
    Term,
    ToChannel,
)

from ..pure.worker import ID
from .keyed import Keyed, keyed

pytestmark = pytest.mark.anyio

CONFIGURATION = """
[limits]
sender_messages_per_second_max = 1
rate_burst_seconds = 100

[security.roles.shut]
send = ["bob"]
read = ["own"]

[security.roles.clerk]
read = ["own", "conversation:bob", "channel:news"]

[security.roles.discreet]
send = ["**"]
read = ["all"]
deny = [{ action = "read", object = "conversation:alice" }]

[security.channels.board]
private = true
subscribe = ["alice"]
publish = ["alice"]
"""


BOTS = {
    "alice": (),
    "bob": (),
    "eve": (),
    "ops": ("ops",),
    "shut": ("shut",),
    "clerk": ("clerk",),
    "discreet": ("discreet",),
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Keyed]:
    async with keyed(tmp_path, CONFIGURATION, BOTS) as house:
        yield house


def ids(page: HistoryPage[object]) -> list[str]:
    return [bytes(message).decode().partition('"id":"')[2][:36] for message in page.messages]  # type: ignore[call-overload]


async def test_a_conversation_of_others_is_not_read_by_names_or_by_ids(house: Keyed) -> None:
    message = await house.sends("alice", "bob")
    names = ("alice", "bob")
    known = {name: house.principal(name).bot_id for name in names}
    for between in (names, (known["alice"], "bob"), ("bob", known["alice"]), (known["bob"], known["alice"])):
        code, _ = await house.refusal("eve", History(request=1, between=between))
        assert code == "forbidden"
    for reader in ("alice", "bob", "ops", "clerk"):
        assert ids(await house.ask(reader, History(request=1, between=names))) == [message]
    code, text = await house.refusal("discreet", History(request=1, between=names))
    assert (code, "deny[0]" in text) == ("forbidden", True)
    assert (await house.ask("eve", History(request=1, between=("eve", "bob")))).messages == []


async def test_a_bot_that_is_not_seen_is_as_if_it_did_not_exist(house: Keyed) -> None:
    known = house.principal("eve").bot_id
    for make in (
        lambda bot: History(request=1, between=("shut", bot)),
        lambda bot: Subscriptions(request=1, bot=bot),
        lambda bot: DeadLetters(request=1, bot=bot),
    ):
        for there, nowhere in (("eve", "eva"), (known, ID % 0xABC)):
            code, text = await house.refusal("shut", make(there))
            assert code == "unknown_bot"
            assert (code, text.replace(there, nowhere)) == await house.refusal("shut", make(nowhere))


@pytest.mark.parametrize("reader", ["eve", "shut", "discreet"])
async def test_a_stolen_id_tells_nothing(house: Keyed, reader: str) -> None:
    stolen, unknown = await house.sends("alice", "bob"), ID % 0xABC
    code, text = await house.refusal(reader, MessageQuery(request=1, id=stolen))
    assert code == "not_found"
    assert (code, text.replace(stolen, unknown)) == await house.refusal(reader, MessageQuery(request=1, id=unknown))
    for id in (stolen, unknown):
        page = await house.ask(reader, History(request=1, thread=id))
        assert (page.messages, page.more) == ([], False)


async def test_a_message_that_is_not_due_yet_is_for_its_sender(house: Keyed) -> None:
    message = await house.sends("alice", "bob", delay=60.0)
    assert (await house.ask("alice", MessageQuery(request=1, id=message))).due_at is not None
    for reader in ("bob", "eve", "clerk"):
        assert (await house.refusal(reader, MessageQuery(request=1, id=message)))[0] == "not_found"


async def test_a_conversation_with_a_bot_that_is_not_seen_is_read_once_there_is_one(house: Keyed) -> None:
    message = await house.sends("eve", "shut")
    assert ids(await house.ask("shut", History(request=1, between=("shut", "eve")))) == [message]


async def test_a_thread_has_only_what_may_be_read_of_it(house: Keyed) -> None:
    first = await house.sends("alice", ToChannel("news"))
    hidden = [await house.sends("alice", "bob", reply_to=first) for _ in range(5)]
    own = await house.sends("eve", "bob", reply_to=first)
    assert ids(await house.ask("eve", History(request=1, thread=first))) == [own, first]
    page = await house.ask("eve", History(request=1, thread=first, limit=1))
    assert (ids(page), page.more) == ([own], True)
    page = await house.ask("eve", History(request=1, thread=first, limit=1, before_seq=7))
    assert (ids(page), page.more) == ([first], False), "what is left out does not end a page"
    assert ids(await house.ask("ops", History(request=1, thread=first))) == [own, *reversed(hidden), first]


async def test_what_became_of_a_message_is_told_of_those_who_may_be_read(house: Keyed) -> None:
    for bot in ("bob", "eve"):
        await house.say(bot, Subscribe(request=2, channel="news"))
    message = await house.sends("alice", ToChannel("news"))

    async def told(reader: str) -> list[str]:
        answer = await house.ask(reader, MessageQuery(request=1, id=message))
        return sorted(fate.bot for fate in answer.mailboxes)

    assert await told("alice") == ["bob", "eve"]
    assert await told("eve") == ["eve"]
    assert await told("ops") == ["bob", "eve"]
    assert await told("clerk") == ["bob"]


async def test_a_private_channel_is_as_if_it_did_not_exist(house: Keyed) -> None:
    await house.say("alice", Subscribe(request=2, channel="board"))
    message = await house.sends("alice", ToChannel("board"))
    questions: list[Query] = [History(request=1, channel="board"), Subscriptions(request=1, channel="board")]
    never: list[Query] = [History(request=1, channel="bored"), Subscriptions(request=1, channel="bored")]
    for reader in ("eve", "ops", "clerk"):
        for question, other in zip(questions, never, strict=True):
            code, text = await house.refusal(reader, question)
            assert code == "unknown_channel"
            assert (code, text.replace("board", "bored")) == await house.refusal(reader, other)
        assert (await house.refusal(reader, MessageQuery(request=1, id=message)))[0] == "not_found"
        listed = await house.ask(reader, Channels(request=1))
        assert "board" not in [channel.name for channel in listed.channels]
    listed = await house.ask("ops", Subscriptions(request=1, bot="alice"))
    assert listed.subscriptions == []
    assert ids(await house.ask("alice", History(request=1, channel="board"))) == [message]
    assert [each.channel_name for each in (await house.ask("alice", Subscriptions(request=1))).subscriptions] == [
        "board"
    ]


async def test_dead_letters_are_for_their_bot_and_its_group(house: Keyed) -> None:
    await house.say("bob", Subscribe(request=2, channel="work", group="team"))
    for recipient in ("bob", ToChannel("work")):
        await house.sends("alice", recipient)
        [message] = house.delivered
        await house.say("bob", Term(seqs=[message["seq"]]))
        name = "bob" if isinstance(recipient, str) else "work/team"
        for stranger in ("eve", "shut"):
            code, _ = await house.refusal(stranger, DeadLetters(request=1, bot=name))
            assert code == "unknown_bot"
            [error] = await house.say(stranger, RetryDeadLetters(request=3, bot=name, seqs=[message["seq"]]))
            assert error["code"] == "unknown_bot"
        if name == "bob":
            assert (await house.ask("clerk", DeadLetters(request=1, bot=name))).dead_letters != []
            [error] = await house.say("clerk", RetryDeadLetters(request=3, bot=name, seqs=[message["seq"]]))
            assert (error["code"], error["details"]["action"]) == ("forbidden", "retry")
        for reader in ("bob", "ops"):
            found = await house.ask(reader, DeadLetters(request=1, bot=name))
            assert [dead.seq for dead in found.dead_letters] == [message["seq"]]
        retrier = "bob" if name == "bob" else "ops"
        said = await house.say(retrier, RetryDeadLetters(request=3, bot=name, seqs=[message["seq"]]))
        assert {"op": "ok", "request": 3, "value": {"retried": 1}} in said
        await house.say("bob", Term(seqs=[message["seq"]]))


async def test_a_mailbox_is_seen_by_those_who_may_read_its_mail(house: Keyed) -> None:
    await house.say("bob", Subscribe(request=2, channel="news"))
    await house.say("bob", Subscribe(request=3, channel="work", group="team"))
    await house.sends("alice", "bob")
    await house.sends("alice", ToChannel("work"))
    for stranger in ("eve", "shut"):
        for name in ("bob", "work/team"):
            code, text = await house.refusal(stranger, MailboxQuery(request=1, bot=name))
            assert (code, text) == ("unknown_bot", f"no bot or group named {name!r}")
    for reader in ("bob", "ops", "clerk"):
        seen = await house.ask(reader, MailboxQuery(request=1, bot="bob"))
        assert [row.state for row in seen.messages] == ["in_flight"]
    for reader in ("bob", "ops"):
        [row] = (await house.ask(reader, MailboxQuery(request=1, bot="work/team"))).messages
        assert (row.state, row.held_by) == ("in_flight", "bob")
    assert (await house.refusal("clerk", MailboxQuery(request=1, bot="work/team")))[0] == "unknown_bot"
    assert (await house.ask("eve", MailboxQuery(request=1))).messages == []


async def test_a_mailbox_shows_no_message_that_may_not_be_read(house: Keyed) -> None:
    await house.say("alice", Subscribe(request=2, channel="board", echo=True))
    await house.sends("bob", "alice")
    await house.sends("alice", ToChannel("board"))
    for reader, visible in (("alice", 2), ("ops", 1)):
        seen = await house.ask(reader, MailboxQuery(request=1, bot="alice"))
        assert (len(seen.messages), seen.counts.in_flight) == (visible, 2)


@pytest.mark.parametrize("reader", ["eve", "shut", "discreet"])
async def test_a_guessed_seq_tells_nothing(house: Keyed, reader: str) -> None:
    await house.sends("alice", "bob")
    code, text = await house.refusal(reader, MessageQuery(request=1, seq=1))
    assert (code, text) == ("not_found", "no message 1 in the log any more")
    assert (await house.ask("ops", MessageQuery(request=1, seq=1))).message


async def test_sessions_are_told_of_bots_whose_mail_may_be_read(house: Keyed) -> None:
    async def told(reader: str) -> list[str]:
        return sorted(each.bot for each in (await house.ask(reader, SessionsQuery(request=1))).sessions)

    assert await told("eve") == ["eve"]
    assert await told("clerk") == ["bob", "clerk"]
    assert await told("discreet") == sorted(set(BOTS) - {"alice"})
    assert await told("ops") == sorted(BOTS)
    [own] = (await house.ask("eve", SessionsQuery(request=1, bot="eve"))).sessions
    assert (own.key, own.address) == (house.principal("eve").public_key, "192.0.2.7")
    [other] = (await house.ask("ops", SessionsQuery(request=1, bot="eve"))).sessions
    assert (other.key, other.address) == (None, None), "for that it needs the right to audit"
    assert (await house.ask("eve", SessionsQuery(request=1, bot="bob"))).sessions == []
    assert (await house.refusal("shut", SessionsQuery(request=1, bot="eve")))[0] == "unknown_bot"


async def test_a_member_is_not_told_what_waits_for_others(house: Keyed) -> None:
    await house.sends("alice", "bob")
    listed = {bot.name: bot for bot in (await house.ask("eve", Bots(request=1))).bots}
    assert (listed["bob"].backlog, listed["bob"].in_flight) == (None, None)
    assert (listed["eve"].backlog, listed["eve"].in_flight) == (0, 0)
    assert {bot.name for bot in (await house.ask("shut", Bots(request=1))).bots} == {"bob", "shut"}
    seen = {bot.name: bot for bot in (await house.ask("ops", Bots(request=1))).bots}
    assert (seen["bob"].backlog, seen["bob"].in_flight) == (1, 1)
    assert len(seen) == 7


async def test_a_member_is_not_told_who_is_too_fast(house: Keyed) -> None:
    for _ in range(100):
        await house.sends("alice", ToChannel("news"))
    with pytest.raises(AssertionError, match="rate_limited"):
        await house.sends("alice", ToChannel("news"))
    for reader, told in (("eve", []), ("alice", ["alice"]), ("ops", ["alice"])):
        status = await house.ask(reader, Status(request=1))
        assert [limited.sender for limited in status.rate_limited] == told


async def test_a_group_is_told_of_to_those_who_may_join_it(house: Keyed) -> None:
    await house.say("bob", Subscribe(request=2, channel="work", group="team"))
    [channel] = (await house.ask("eve", Channels(request=1))).channels
    [group] = channel.groups
    assert (group.group, group.backlog, group.in_flight, group.dead) == ("team", 0, None, None)
    [channel] = (await house.ask("ops", Channels(request=1))).channels
    assert [(group.in_flight, group.dead) for group in channel.groups] == [(0, 0)]
    assert (await house.ask("shut", Channels(request=1))).channels == []
    assert (await house.ask("clerk", Channels(request=1))).channels == []


async def test_dead_letters_of_others_are_those_that_may_be_read(house: Keyed) -> None:
    await house.say("alice", Subscribe(request=2, channel="board", echo=True))
    sent: list[tuple[str, str | ToChannel]] = [
        ("eve", "bob"), ("alice", "bob"), ("eve", "bob"), ("eve", "alice"), ("alice", ToChannel("board")),
    ]  # fmt: skip
    for sender, recipient in sent:
        await house.sends(sender, recipient)
        [message] = house.delivered
        holder = recipient if isinstance(recipient, str) else "alice"
        await house.say(holder, Term(seqs=[message["seq"]]))

    async def seqs(reader: str, bot: str, **fields: int) -> list[int]:
        answer = await house.ask(reader, DeadLetters(request=1, bot=bot, **fields))
        return [dead.seq for dead in answer.dead_letters]

    assert await seqs("alice", "alice") == [5, 4]
    assert await seqs("ops", "alice") == [4], "the other one is of a private channel"
    assert await seqs("bob", "bob") == await seqs("ops", "bob") == [3, 2, 1]
    assert await seqs("discreet", "bob") == [3, 1], "it is denied the conversation of alice"
    assert await seqs("discreet", "bob", limit=1) == [3]
    assert await seqs("discreet", "bob", limit=1, offset=1) == [1]
    assert await seqs("discreet", "bob", offset=2) == []
    assert await seqs("bob", "bob", limit=1, offset=1) == [2]


@pytest.mark.parametrize("query", [Bots(request=1), Subscriptions(request=1, channel="news")])
async def test_looking_for_what_may_be_seen_lets_others_go_on(house: Keyed, query: Query) -> None:
    await house.say("bob", Subscribe(request=2, channel="news"))
    order: list[str] = []

    async def ask() -> None:
        await house.ask("eve", query)
        order.append("answered")

    async def go_on() -> None:
        order.append("went on")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(go_on)
    assert order == ["went on", "answered"]
