"""Calls about the keyed store: whether they are allowed, their answers, and who is told of what they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.core import Core
from ..core.effects import Ask, Effect, Moment
from ..core.keyed_writing import keyed_write
from ..core.retaining import kept_message
from ..core.sight import Sight
from ..errors import Refused
from ..model.keyed import KeyedWrite
from ..model.repository import KeyedRepository
from ..model.retaining import RETAINED, retained_message
from ..model.rights import Action
from ..settings import Limits
from ..settings.rights import KEYED_SCOPE
from ..wire.frames import Refusal
from ..wire.keyed_calls import (
    DeleteValue,
    GetRetained,
    GetValue,
    KeyedCall,
    KeyedWritten,
    ListChanges,
    ListStores,
    ListValues,
    PutValue,
    StoreCall,
    StoreNames,
)
from ..wire.limits import FRAME_ROOM_BYTES
from ..wire.message_answers import KeptMessage

__all__ = ["KEYED_WRITES", "KeyedAnswers"]

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
        if isinstance(call, GetRetained):
            return await self._retained(ask, call.channel)
        if isinstance(call, ListStores):
            return await self._stores(ask, call)
        assert isinstance(call, StoreCall), "there are no others"
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

    async def _stores(self, ask: Ask, call: ListStores) -> StoreNames:
        """Return the names of stores that may be read."""
        found: list[str] = []
        after, access = call.after, self._core.permitting.access
        while len(found) <= call.limit:
            names = await self._store.list_stores(after, call.limit + 1)  # one more says that there are more
            found += [
                name
                for name in names
                if ask.principal is None or access.may(ask.principal, Action.READ, f"{KEYED_SCOPE}{name}")
            ]
            if len(names) <= call.limit:
                break
            after = names[-1]
        return StoreNames(found[: call.limit], len(found) > call.limit)

    async def _retained(self, ask: Ask, channel: str) -> KeptMessage | None:
        """Return the last value of a channel that may be read."""
        refusal = Sight(self._core.permitting.access, self._core.directory, ask.principal).unread_channel(channel)
        if refusal is not None:
            raise refusal
        found = await self._store.get(RETAINED, channel)
        return None if found is None else kept_message(retained_message(found))

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
            done = [
                write for write, outcome in zip(writes.values(), written, strict=True) if isinstance(outcome, int)
            ]
            self._core.waking.keyed.written(done)
            self._carry_out(self._core.look_at_runs(self._moment()))
        return outcomes

    def _require(self, ask: Ask, action: Action, object: str) -> None:
        if ask.principal is not None:
            self._core.permitting.access.require(ask.principal, action, object)
