"""What is larger than a frame: requests that are sent in parts, and answers that are read in parts.

Owns beginning again when the worker has forgotten the parts, as in a new session, or has no room for them now. The
request itself may be repeated like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import anyio
import msgspec
import uuid_utils

from ..errors import LimitReached, NotFound, TooLarge
from ..wire.frames import StoredMessage
from ..wire.parts_frames import PartFrame, ReadPart, WholeFrame, part_bytes
from .connection import Connection
from .waiting import AnsweredInParts, FrameTooLarge

__all__ = ["LargeRequests"]

_AGAIN_SECONDS = (0.05, 0.2, 0.5, 1.0)
"""Waits before beginning again; the last one repeats."""


class _PartsLost(Exception):
    """The worker does not have the parts any more."""


class _Data(msgspec.Struct):
    """The value of the answer to `read_part`."""

    data: bytes


class _Answer(msgspec.Struct):
    """What is used of a frame that was read in parts."""

    value: msgspec.Raw


class LargeRequests:
    """See the module. Frames are sent one after another."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = anyio.Lock()

    def __repr__(self) -> str:
        return f"<LargeRequests {self._connection!r}>"

    async def go_on(
        self,
        found: FrameTooLarge | AnsweredInParts,
        make: Callable[[int], msgspec.Struct],
        *,
        settles: Sequence[StoredMessage],
        timeout: float | None,
    ) -> msgspec.Raw:
        """Return the value of the answer to a request that was found to be large; repeat it if that is needed.

        Raises what `Connection.request` raises, and TooLarge for what the worker does not take in parts either.
        """
        large: FrameTooLarge | AnsweredInParts | None = found
        until = math.inf if timeout is None else anyio.current_time() + timeout
        attempt = 0
        while True:
            try:
                if isinstance(large, FrameTooLarge):
                    return await self._send(large, settles, timeout)
                if large is not None:
                    return await self._read(large, timeout)
                return await self._connection.request(make, settles=settles, timeout=timeout)
            except (FrameTooLarge, AnsweredInParts) as again:
                large = again
                continue
            except _PartsLost:
                if anyio.current_time() >= until:
                    raise TimeoutError from None
            except LimitReached as error:
                if type(error) is not LimitReached or anyio.current_time() >= until:
                    raise
            large = None
            await anyio.sleep(_AGAIN_SECONDS[min(attempt, len(_AGAIN_SECONDS) - 1)])
            attempt += 1

    async def _send(
        self, large: FrameTooLarge, settles: Sequence[StoredMessage], timeout: float | None
    ) -> msgspec.Raw:
        """Send a frame in parts, and return the value of the answer to it."""
        frame, welcome = large.frame, self._connection.welcome
        assert welcome is not None, "the frame was compared with its limits"
        if not large.may_be_in_parts or len(frame) > welcome.max_parts_bytes:
            most = max(welcome.max_frame_bytes, welcome.max_parts_bytes if large.may_be_in_parts else 0)
            raise TooLarge("the frame", len(frame), most)
        size = part_bytes(welcome.max_frame_bytes)
        async with self._sending:
            upload = str(uuid_utils.uuid7())
            for offset in range(0, len(frame), size):
                part = PartFrame(
                    request=0, upload=upload, offset=offset, total=len(frame), data=frame[offset : offset + size]
                )
                await self._ask(part, timeout=timeout)
            return await self._ask(WholeFrame(request=0, upload=upload), settles=settles, timeout=timeout)

    async def _read(self, answer: AnsweredInParts, timeout: float | None) -> msgspec.Raw:
        """Return the value of an answer that is read in parts."""
        frame = bytearray()
        while len(frame) < answer.total:
            read = ReadPart(request=0, of=answer.request, offset=len(frame))
            frame += msgspec.json.decode(await self._ask(read, timeout=timeout), type=_Data).data
        return msgspec.json.decode(frame, type=_Answer).value

    async def _ask(
        self, frame: msgspec.Struct, *, settles: Sequence[StoredMessage] = (), timeout: float | None
    ) -> msgspec.Raw:
        """Make a request of one frame. Raise _PartsLost if the worker does not have its parts any more."""
        try:
            return await self._connection.request(
                lambda number: msgspec.structs.replace(frame, request=number), settles=settles, timeout=timeout
            )
        except NotFound as error:
            if (error.details or {}).get("parts") == "unknown":
                raise _PartsLost from None
            raise
