"""Definitions of workflows over a bot's connection, and how all of its workflow calls are made.

Owns that a call looks as if the store were local: its result is a record, and a list that does not fit into a frame
is read in parts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from ..client.caller import Caller
from ..client.room import CallRoom
from ..client.sending import Through
from ..client.settling import Settler
from ..client.waiting import FrameTooLarge
from ..errors import TooLarge
from ..model.records import Owner, WorkflowDefinition
from ..model.values import json_bytes
from ..wire import calls as calls
from ..wire import definition_calls
from ..wire.echoes import carried
from ..wire.frames import Workflow
from .commits import RemoteCommits

__all__ = ["RemoteDefinitions"]

_PORTION_RECORDS = 64
"""Records requested at once if not all of them fit into a frame; fewer if these do not either."""


class RemoteDefinitions(RemoteCommits):
    """The part of a bot's workflows that keeps definitions."""

    def __init__(self, caller: Caller, settler: Settler, through: Through) -> None:
        super().__init__(caller, settler, through)
        self._room = CallRoom()

    async def save_definition(self, definition: WorkflowDefinition) -> None:
        """Insert or replace by id."""
        await self._call(definition_calls.SaveDefinition(definition=definition))

    async def offer_definition(self, definition: WorkflowDefinition) -> WorkflowDefinition:
        """Save a definition unless a newer one is stored, and return the one that counts."""
        counts: WorkflowDefinition = await self._call(definition_calls.OfferDefinition(definition=definition))
        return counts

    async def get_definition(self, definition_id: str) -> WorkflowDefinition | None:
        """Return a definition by id."""
        found: WorkflowDefinition | None = await self._call(
            definition_calls.GetDefinition(definition_id=definition_id)
        )
        return found

    async def get_definition_by_name(self, name: str, owner: Owner) -> WorkflowDefinition | None:
        """Return a definition by name and owner."""
        found: WorkflowDefinition | None = await self._call(
            definition_calls.GetDefinitionByName(name=name, owner=owner)
        )
        return found

    async def list_definitions(
        self, owner: Owner | None = None, limit: int | None = None, *, offset: int = 0
    ) -> list[WorkflowDefinition]:
        """List by name, owner, id; `None` lists those of all owners."""
        return await self._list(definition_calls.ListDefinitions(owner=owner, limit=limit, offset=offset))

    async def delete_definition(self, definition_id: str, *, cascade: bool = False) -> bool:
        """Delete. Return False if it did not exist, perhaps because the call was repeated after a lost answer."""
        deleted: bool = await self._call(
            definition_calls.DeleteDefinition(definition_id=definition_id, cascade=cascade)
        )
        return deleted

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────

    async def _call(self, call: calls.Call) -> Any:
        arguments = self._arguments_of(call)
        make = partial(_frame, call.method, msgspec.Raw(arguments))
        if isinstance(call, calls.RenewRun | calls.ReleaseRun):  # a run must not be lost because others wait
            return calls.read_result(call.method, await self._caller.ask(call.method, make))
        size_bytes = len(arguments)
        await self._room.enter(size_bytes)
        try:
            value = await self._caller.ask(call.method, make)
        finally:
            self._room.leave(size_bytes)
        result = calls.read_result(call.method, value)
        if given := carried(call):  # it was not sent back
            result = msgspec.structs.replace(result, **{name: each.value for name, each in given.items()})
        return result

    def _call_later(self, call: calls.Call) -> Callable[[], bool] | None:
        """Send a call whose answer nobody waits for, and return how to withdraw it while it was not sent yet.

        Return None if it has to wait, or is larger than a frame.
        """
        arguments = self._arguments_of(call)
        size_bytes = len(arguments)
        if not self._room.enter_now(size_bytes):
            return None
        make = partial(_frame, call.method, msgspec.Raw(arguments))
        connection = self._caller.connection
        try:
            request = connection.post(make)
        except BaseException as error:
            self._room.leave(size_bytes)
            if isinstance(error, FrameTooLarge):
                return None
            raise
        request.then = partial(self._room.leave, size_bytes)
        return partial(connection.withdraw, request)

    def _arguments_of(self, call: calls.Call) -> bytes:
        """Return the arguments of a call. Raise TooLarge if the worker would not take them."""
        what = f"arguments of {call.method}"
        arguments = json_bytes(call, what)
        most = self.arguments_bytes_max
        if most is not None and len(arguments) > most:
            raise TooLarge(what, len(arguments), most)
        return arguments

    async def _list(self, call: calls.ListCall) -> list[Any]:
        try:
            found: list[Any] = await self._call(call)
        except TooLarge:
            found = await self._list_in_parts(call)
        return found

    async def _list_in_parts(self, call: calls.ListCall) -> list[Any]:
        """Request a list in parts that fit into a frame. Raises TooLarge for a single record that does not."""
        found: dict[str, Any] = {}
        read, portion = 0, _PORTION_RECORDS
        while call.limit is None or read < call.limit:
            size = portion if call.limit is None else min(portion, call.limit - read)
            try:
                part = await self._call(msgspec.structs.replace(call, limit=size, offset=call.offset + read))
            except TooLarge:
                if size == 1:
                    raise
                portion = max(1, size // 4)
                continue
            found |= {record.id: record for record in part}
            read += len(part)
            if len(part) < size:
                break
        return list(found.values())


def _frame(method: str, arguments: msgspec.Raw, number: int) -> Workflow:
    return Workflow(request=number, call=method, arguments=arguments, echo=False)
