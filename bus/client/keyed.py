"""The worker's keyed stores, as a bot uses them: `bot.kv("settings")`.

Owns what is sent for a value: JSON, or bytes as base64. A call that was not answered is repeated with the same id.
"""

from __future__ import annotations

import base64
from collections import deque
from functools import partial
from typing import Any, Literal

import anyio
import msgspec

from ..errors import ChangesForgotten
from ..model.keyed import ChangePage, StoredValue, ValuePage, ValueState
from ..model.values import finite_seconds, json_bytes
from ..wire import keyed_calls as calls
from ..wire.calls import read_result
from ..wire.frames import Workflow
from ..wire.limits import ANSWER_ITEMS_MAX
from ..wire.message_answers import KeptMessage
from ..wire.sending_frames import CommittedValue
from .caller import Caller
from .ids import chosen_id
from .room import CallRoom

__all__ = ["KeyedCaller", "KeyedChange", "KeyedStore", "KeyedValue", "KeyedWatch", "committed_value"]

_BACKSTOP_SECONDS = 30.0
"""How often who watches asks for changes if the worker says nothing: it should not have to."""


class KeyedValue(msgspec.Struct, frozen=True, kw_only=True):
    """What was written under a key last: `value` is what was put, or None if the key `is_deleted`, or has expired.

    `written_at` and `expires_at` are times of the worker's clock, and `bot_id` is who wrote it.
    """

    key: str
    revision: int
    value: Any
    is_deleted: bool = False
    written_at: str
    expires_at: str | None = None
    bot_id: str | None = None


class KeyedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A value to put, or a key to delete, as part of a commit; the fields are the arguments of `KeyedStore.put`."""

    store: str
    key: str
    value: Any = None
    is_deletion: bool = False
    expected: int | None = None
    ttl: float | None = None


class KeyedCaller:
    """Makes the calls of all keyed stores of a bot."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._room = CallRoom()

    def __repr__(self) -> str:
        return f"<KeyedCaller of {self._caller!r}>"

    async def call(self, call: calls.KeyedCall, *, patient: bool = False) -> Any:
        """Make a call and return its value; a `patient` one waits for its answer forever."""
        arguments = msgspec.json.encode(call)
        caller = self._caller.patient() if patient else self._caller
        await self._room.enter(len(arguments))
        try:
            value = await caller.ask(call.method, partial(_frame, call.method, msgspec.Raw(arguments)))
        finally:
            self._room.leave(len(arguments))
        return read_result(call.method, value)

    async def stores(self) -> list[str]:
        """Return the names of the stores that have values."""
        found: list[str] = []
        more = True
        while more:
            page: calls.StoreNames = await self.call(calls.ListStores(after=found[-1] if found else ""))
            found += page.stores
            more = page.more
        return found

    async def retained(self, channel: str) -> KeptMessage | None:
        """Return the last value of a channel."""
        found: KeptMessage | None = await self.call(calls.GetRetained(channel=channel))
        return found

    @property
    def epoch(self) -> str | None:
        """Which log the worker has; None before the bot is connected."""
        welcome = self._caller.connection.welcome
        return None if welcome is None else welcome.epoch

    def woken(self, store: str) -> anyio.Event:
        """Return an event that is set when the worker says that a store was changed, or might have been."""
        return self._caller.connection.wakes.of_store(store)


class KeyedStore:
    """A keyed store of the worker: values under keys, as `bot.kv("settings")`. It begins with its first value.

    A write is on the worker's disk when its call returns, and every read that begins later sees it, of this bot and
    of all others. Each write has a revision, which is higher than those of all writes before, in any store. A key
    has 1 to 512 characters.

    With keys, reading needs the right `read` on `kv:NAME`, and writing the right `write` on `NAME`; otherwise calls
    raise Forbidden.
    """

    def __init__(self, name: str, caller: KeyedCaller) -> None:
        self.name = name
        self._caller = caller

    def __repr__(self) -> str:
        return f"<KeyedStore {self.name!r}>"

    async def put(
        self, key: str, value: Any, *, expected: int | None = None, ttl: float | None = None, id: str | None = None
    ) -> int:
        """Put a value, and return its revision.

        `value` is JSON or bytes, 16 MiB at most unless the worker is configured otherwise. With `expected`, the key
        must have that revision, or not exist for 0. After `ttl` seconds, by the worker's clock, it is deleted.

        Without an `id` the call makes one, so that it can be repeated. To call again after WorkerUnavailable, pass
        one: if the value was put before, the same revision is returned, even if another value was put since. It is
        remembered for a quarter of an hour; later, only `expected` keeps a repetition from putting it again.

        Raises RevisionConflict, which has the key's revision, TooManyKeys, TooLarge and InvalidValue; nothing was
        put then.
        """
        kind, written_as = _written(key, value)
        call = calls.PutValue(
            store=self.name,
            key=key,
            value=written_as,
            kind=kind,
            id=chosen_id(id),
            expected=expected,
            ttl=finite_seconds(ttl, "ttl"),
        )
        written: calls.KeyedWritten = await self._caller.call(call)
        return written.revision

    async def delete(self, key: str, *, expected: int | None = None, id: str | None = None) -> int:
        """Delete a key, and return the revision of that; 0 if it did not exist. `expected` and `id` as in `put`."""
        call = calls.DeleteValue(store=self.name, key=key, expected=expected, id=chosen_id(id))
        written: calls.KeyedWritten = await self._caller.call(call)
        return written.revision

    async def get(self, key: str) -> KeyedValue | None:
        """Return a value, or None if the key does not exist, or has expired."""
        found: StoredValue | None = await self._caller.call(calls.GetValue(store=self.name, key=key))
        return None if found is None else _read(found)

    async def list(
        self, prefix: str = "", *, after: str | None = None, limit: int | None = None
    ) -> list[KeyedValue]:
        """Return values whose keys begin with a prefix, in the order of their keys, by code points.

        At most `limit`, or all; only those that follow the key `after`. A list of several frames is read while
        others write: each value was there when its part was read.
        """
        found: list[KeyedValue] = []
        more = True
        while more and (limit is None or len(found) < limit):
            size = ANSWER_ITEMS_MAX if limit is None else min(limit - len(found), ANSWER_ITEMS_MAX)
            call = calls.ListValues(store=self.name, prefix=prefix, after=after, limit=size)
            page: ValuePage = await self._caller.call(call)
            found += map(_read, page.values)
            more = page.more
            after = found[-1].key if found else after
        return found

    async def revision(self) -> int:
        """Return the last revision in any store: `watch` with it returns what is written from now on."""
        page: ValuePage = await self._caller.call(calls.ListValues(store=self.name, limit=1))
        return page.revision

    def watch(self, prefix: str = "", *, after: int | None = None, epoch: str | None = None) -> KeyedWatch:
        """Watch keys that begin with a prefix: `async for value in bot.kv("settings").watch():`.

        Without `after` it begins with the values that are there. Then come changes, in the order of their
        revisions; also deletions, and values that have expired. Of a key that is written several times at once,
        only the last write may come. With `after`, a revision, it begins with the changes after that, and so goes
        on where an earlier one has ended (`KeyedWatch.revision`). Whoever keeps a revision should keep `bot.epoch`
        with it: revisions of another `epoch` than the log's are forgotten.

        It ends with the bot. It goes on after restarts of the worker, and misses nothing; if the bot was away for
        longer than a day, or the worker goes on from a backup, it raises ChangesForgotten: watch again from the
        beginning then.
        """
        return KeyedWatch(self.name, prefix, after, self._caller, epoch=epoch)


