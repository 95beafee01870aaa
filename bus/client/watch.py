"""Watching a channel live without missing anything: live copies from the tap, missed ones from the history.

Owns the SUB socket, and the seq up to which everything was returned. Its rules:

- The tap is never assumed to be complete. A message is taken from it only if its `prev_seq` has been seen; all
  others are read from the history, which has them, because the tap sends only committed messages.
- The tap sends the channel's head periodically, which shows whether the last message was lost.
- A tap that sends no head may not be connected yet, or belong to an older worker. So during silence the head is
  looked up in the history: soon at first, then every two seconds; if heads were sent before, only when they stop.
- Missed messages are read in pages, oldest first, and at most one page is held.

Runs on asyncio and trio. A cancelled wait loses nothing: the next one continues where it stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType

import anyio
import msgspec

from ..errors import UnknownChannel, WorkerUnavailable
from ..transport import Port
from ..wire.frames import StoredMessage
from ..wire.topics import Head, channel_topic, head_topic
from .asking import Asking
from .connection import Connection

__all__ = ["Watch"]

_QUIET_SECONDS = (0.1, 0.5, 2.0)
"""Lengths of silence before the head is looked up; the last one repeats. A SUB takes a moment to connect."""

_HEADS_QUIET_SECONDS = 3.0
"""The same if the tap sends heads: one and a half times their interval, by the worker's default."""

_PAGE_MESSAGES = 200
"""Missed messages that are read at once: at most 50 MiB of the largest bodies."""


class Watch:
    """Every message of a channel from now on, in seq order, once: `async with bot.watch("news") as messages:`.

    "Now" is when the context is entered; with `after`, it begins after that seq. Watching subscribes to nothing
    and settles nothing, and the worker keeps nothing for a watcher: read the history for what was sent between two
    watches. While the worker is away the iteration waits; when the bot is closed it raises ClosedError. Only one
    task may iterate at a time.
    """

    def __init__(
        self,
        channel: str,
        asking: Asking,
        connection: Connection,
        listen: Callable[[], Port],
        *,
        after: int | None = None,
    ) -> None:
        self._channel = channel
        self._after = after
        self._asking = asking
        self._connection = connection
        self._open_port = listen
        self._port: Port | None = None
        self._session = 0
        self._ready: deque[StoredMessage] = deque()
        self._last = 0
        """Everything up to here is in `_ready`, was returned, or was sent before the watch began."""
        self._wanted = 0
        """If above `_last`, something up to here is missing."""
        self._silences = 0
        self._hears_heads = False
        """Whether the tap sends heads."""

    def __repr__(self) -> str:
        return f"<Watch {self._channel!r} last={self._last} wanted={self._wanted} ready={len(self._ready)}>"

    async def __aenter__(self) -> Watch:
        if self._port is not None:
            raise RuntimeError("a watch can be entered only once; create another one to watch again")
        self._connection.home.check()
        self._listen()
        try:
            self._last = self._wanted = await self._head()
            if self._after is not None:
                self._last = min(self._after, self._wanted)
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> StoredMessage:
        """Wait for the next message of the channel."""
        self._connection.home.check()
        while not self._ready:
            if self._port is None:
                raise RuntimeError("a watch can be iterated only inside its context")
            if self._connection.failure is not None:
                raise self._connection.failure
            try:
                if self._last < self._wanted:
                    await self._fill()
                elif not self._drain(self._port):
                    await self._wait(self._port)
            except WorkerUnavailable:
                continue  # the connection keeps trying
        return self._ready.popleft()

    # ── The tap ──────────────────────────────────────────────────────────────────────────────────────────

    def _listen(self) -> None:
        self._session = self._connection.sessions
        self._port = self._open_port()
        self._port.subscribe(channel_topic(self._channel))
        self._port.subscribe(head_topic(self._channel))
        self._hears_heads = False

    def _close(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None

    def _drain(self, port: Port) -> bool:
        """Read what the tap has, up to the first gap. Return False if it had nothing."""
        heard = False
        while len(self._ready) < _PAGE_MESSAGES and (parts := port.receive()) is not None:
            heard = True
            if parts[0] == head_topic(self._channel):
                self._hears_heads = True
                self._wanted = max(self._wanted, msgspec.json.decode(parts[1], type=Head).seq)
                if self._wanted > self._last:
                    break
                continue
            self._silences = 0
            message = msgspec.json.decode(parts[1], type=StoredMessage)
            if message.seq <= self._last:
                continue
            if message.prev_seq is None or message.prev_seq > self._last:
                self._wanted = message.seq
                break
            self._ready.append(message)
            self._last = self._wanted = message.seq
        return heard

    async def _wait(self, port: Port) -> None:
        """Wait for the tap; if it stays silent, check whether it missed something."""
        silence = _QUIET_SECONDS[min(self._silences, len(_QUIET_SECONDS) - 1)]
        if self._hears_heads:
            silence = _HEADS_QUIET_SECONDS
        with anyio.move_on_after(silence) as quiet:
            if not port.has_input:
                await port.wait()
        if not quiet.cancelled_caught:
            return
        self._silences += 1
        if self._session != self._connection.sessions:
            # The worker may be another one by now. ZeroMQ reconnects by itself, except for inproc.
            self._close()
            self._listen()
            self._silences = 0
        self._wanted = max(self._wanted, await self._head())

    # ── The history ──────────────────────────────────────────────────────────────────────────────────────

    async def _head(self) -> int:
        try:
            newest = await self._asking.history(channel=self._channel, limit=1)
        except UnknownChannel:
            return 0
        return newest[0].seq if newest else 0

    async def _fill(self) -> None:
        """Read the oldest page of what is missing, and perhaps of what came after it."""
        page = await self._asking.history(channel=self._channel, after_seq=self._last, limit=_PAGE_MESSAGES)
        self._ready.extend(page)
        if page:
            self._last = page[-1].seq
        if len(page) < _PAGE_MESSAGES:  # there was no more when this was read
            self._last = max(self._last, self._wanted)
