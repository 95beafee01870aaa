"""A channel as a stream of server-sent events, each of which says where to go on after it.

Owns the ids of events: the epoch of the log and the seq. A reader that comes back with the id of another log, which
was restored from a copy for instance, is told so by an event of its own, and goes on where both agree.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.abc
import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from ..bot import Bot
from ..errors import BusError, LogReplaced
from .api_shapes import Replaced, as_read
from .orders import LogPlace
from .site import Website
from .statuses import in_words

__all__ = ["Listening", "beyond", "events"]

_BEAT_SECONDS = 10.0
"""How often a silent stream sends something, so that both ends notice a broken connection."""

_CHECK_SECONDS = 2.0
"""How often a stream looks whether its token is still valid: at most, and at least with each beat."""


async def beyond(bot: Bot, seq: int) -> LogReplaced | None:
    """Return where to go on after a seq without an epoch, if the log has not come so far; otherwise None."""
    status = await bot.status()
    if seq <= status.last_seq:
        return None
    after_seq = status.earlier[-1].through_seq if status.earlier else 0
    return LogReplaced(None, status.epoch, seq=seq, after_seq=after_seq)


async def events(
    channel: str,
    after: LogPlace | None,
    *,
    using: AbstractAsyncContextManager[Bot],
    is_valid: Callable[[], Awaitable[bool]],
    stopping: anyio.Event,
) -> AsyncIterator[bytes]:
    """Yield the messages of a channel after a place, or from now on, until whoever listens may not any more."""
    try:
        async with using as bot:
            fault = None if after is None or after.epoch is not None else await beyond(bot, after.seq)
            epoch, seq = (None, None) if after is None else after
            async with bot.watch(channel, after=seq if fault is None else fault.after_seq, epoch=epoch) as messages:
                yield b"retry: 2000\n\n"  # whoever has read this misses nothing from now on
                if fault is not None:
                    yield _told(fault)
                checked_at = anyio.current_time()
                while not stopping.is_set():
                    if anyio.current_time() - checked_at >= _CHECK_SECONDS:
                        if not await is_valid():
                            return
                        checked_at = anyio.current_time()
                    with anyio.move_on_after(_BEAT_SECONDS) as silence:
                        try:
                            message = as_read(await anext(messages))
                        except LogReplaced as replaced:
                            yield _told(replaced)
                            continue
                    if silence.cancelled_caught:
                        yield b":\n\n"
                    else:
                        id = str(LogPlace(messages.epoch, message.seq)).encode()
                        yield b"id: %b\ndata: %b\n\n" % (id, msgspec.json.encode(message))
    except BusError as error:  # the client connects again, and names the last event that it has
        yield b"event: fault\ndata: %b\n\n" % msgspec.json.encode(in_words(error))


def _told(fault: LogReplaced) -> bytes:
    """Return the event that says that the log is another one; its id is where reading goes on."""
    after = fault.after_seq
    told = Replaced(before=fault.before, epoch=fault.epoch, seq=fault.seq, after=after, message=str(fault))
    id = str(LogPlace(fault.epoch, after)).encode()
    return b"event: replaced\nid: %b\ndata: %b\n\n" % (id, msgspec.json.encode(told))


class Listening(StreamingResponse):
    """The events of a channel, counted while somebody reads them, and ended when the page stops."""

    def __init__(self, site: Website, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them until the reader has gone."""
        self._site.streams += 1
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._stop, tasks)
                await super().__call__(scope, receive, send)
                tasks.cancel_scope.cancel()
        finally:
            self._site.streams -= 1

    async def _stop(self, tasks: anyio.abc.TaskGroup) -> None:
        await self._site.stopping.wait()
        tasks.cancel_scope.cancel()
