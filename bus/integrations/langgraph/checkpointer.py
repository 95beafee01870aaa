"""LangGraph's checkpoints in a keyed store of the worker.

Owns what is written and read for each method of a checkpointer; `rows` has how it is kept. A checkpoint is written
together with the pieces of its values, or after those that are too large for that: one that is there is whole.
"""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from ...bot import Bot
from ...client.keyed import KeyedChange
from ...errors import NotFound, RevisionConflict
from ..bot_loop import BotOpening, InKeyedStore
from .growing import LastValues
from .listing import Listing
from .pieces import RememberedPieces
from .rows import (
    FORMAT,
    CheckpointRow,
    KeptChannel,
    RowParts,
    WritesRow,
    checkpoint_key,
    joined,
    piece_key,
    thread_prefix,
    writes_key,
)
from .threads import KeptThreads

__all__ = ["Checkpointer"]

_STORE = "langgraph"

_COMMITTED_BYTES_MAX = 512 * 1024
"""Of pieces that are put in one transaction with their row: they fit into a frame."""

_REMEMBERED_MAX = 1000
"""Namespaces of threads whose last checkpoint is remembered, so that the next one need not read it."""


class Checkpointer(InKeyedStore, BaseCheckpointSaver[str]):
    """Keeps the state of LangGraph's graphs with the worker: `builder.compile(checkpointer=Checkpointer(bot))`.

    Create it in the event loop in which the bot was connected. Its methods may then be called from everywhere:
    those that begin with `a` in any event loop, and the others in any thread but that of the bot's loop. Programs
    without an event loop use `from_conn_string`.

    When a method returns, what it wrote is on the worker's disk. Calls are repeated through restarts of the worker,
    and carried out once; after the bot's `timeout` they raise WorkerUnavailable.

    `store` is the name of the keyed store, and `serde` serializes values, as of any checkpointer: with an
    EncryptedSerializer, the worker sees only keys, which have the names of threads and tasks.
    """

    def __init__(self, bot: Bot, *, store: str = _STORE, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self.bot = bot
        self._keep_in(bot, store)
        self._threads = KeptThreads(self.kv)
        self._last: OrderedDict[tuple[str, str], CheckpointRow] = OrderedDict()
        """The last checkpoints that were put or read, of each namespace of a thread."""
        self._pieces = RememberedPieces()
        self._values = LastValues()

    @classmethod
    def from_conn_string(
        cls,
        url: str | None = None,
        *,
        bot: str | None = "langgraph",
        store: str = _STORE,
        serde: SerializerProtocol | None = None,
        **options: Any,
    ) -> BotOpening[Checkpointer]:
        """Connect a bot for a block: `with Checkpointer.from_conn_string() as checkpointer:`, or `async with`.

        The arguments besides `store` and `serde` are those of `bus.connect`; with `credentials=`, pass `bot=None`.
        """
        return cls._opening(url, bot, options, store=store, serde=serde)

    # ── What LangGraph calls ─────────────────────────────────────────────────────────────────────────────

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that a config names, or else the newest of its thread; None if there is none."""
        return self._loop.call(self._get_tuple, config)

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do what `get_tuple` does."""
        return await self._loop.run(self._get_tuple, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Return checkpoints of each namespace of a thread, or of all threads, the newest first.

        `filter` has values that are to be in their metadata, and is applied here: all checkpoints that the config
        names are read, without the values of those that do not match.
        """
        listing = Listing(self, config, filter, before, limit)
        while not listing.is_over:
            yield from self._loop.call(listing.more)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Do what `list` does."""
        listing = Listing(self, config, filter, before, limit)
        while not listing.is_over:
            for found in await self._loop.run(listing.more):
                yield found

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint, and return the config that names it."""
        return self._loop.call(self._put, config, checkpoint, metadata, new_versions)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do what `put` does."""
        return await self._loop.run(self._put, config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task has written, beside the checkpoint on which it works."""
        self._loop.call(self._put_writes, config, writes, task_id, task_path)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do what `put_writes` does."""
        await self._loop.run(self._put_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """Delete everything of a thread."""
        self._loop.call(self._delete_thread, thread_id)

    async def adelete_thread(self, thread_id: str) -> None:
        """Do what `delete_thread` does."""
        await self._loop.run(self._delete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete checkpoints whose metadata have one of these values of `run_id`, looking through all threads."""
        self._loop.call(self._delete_for_runs, run_ids)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do what `delete_for_runs` does."""
        await self._loop.run(self._delete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy everything of a thread to another one."""
        self._loop.call(self._threads.copy, str(source_thread_id), str(target_thread_id))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do what `copy_thread` does."""
        await self._loop.run(self._threads.copy, str(source_thread_id), str(target_thread_id))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all checkpoints of threads but the newest of each namespace, or with "delete" all of them.

        The older ones from which a DeltaChannel of the newest is computed stay, too. Do not prune a thread that is
        at work: it may refer to what is being deleted.
        """
        self._loop.call(self._prune, thread_ids, strategy)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do what `prune` does."""
        await self._loop.run(self._prune, thread_ids, strategy)

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Return a version of a channel that follows another one, and no fork of the thread has."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"

    # ── Reading, in the bot's loop ───────────────────────────────────────────────────────────────────────

    async def _get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread, namespace = _place(config)
        if id := get_checkpoint_id(config):
            row = await self._row(thread, namespace, id)
        else:
            newest = await self.kv.list(thread_prefix("c", thread, namespace), limit=1)
            row = CheckpointRow.decode(newest[0].value) if newest else None
        if row is None:
            return None
        self._remember(row)
        [found] = await self.tuples_of([row])
        return found

    async def _row(self, thread: str, namespace: str, id: str) -> CheckpointRow | None:
        found = await self.kv.get(checkpoint_key(thread, namespace, id))
        return None if found is None else CheckpointRow.decode(found.value)

    async def tuples_of(self, rows: Sequence[CheckpointRow]) -> Sequence[CheckpointTuple]:
        """Return checkpoints with their values and writes; what several have in common is read once."""
        pieces, written = await asyncio.gather(
            self._read_pieces({digest: row.thread for row in rows for digest in row.pieces()}),
            self._read_writes(rows),
        )
        of_writes = {
            digest: row.thread
            for row, writes in zip(rows, written, strict=True)
            for each in writes
            for digest in each.pieces() - pieces.keys()
        }
        pieces |= await self._read_pieces(of_writes)
        return [self._tuple_of(row, writes, pieces) for row, writes in zip(rows, written, strict=True)]

    async def _read_writes(self, rows: Sequence[CheckpointRow]) -> Sequence[Sequence[WritesRow]]:
        return await asyncio.gather(*map(self._writes_of, rows))

    async def _writes_of(self, row: CheckpointRow) -> Sequence[WritesRow]:
        async with self._reads:
            found = await self.kv.list(writes_key(row.thread, row.namespace, row.id))
        return [WritesRow.decode(value.value) for value in found]

    async def _read_pieces(self, threads: Mapping[bytes, str]) -> dict[bytes, bytes]:
        """Return pieces by their digests; each is asked for in a thread that has it."""
        known = self._pieces.found(threads)
        missing = [digest for digest in threads if digest not in known]
        found = await asyncio.gather(*(self._piece(threads[digest], digest) for digest in missing))
        read = dict(zip(missing, found, strict=True))
        self._pieces.add(read)
        return known | read

    async def _piece(self, thread: str, digest: bytes) -> bytes:
        async with self._reads:
            found = await self.kv.get(piece_key(thread, digest))
        if found is None:
            what = f"part of a value of thread {thread!r}, which was pruned or deleted while it was at work,"
            raise NotFound(what, digest.hex())
        piece: bytes = found.value
        return piece

    def _tuple_of(
        self, row: CheckpointRow, written: Sequence[WritesRow], pieces: Mapping[bytes, bytes]
    ) -> CheckpointTuple:
        writes = [
            (writes_sort_key(each.path, each.task, index), channel, kept)
            for each in written
            for index, (channel, kept) in each.writes.items()
        ]
        writes.sort(key=itemgetter(0))

        def value_of(kept: KeptChannel) -> Any:
            return self.serde.loads_typed(joined(kept, pieces))

        checkpoint: Checkpoint = self.serde.loads_typed(row.checkpoint)
        checkpoint["channel_values"] = {channel: value_of(kept) for channel, kept in row.channels.items()}
        return CheckpointTuple(
            config=_config(row.thread, row.namespace, row.id),
            checkpoint=checkpoint,
            metadata=self.metadata_of(row),
            parent_config=None if row.parent is None else _config(row.thread, row.namespace, row.parent),
            pending_writes=[(place[1], channel, value_of(kept)) for place, channel, kept in writes],
        )

    def metadata_of(self, row: CheckpointRow) -> CheckpointMetadata:
        """Return the metadata of a checkpoint."""
        metadata: CheckpointMetadata = self.serde.loads_typed(row.metadata)
        return metadata

    # ── Writing ──────────────────────────────────────────────────────────────────────────────────────────

    async def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        thread, namespace = _place(config)
        parent = get_checkpoint_id(config)
        before = None if parent is None else await self._remembered(thread, namespace, parent)
        channels: dict[str, KeptChannel] = {}
        parts = RowParts()
        for channel, value in checkpoint["channel_values"].items():
            version = checkpoint["channel_versions"].get(channel)
            kept = None if before is None or channel in new_versions else before.channels.get(channel)
            if kept is None or kept.version is None or kept.version != version:
                place = thread, namespace, channel
                channels[channel] = self._values.keep(place, value, parts, serde=self.serde, version=version)
            else:
                channels[channel] = parts.add_again(kept)
        if before is not None:
            for digest in before.pieces():
                parts.pieces.pop(digest, None)
        row = CheckpointRow(
            format=FORMAT,
            thread=thread,
            namespace=namespace,
            id=checkpoint["id"],
            parent=parent,
            checkpoint=self.serde.dumps_typed({**checkpoint, "channel_values": {}}),
            metadata=self.serde.dumps_typed(get_checkpoint_metadata(config, metadata)),
            channels=channels,
        )
        await self._put_whole(thread, parts.pieces, row.key, row.encode())
        self._remember(row)
        return _config(thread, namespace, row.id)

    async def _remembered(self, thread: str, namespace: str, id: str) -> CheckpointRow | None:
        row = self._last.get((thread, namespace))
        return row if row is not None and row.id == id else await self._row(thread, namespace, id)

    def _remember(self, row: CheckpointRow) -> None:
        place = row.thread, row.namespace
        self._last[place] = row
        self._last.move_to_end(place)
        if len(self._last) > _REMEMBERED_MAX:
            self._last.popitem(last=False)

    async def _put_whole(
        self, thread: str, pieces: Mapping[bytes, bytes], key: str, data: bytes, *, expected: int | None = None
    ) -> None:
        """Put a row together with the pieces that it needs, of which those without room are put before."""
        changes = [KeyedChange(store=self.kv.name, key=key, value=data, expected=expected)]
        room, before = _COMMITTED_BYTES_MAX, []
        for digest, piece in pieces.items():
            room -= len(piece)
            if room >= 0:
                changes.append(KeyedChange(store=self.kv.name, key=piece_key(thread, digest), value=piece))
            else:
                before.append(self._put_piece(piece_key(thread, digest), piece))
        await asyncio.gather(*before)
        if len(changes) > 1:
            await self.bot.workflows.commit(values=changes)
        else:
            await self.kv.put(key, data, expected=expected)
        self._pieces.add(pieces)

    async def _put_piece(self, key: str, data: bytes) -> None:
        with suppress(RevisionConflict):  # it is there, and is the same
            await self.kv.put(key, data, expected=0)

    async def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        thread, namespace = _place(config)
        parts = RowParts()
        kept = {
            WRITES_IDX_MAP.get(channel, index): (channel, parts.add(self.serde.dumps_typed(value)))
            for index, (channel, value) in enumerate(writes)
        }
        key = writes_key(thread, namespace, config["configurable"]["checkpoint_id"], task_id)
        written = WritesRow(task_id, task_path, kept)
        row, expected = written, 0
        while True:
            try:
                await self._put_whole(thread, parts.pieces, key, row.encode(), expected=expected)
            except RevisionConflict:
                found = await self.kv.get(key)
                if found is None:
                    row, expected = written, 0  # it was deleted meanwhile
                    continue
                stored = WritesRow.decode(found.value)
                row, expected = written.after(stored), found.revision
                if row == stored:
                    return
            else:
                return

    # ── Deleting ─────────────────────────────────────────────────────────────────────────────────────────

    async def _delete_thread(self, thread_id: str) -> None:
        thread = str(thread_id)
        self._forget(thread)
        await self._threads.delete(thread)

    def _forget(self, thread: str) -> None:
        for place in [place for place in self._last if place[0] == thread]:
            del self._last[place]

    async def _delete_for_runs(self, run_ids: Sequence[str]) -> None:
        ended = set(run_ids)
        threads: defaultdict[str, list[CheckpointRow]] = defaultdict(list)
        for row in await self._threads.rows("c/") if ended else []:
            threads[row.thread].append(row)
        for thread, rows in threads.items():
            gone = [row for row in rows if self.metadata_of(row).get("run_id") in ended]
            self._forget(thread)
            await self._threads.delete_rows(thread, rows, gone)

    async def _prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"the strategy is 'keep_latest' or 'delete', and not {strategy!r}")
        for thread in map(str, thread_ids):
            if strategy == "delete":
                await self._delete_thread(thread)
                continue
            rows = await self._threads.rows(thread_prefix("c", thread))
            namespaces: defaultdict[str, dict[str, CheckpointRow]] = defaultdict(dict)
            for row in rows:
                namespaces[row.namespace][row.id] = row
            needed = {(name, id) for name, each in namespaces.items() for id in self._needed(each)}
            self._forget(thread)
            gone = [row for row in rows if (row.namespace, row.id) not in needed]
            await self._threads.delete_rows(thread, rows, gone)

    def _needed(self, rows: Mapping[str, CheckpointRow]) -> Iterator[str]:
        """Return the ids of the newest checkpoint, which is the first, and of those that its DeltaChannels need."""
        row: CheckpointRow | None = next(iter(rows.values()))
        deltas: set[str] | None = None
        seen: set[str] = set()
        while row is not None and row.id not in seen:
            yield row.id
            seen.add(row.id)
            if deltas is None:
                deltas = set(self.metadata_of(row).get("counters_since_delta_snapshot") or ())
            deltas -= row.channels.keys()
            row = rows.get(row.parent) if deltas and row.parent is not None else None


def _place(config: RunnableConfig) -> tuple[str, str]:
    """Return the thread and the namespace of a config."""
    configurable = config["configurable"]
    return str(configurable["thread_id"]), configurable.get("checkpoint_ns", "")


def _config(thread: str, namespace: str, id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": id}}
