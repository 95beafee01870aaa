"""Conversations of the OpenAI Agents SDK in a keyed store of the worker.

Owns keys and values: what is added at once is a value, under `SESSION/NUMBER`. Numbers fall, so that the newest
comes first in the order of keys. It needs nothing of the SDK, which asks for these methods and no class.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ...bot import Bot
from ...client.keyed import KeyedValue
from ...errors import RevisionConflict

__all__ = ["KeyedSession"]

_STORE = "openai-agents"

_FIRST = 10**12
"""The number of the first addition; there are never so many."""

_PAGE_VALUES = 50


class KeyedSession:
    """A session of the OpenAI Agents SDK: `await Runner.run(agent, "Hello", session=KeyedSession("ann", bot))`.

    When a method returns, what it wrote is on the worker's disk. Several programs may add to one session: each
    addition stays together. `store` is the name of the keyed store, and `session_settings` has the SDK's `limit`.
    """

    def __init__(
        self, session_id: str, bot: Bot, *, store: str = _STORE, session_settings: Any | None = None
    ) -> None:
        self.session_id = session_id
        self.bot = bot
        self.session_settings = session_settings
        self._kv = bot.kv(store)
        self._prefix = f"{quote(session_id, safe='')}/"

    def __repr__(self) -> str:
        return f"<KeyedSession {self.session_id!r} in {self._kv!r}>"

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """Return the items of the conversation, or the newest of them, in the order in which they were added."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        if limit is not None and limit <= 0:
            return []
        newest_first: list[Any] = []
        after: str | None = None
        while page := await self._kv.list(self._prefix, after=after, limit=_PAGE_VALUES):
            newest_first += [item for value in page for item in reversed(value.value)]
            after = page[-1].key
            if limit is not None and len(newest_first) >= limit:
                break
        return newest_first[:limit][::-1]

    async def add_items(self, items: list[Any]) -> None:
        """Add items to the end, all of them or none."""
        while items:
            newest = await self._newest()
            number = _FIRST if newest is None else int(newest.key.removeprefix(self._prefix)) - 1
            try:
                await self._kv.put(f"{self._prefix}{number:013}", items, expected=0)
            except RevisionConflict:
                continue  # somebody else has added something meanwhile
            return

    async def pop_item(self) -> Any | None:
        """Remove the newest item, and return it; None if there is none."""
        while (newest := await self._newest()) is not None:
            *rest, item = newest.value
            try:
                if rest:
                    await self._kv.put(newest.key, rest, expected=newest.revision)
                else:
                    await self._kv.delete(newest.key, expected=newest.revision)
            except RevisionConflict:
                continue
            return item
        return None

    async def clear_session(self) -> None:
        """Remove all items."""
        while page := await self._kv.list(self._prefix, limit=_PAGE_VALUES):
            for value in page:
                await self._kv.delete(value.key)

    async def _newest(self) -> KeyedValue | None:
        found = await self._kv.list(self._prefix, limit=1)
        return found[0] if found else None
