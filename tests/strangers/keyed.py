"""A worker with keys, as its core, its questions and a store on disk: who asks is said by a principal."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from bus.broker.queries import Queries
from bus.configuration import parse_settings
from bus.core.core import Core
from bus.core.effects import Ask, Effect, Moment, Read, Send
from bus.model.keys import Principal
from bus.model.repository import Store
from bus.wire.frames import Hello, Query, Refusal, ToBot, ToChannel
from store import open_store

from ..pure.keyed import public
from ..pure.ruled import ruled, with_keys
from ..pure.worker import ID, delivered, published

__all__ = ["Keyed", "keyed"]


class Keyed:
    """See the module. What is said is written at once."""

    def __init__(self, core: Core, store: Store, keys: Mapping[str, str]) -> None:
        self.core = core
        self.store = store
        self.keys = keys
        self.queries = Queries(
            core,
            store.log,
            versions={},
            frame_bytes_max=2**20,
            moment=lambda: self.moment,
            peer=lambda address: "192.0.2.7",
        )

    @property
    def moment(self) -> Moment:
        return Moment(100.0, "2026-01-01T00:00:00.000000Z")

    def principal(self, bot: str) -> Principal:
        assert self.core.keyring is not None
        principal = self.core.keyring.principal(self.keys[bot], self.moment.wall)
        assert principal is not None
        return principal

    async def say(self, bot: str, request: Any) -> list[dict[str, Any]]:
        """Let a bot say something, and return all that is sent to anybody."""
        said = await self._do(self.core.receive(bot.encode(), request, self.moment, self.principal(bot)))
        while (batch := self.core.take_batch(self.moment, flush=True)) is not None:
            applied = await self.store.log.apply(batch.changes)
            said += await self._do(self.core.applied(batch, applied, self.moment))
        return said

    async def _do(self, effects: Sequence[Effect]) -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = []
        for effect in effects:
            if isinstance(effect, Send):
                said.append(msgspec.json.decode(effect.frame))
            elif isinstance(effect, Read):
                page = await self.store.log.read_page(effect.request)
                said += await self._do(self.core.page_read(effect.request, page, self.moment))
        return said

    async def sends(self, bot: str, recipient: str | ToChannel, **fields: Any) -> str:
        """Let a bot send a message, to a bot by its name or to a channel, and return its id."""
        frame = published(ToBot(bot=recipient) if isinstance(recipient, str) else recipient, **fields)
        said = await self.say(bot, frame)
        [answer] = [each for each in said if each["op"] == "published"]
        assert "errors" not in answer, answer
        self.delivered = delivered(said)
        return frame.messages[0].id

    async def ask(self, bot: str, query: Query) -> Any:
        """Return the answer to a bot's question. Raise Refusal."""
        principal = self.principal(bot)
        return await self.queries.answer(Ask(bot.encode(), principal.bot_id, query, principal), query, 100.0)

    async def refusal(self, bot: str, query: Query) -> tuple[str, str]:
        """Return the code and the text with which a bot's question is refused."""
        try:
            answer = await self.ask(bot, query)
        except Refusal as error:
            return error.code, error.message
        raise AssertionError(f"it was answered: {answer}")


@asynccontextmanager
async def keyed(folder: Path, configuration: str, bots: Mapping[str, tuple[str, ...]]) -> AsyncIterator[Keyed]:
    """Run a worker by a configuration; its bots have keys of these roles, and a session each."""
    numbers = itertools.count(1)
    async with open_store(str(folder / "posthouse.db")) as store:
        await store.log.apply(with_keys(bots))
        settings = parse_settings(ruled(configuration))
        core = Core(await store.log.load(), settings, worker="w", new_id=lambda: ID % next(numbers))
        house = Keyed(core, store, {name: public(number) for number, name in enumerate(bots, 1)})
        for bot in bots:
            await house.say(bot, Hello(request=1, protocol=1))
        yield house
