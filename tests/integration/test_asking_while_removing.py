"""Questions that are being answered while what they are about is removed: no answer fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from bus.broker.noting import Noting
from bus.broker.queries import Queries
from bus.core.core import Core
from bus.core.effects import Ask, Effect, Moment, Note
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    AddSubscription,
    DeadLetter,
    MessageLog,
)
from bus.settings import Settings
from bus.wire.answers import (
    BotList,
    ChannelList,
    MailboxAnswer,
    MessageAnswer,
    SubscriptionList,
)
from bus.wire.frames import (
    Bots,
    Channels,
    Code,
    DeadLetters,
    MailboxQuery,
    MessageQuery,
    Query,
    Refusal,
    Subscriptions,
)
from store import open_store

from ..contract.store.samples import add, at, bot, channel, direct, to_channel

pytestmark = pytest.mark.anyio

BOB = "name of bob"
CHANNELS = [f"channel-{number:03}" for number in range(100)]


class Removing:
    """A log that removes something while it answers."""

    def __init__(self, log: MessageLog) -> None:
        self.log = log
        self.before: dict[str, Callable[[], object]] = {}
        """What is done before a method answers, once."""

    def __getattr__(self, name: str) -> Any:
        self.before.pop(name, lambda: None)()
        return getattr(self.log, name)


class Asked:
    """A worker's core and its answers."""

    def __init__(self, core: Core, log: Removing) -> None:
        self.core = core
        self.log = log
        self._queries = Queries(
            core,
            cast(MessageLog, log),
            versions={},
            frame_bytes_max=2**20,
            moment=lambda: Moment(0.0, at(0)),
            peer=lambda address: None,
        )

    async def ask(self, query: Query, bot_id: str = "ann") -> Any:
        return await self._queries.answer(Ask(b"a", bot_id, query), query, 0.0)

    def remove_bob(self) -> None:
        directory = self.core.directory
        record = directory.bots["bob"]
        directory.hide_bot(record)
        self.core.dispatch.forget(directory.remove_bot(record))


@pytest.fixture
def anyio_backend() -> str:
    """What a worker runs on."""
    return "asyncio"


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    async with open_store(str(tmp_path / "posthouse.db")) as store:
        log = store.log
        await log.apply([AddBot(bot(id)) for id in ("ann", "bob")])
        await log.apply([AddChannel(channel(name)) for name in CHANNELS])
        for id in ("ann", "bob"):
            await log.apply([AddSubscription(id, CHANNELS[0], at(0), 0, echo=True, group=None)])
        await add(log, direct("m", "ann", "bob"), to_channel("n", "ann", CHANNELS[0]))
        await log.apply([AddDeadLetters((DeadLetter("bob", 1, "no", 1, at(1)),))])
        yield Asked(Core(await log.load(), Settings(), worker="w", new_id=lambda: ""), Removing(log))


async def test_a_bot_is_removed_while_bots_are_listed(asked: Asked) -> None:
    asked.log.before["backlogs"] = asked.remove_bob
    listed = await asked.ask(Bots(request=1))
    assert isinstance(listed, BotList)
    assert [each.name for each in listed.bots] == ["name of ann"]


async def test_a_bot_is_removed_while_the_subscriptions_of_a_channel_are_listed(asked: Asked) -> None:
    async def remove() -> None:
        asked.remove_bob()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(remove)  # it runs when the question lets others run, before its first row
        listed = await asked.ask(Subscriptions(request=1, channel=CHANNELS[0]))
    assert isinstance(listed, SubscriptionList)
    assert [each.bot_id for each in listed.subscriptions] == ["ann"]


async def test_channels_are_removed_while_they_are_listed(asked: Asked) -> None:
    def remove() -> None:
        for name in (CHANNELS[1], CHANNELS[-1]):
            asked.core.directory.remove_channel(name)

    asked.log.before["channel_counts"] = remove
    listed = await asked.ask(Channels(request=1))
    assert isinstance(listed, ChannelList)
    names = [each.name for each in listed.channels]
    assert CHANNELS[-1] not in names
    assert len(names) in (98, 99)


async def test_a_bot_is_removed_while_the_states_of_its_message_are_read(asked: Asked) -> None:
    asked.log.before["given_up"] = asked.remove_bob
    found = await asked.ask(MessageQuery(request=1, seq=1))
    assert isinstance(found, MessageAnswer)
    assert found.mailboxes == []


async def test_a_bot_is_removed_while_its_mailbox_is_read(asked: Asked) -> None:
    asked.log.before["peek"] = asked.remove_bob
    found = await asked.ask(MailboxQuery(request=1, bot=BOB))
    assert isinstance(found, MailboxAnswer)
    assert (found.name, found.bot_id) == (BOB, "bob")


@pytest.mark.parametrize("query", [Bots(request=1), DeadLetters(request=1), Subscriptions(request=1)])
async def test_a_bot_that_asked_and_was_removed_before_its_turn_is_refused(asked: Asked, query: Query) -> None:
    asked.remove_bob()
    with pytest.raises(Refusal) as refused:
        await asked.ask(query, bot_id="bob")
    assert refused.value.code == Code.UNKNOWN_BOT


async def test_what_a_bot_did_is_noted_after_its_removal(asked: Asked) -> None:
    effects: list[Effect] = []
    noting = Noting(asked.core, moment=lambda: Moment(0.0, at(0)), carry_out=effects.extend)
    asked.remove_bob()
    noting.deed(Ask(b"a", "bob", Bots(request=1)), Note("run_deleted", {"object": "a run"}))
    [noted] = [effect for effect in effects if isinstance(effect, Note)]
    assert noted.fields == {"bot": "bob", "object": "a run"}
