"""Watching a channel live without missing anything: live copies from the tap, missed ones from the history.

Owns the SUB socket, and the seq up to which everything was returned. Its rules:

- The tap is never assumed to be complete. A message is taken from it only if its `prev_seq` has been seen; all
  others are read from the history, which has them, because the tap sends only committed messages.
- The tap sends the channel's head periodically, which shows whether the last message was lost.
- A tap that sends no head may not be connected yet, or belong to an older worker. So during silence the head is
  looked up in the history: soon at first, then every two seconds; if heads were sent before, only when they stop.
- A new session may be at another log, with another epoch: then reading goes on where both agree.
- Missed messages are read in pages, oldest first, and at most one page is held.

Runs on asyncio and trio. A cancelled wait loses nothing: the next one continues where it stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType

import anyio
import msgspec

from ..errors import LogReplaced, UnknownChannel, WorkerUnavailable
from ..transport import Port
from ..wire.frames import StoredMessage
from ..wire.topics import Head, channel_topic, head_topic
from .asking import Asking, replaced
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

    "Now" is when the context is entered; with `after`, it begins after that seq, of the log of `epoch` if that is
    given. Watching subscribes to nothing and settles nothing, and the worker keeps nothing for a watcher: read the
    history for what was sent between two watches. While the worker is away the iteration waits; when the bot is
    closed it raises ClosedError. Only one task may iterate at a time.

    If the worker has another log by now, such as a restored copy, in which messages that were returned, or are
    before `after`, are not the same, the iteration raises LogReplaced once. Iterate again to go on after its
    `after_seq`, up to which both logs agree.
    """

    def __init__(
        self,
        channel: str,
        asking: Asking,
        connection: Connection,
        listen: Callable[[], Port],
        *,
        after: int | None = None,
        epoch: str | None = None,
    ) -> None:
        self._channel = channel
        self._after = after
        self._epoch = epoch
        self._asking = asking
        self._connection = connection
        self._open_port = listen
        self._port: Port | None = None
        self._session = 0
        """The session in which this reads; 0 if what was read before may be in another log."""
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

    @property
    def epoch(self) -> str | None:
        """The epoch of the log that the messages are in, as `bot.epoch`."""
        return self._epoch

    async def __aenter__(self) -> Watch:
        if self._port is not None:
            raise RuntimeError("a watch can be entered only once; create another one to watch again")
        self._connection.home.check()
        self._listen()
        try:
            here = self._asking.epoch
            self._wanted = await self._head()
            if self._after is not None and self._epoch not in (None, here):
                self._last, self._session = self._after, 0
            else:
                self._last = self._wanted if self._after is None else await self._reached(self._after)
                self._epoch = here
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
                if self._session != self._connection.sessions:
                    await self._go_on()
                elif self._last < self._wanted:
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
        self._hears_heads, self._silences = False, 0

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
            before = message.prev_seq
            # Before the first message of a channel that was created again there is one that was removed.
            if before is None or before > self._last or (before == 0 and self._last > 0):
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
        self._wanted = max(self._wanted, await self._head())

    async def _go_on(self) -> None:
        """Go on in another session. Raise LogReplaced if its log has other messages up to where this has read."""
        session, epoch = self._connection.sessions, self._asking.epoch
        fault = None
        if epoch != self._epoch and self._epoch is not None:
            fault = await replaced(self._asking, self._epoch, self._last)
        self._wanted = await self._head()
        self._close()
        self._listen()  # ZeroMQ reconnects by itself, except for inproc
        self._session, self._epoch = session, epoch
        if fault is not None:
            self._last, self._epoch = fault.after_seq, fault.epoch
            raise fault

    # ── The history ──────────────────────────────────────────────────────────────────────────────────────

    async def _reached(self, after: int) -> int:
        """Return a seq, or the last one of the log if that is less: whatever comes is after it.

        The channel's own head is not enough: it is not known of one that was removed, and may be created again.
        """
        return after if after <= self._wanted else min(after, (await self._asking.status()).last_seq)

    async def _head(self) -> int:
        try:
            newest = await self._asking.history(channel=self._channel, limit=1)
        except UnknownChannel:
            return 0
        return newest[0].seq if newest else 0

    async def _fill(self) -> None:
        """Read the oldest page of what is missing, and perhaps of what came after it."""
        try:
            page = await self._asking.history(
                channel=self._channel, after_seq=self._last, limit=_PAGE_MESSAGES, epoch=self._epoch
            )
        except LogReplaced:
            self._session = 0
            return
        except UnknownChannel:  # it was removed; if it is created again, its next message says what is missing
            self._wanted = self._last
            return
        self._ready.extend(page)
        if page:
            self._last = page[-1].seq
        if len(page) < _PAGE_MESSAGES:  # there was no more when this was read
            self._last = max(self._last, self._wanted)
