"""Calls about the keyed store: whether they are allowed, their answers, and who is told of what they change."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from ..core.core import Core
from ..core.effects import Ask, Effect, Moment
from ..errors import InvalidValue, Refused, TooLarge
from ..model.keyed import KeyedWrite, ValueState
from ..model.repository import KeyedRepository
from ..model.rights import Action
from ..settings import Limits
from ..settings_rights import KEYED_SCOPE
from ..wire.frames import Refusal
from ..wire.keyed_calls import DeleteValue, GetValue, KeyedCall, KeyedWritten, ListChanges, ListValues, PutValue
from ..wire.limits import FRAME_ROOM_BYTES

__all__ = ["KEYED_WRITES", "KeyedAnswers", "keyed_write"]

KEYED_WRITES = frozenset({PutValue.method, DeleteValue.method})
"""Calls that are carried out together if they arrive together."""

_NOTHING = KeyedWritten(0)


class KeyedAnswers:
    """See the module. `carry_out` carries out what follows."""

    def __init__(
        self,
        core: Core,
        store: KeyedRepository,
        limits: Limits,
        *,
        moment: Callable[[], Moment],
        carry_out: Callable[[list[Effect]], None],
    ) -> None:
        self._core = core
        self._store = store
        self._limits = limits
        self._moment = moment
        self._carry_out = carry_out

    def __repr__(self) -> str:
        return f"<KeyedAnswers from {self._store}>"

    async def answer(self, ask: Ask, call: KeyedCall) -> Any:
        """Carry out a call and return its value. Raise Refusal, and what the store raises."""
        if isinstance(call, PutValue | DeleteValue):
            [outcome] = await self.write([(ask, call)])
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        self._require(ask, Action.READ, f"{KEYED_SCOPE}{call.store}")
        bytes_max = self._limits.frame_bytes_max - FRAME_ROOM_BYTES
        match call:
            case GetValue():
                return await self._store.get(call.store, call.key)
            case ListValues():
                return await self._store.list_values(
                    call.store, call.prefix, after=call.after, limit=call.limit, bytes_max=bytes_max
                )
            case ListChanges():
                if call.wake:  # before they are read: a change in between is told
                    self._core.waking.keyed.watch(ask.address, call.store)
                return await self._store.list_changes(
                    call.store, call.prefix, after=call.after, limit=call.limit, bytes_max=bytes_max
                )
            case _:
                raise AssertionError(call.method)

    async def write(self, asked: Sequence[tuple[Ask, PutValue | DeleteValue]]) -> list[KeyedWritten | Exception]:
        """Carry out writes together, in order, and return the outcome of each. Raise StoreFailure."""
        outcomes: list[KeyedWritten | Exception] = []
        writes: dict[int, KeyedWrite] = {}
        for place, (ask, call) in enumerate(asked):
            outcomes.append(_NOTHING)
            try:
                self._require(ask, Action.WRITE, call.store)
                writes[place] = keyed_write(call, ask.bot_id, self._limits)
            except (Refusal, Refused) as error:
                outcomes[place] = error
        if writes:
            written = await self._store.write_all(list(writes.values()))
            for place, outcome in zip(writes, written, strict=True):
                outcomes[place] = KeyedWritten(outcome) if isinstance(outcome, int) else outcome
            self._tell(write for write, outcome in zip(writes.values(), written, strict=True) if outcome)
        return outcomes

    def _require(self, ask: Ask, action: Action, object: str) -> None:
        if ask.principal is not None:
            self._core.permitting.access.require(ask.principal, action, object)

    def _tell(self, written: Iterable[KeyedWrite]) -> None:
        """Tell who watches, and expect the ends of values."""
        stores: dict[str, None] = {}
        for write in written:
            stores[write.store] = None
            if write.ttl_seconds is not None:
                self._core.keeping.keyed.expect(write.ttl_seconds)
        self._core.waking.keyed.changed(stores)
        self._carry_out(self._core.look_at_runs(self._moment()))


def keyed_write(call: PutValue | DeleteValue, bot_id: str, limits: Limits) -> KeyedWrite:
    """Return the write that a call asks for. Raise TooLarge, and InvalidValue for what is not base64."""
    state, value, ttl = ValueState.DELETED, None, None
    if isinstance(call, PutValue):
        state, ttl = ValueState(call.kind), call.ttl
        value, size_bytes = _checked(call)
        if size_bytes > limits.kv_value_bytes_max:
            raise TooLarge(f"the value of {call.key!r}", size_bytes, limits.kv_value_bytes_max)
    return KeyedWrite(
        store=call.store,
        key=call.key,
        state=state,
        value=value,
        id=call.id,
        bot_id=bot_id,
        expected=call.expected,
        ttl_seconds=ttl,
        keys_max=limits.kv_keys_max,
    )


def _checked(call: PutValue) -> tuple[str, int]:
    """Return a value as JSON, and its size."""
    written = bytes(call.value)
    if call.kind == "json":
        return written.decode(), len(written)
    try:
        text = msgspec.json.decode(written, type=str)
        return written.decode(), len(binascii.a2b_base64(text, strict_mode=True))
    except (msgspec.DecodeError, ValueError):
        raise InvalidValue(f"the value of {call.key!r}", "bytes are a string of base64, with its padding") from None
