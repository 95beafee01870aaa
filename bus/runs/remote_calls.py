"""How workflow calls are made over a bot's connection.

Owns that a call fits into a frame, and that a list of any length is read in parts if it does not. Unanswered calls
are repeated like any other request.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from ..client.waiting import Make
from ..errors import TooLarge
from ..model.values import json_text
from ..wire import calls as calls
from ..wire.frames import Workflow
from ..wire.limits import FRAME_ROOM_BYTES
from .commits import RemoteCommits

__all__ = ["RemoteCalls"]

_PORTION_RECORDS = 64
"""Records requested at once if not all of them fit into a frame; fewer if these do not either."""


class RemoteCalls(RemoteCommits):
    """See the module."""

    async def _call(self, call: calls.Call) -> Any:
        value = await self._caller.ask(call.method, self._frame_of(call))
        return calls.read_result(call.method, value)

    def _frame_of(self, call: calls.Call) -> Make:
        """Return what makes the frame of a call. Raise TooLarge if the worker would not take it."""
        what = f"arguments of {call.method}"
        arguments = json_text(call, what).encode()
        welcome = self._caller.connection.welcome
        if welcome is not None and len(arguments) > welcome.max_frame_bytes - FRAME_ROOM_BYTES:
            raise TooLarge(what, len(arguments), welcome.max_frame_bytes - FRAME_ROOM_BYTES)
        return partial(_frame, call.method, msgspec.Raw(arguments))

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
    return Workflow(request=number, call=method, arguments=arguments)
