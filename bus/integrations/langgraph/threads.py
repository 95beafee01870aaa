"""Threads as wholes: reading all of one, deleting some or all of it, copying it.

What is deleted goes in such an order that what is left is whole at any time: checkpoints, then what only they had.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec

from ...client.keyed import KeyedStore, KeyedValue
from .rows import CheckpointRow, WritesRow, piece_key, thread_prefix, writes_key

__all__ = ["KeptThreads"]

_VALUES_AT_ONCE = 200


class KeptThreads:
    """The threads in a keyed store."""

    def __init__(self, kv: KeyedStore) -> None:
        self._kv = kv

    def __repr__(self) -> str:
        return f"<KeptThreads in {self._kv!r}>"

    async def rows(self, prefix: str) -> list[CheckpointRow]:
        """Return checkpoints by the prefix of their keys, the newest of each namespace first."""
        return [CheckpointRow.decode(value.value) async for value in self._values(prefix)]

    async def _values(self, prefix: str) -> AsyncIterator[KeyedValue]:
        after: str | None = None
        while page := await self._kv.list(prefix, after=after, limit=_VALUES_AT_ONCE):
            for value in page:
                yield value
            after = page[-1].key

    async def delete(self, thread: str) -> None:
        """Delete everything of a thread."""
        for kind in "cwp":
            await self._delete_all(thread_prefix(kind, thread))

    async def delete_rows(self, thread: str, rows: Sequence[CheckpointRow], gone: Sequence[CheckpointRow]) -> None:
        """Delete some of all checkpoints of a thread, with what tasks wrote there, and what only they had."""
        if not gone:
            return
        deleted = {row.key for row in gone}
        await self._delete_keys(deleted)
        unused = {digest for row in gone for digest in row.pieces()}
        for row in gone:
            prefix = writes_key(thread, row.namespace, row.id)
            async for value in self._values(prefix):
                unused |= WritesRow.decode(value.value).pieces()
            await self._delete_all(prefix)
        for row in rows:
            if row.key not in deleted:
                unused -= row.pieces()
        if unused:
            async for value in self._values(thread_prefix("w", thread)):
                unused -= WritesRow.decode(value.value).pieces()
        await self._delete_keys(piece_key(thread, digest) for digest in unused)

    async def _delete_all(self, prefix: str) -> None:
        while page := await self._kv.list(prefix, limit=_VALUES_AT_ONCE):
            await self._delete_keys(value.key for value in page)

    async def _delete_keys(self, keys: Iterable[str]) -> None:
        await asyncio.gather(*(self._kv.delete(key) for key in keys))

    async def copy(self, source: str, target: str) -> None:
        """Copy everything of a thread to another one; checkpoints last, so that those that are there are whole."""
        for kind in "pw":
            prefix, new = thread_prefix(kind, source), thread_prefix(kind, target)
            async for value in self._values(prefix):
                await self._kv.put(new + value.key.removeprefix(prefix), value.value)
        for row in await self.rows(thread_prefix("c", source)):
            copied = msgspec.structs.replace(row, thread=target)
            await self._kv.put(copied.key, copied.encode())