class KeyedWatch:
    """An iterator over changes, which may be left at any point: it holds nothing."""

    def __init__(
        self, store: str, prefix: str, after: int | None, caller: KeyedCaller, *, epoch: str | None
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._caller = caller
        self._epoch = epoch or caller.epoch
        self._listing = after is None
        """Whether values of the beginning are still to be asked for."""
        self._key: str | None = None
        """The last key of those."""
        self._after = after
        """The revision after which to ask for changes next."""
        self._returned = after
        self._found: deque[KeyedValue] = deque()
        self._are_changes = False
        self._woken: anyio.Event | None = None
        """Set when there may be changes, if all that there were are found."""

    def __repr__(self) -> str:
        return f"<KeyedWatch {self._store!r} revision={self.revision}>"

    @property
    def revision(self) -> int | None:
        """The revision through which everything was returned; None while values of the beginning are missing."""
        if self._listing:
            return None
        return self._returned if self._found else self._after

    def __aiter__(self) -> KeyedWatch:
        return self

    async def __anext__(self) -> KeyedValue:
        while not self._found:
            await (self._list() if self._listing else self._look())
        value = self._found.popleft()
        if self._are_changes:
            self._returned = value.revision
        return value

    async def _list(self) -> None:
        call = calls.ListValues(store=self._store, prefix=self._prefix, after=self._key)
        page: ValuePage = await self._caller.call(call, patient=True)
        if self._after is None:
            self._after = page.revision
        self._found += map(_read, page.values)
        self._listing = page.more
        if page.values:
            self._key = page.values[-1].key

    async def _look(self) -> None:
        assert self._after is not None, "it was set with the first values"
        if self._woken is not None:
            with anyio.move_on_after(_BACKSTOP_SECONDS):
                await self._woken.wait()
            self._woken = None
        woken = self._caller.woken(self._store)
        call = calls.ListChanges(store=self._store, prefix=self._prefix, after=self._after, wake=True)
        page: ChangePage = await self._caller.call(call, patient=True)
        if self._caller.epoch != self._epoch:
            raise ChangesForgotten(self._store, self._after, self._after)
        self._found += map(_read, page.changes)
        self._are_changes, self._after = True, page.revision
        if not page.more:
            self._woken = woken


def committed_value(change: KeyedChange) -> CommittedValue:
    """Return a change as a commit has it. Raise InvalidValue if the value is neither JSON nor bytes."""
    kind, value = ("deleted", msgspec.Raw(b"null")) if change.is_deletion else _written(change.key, change.value)
    return CommittedValue(
        store=change.store,
        key=change.key,
        kind=kind,  # type: ignore[arg-type]
        value=value,
        expected=change.expected,
        ttl=finite_seconds(change.ttl, "ttl"),
    )


def _written(key: str, value: Any) -> tuple[Literal["json", "bytes"], msgspec.Raw]:
    """Return how a value is sent. Raise InvalidValue if it is neither JSON nor bytes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes", msgspec.Raw(b'"%s"' % base64.b64encode(value))
    return "json", msgspec.Raw(json_bytes(value, f"the value of {key!r}"))


def _read(stored: StoredValue) -> KeyedValue:
    value = msgspec.json.decode(stored.value)
    return KeyedValue(
        key=stored.key,
        revision=stored.revision,
        value=base64.b64decode(value) if stored.state is ValueState.BYTES else value,
        is_deleted=not stored.state.has_value,
        written_at=stored.written_at,
        expires_at=stored.expires_at,
        bot_id=stored.bot_id,
    )


def _frame(method: str, arguments: msgspec.Raw, number: int) -> Workflow:
    return Workflow(request=number, call=method, arguments=arguments)
