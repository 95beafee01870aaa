"""A bot's connection to its worker: one session after another, with nothing lost between them.

Owns the socket, the session's upkeep, and all requests that wait for an answer. Its rules:

- Unanswered requests are repeated in every new session, with the same request numbers and message ids: after a
  restart of the worker, after `unknown_session`, and after a silence as long as the session's timeout.
- Every session has its own socket, so that nothing sent for an old one can arrive in a new one; perhaps at another
  worker of the house, which `route` chooses.
- Messages published in one turn of the event loop travel in one frame. They wait here while the window is full.
- Messages that this bot has settled are not delivered to it again, although the worker may resend them.

Runs on asyncio and trio. Callers' tasks only wait here; the work is done in `run`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
import uuid_utils

from ..errors import AddressError, BusError, ClosedError, KeyRefused, WorkerUnavailable, request_error
from ..transport import Break, Port
from ..wire.codec import decode_worker_frame, encode, publish_frame
from ..wire.frames import (
    Closing,
    Code,
    Commit,
    Deliver,
    ErrorFrame,
    Gap,
    Goodbye,
    Hello,
    Hint,
    Ok,
    Ping,
    Pong,
    Published,
    StoredMessage,
    Welcome,
    Workflow,
)
from ..wire.limits import PUBLISH_MESSAGES_MAX
from ..wire.parts_frames import InParts
from .deliveries import Deliveries, of_another_log
from .endpoint import Endpoint
from .forgotten import shared
from .home import Event, Home
from .outbox import Outbox
from .silence import WorkerSilence
from .unsent import Unsent
from .waiting import Awaited, Deadlines, FrameTooLarge, Make, Request, Ticket
from .wakes import Wakes

__all__ = ["Connection"]

_UPKEEP_FRACTION = 0.8
"""The part of a heartbeat interval between two pings: the rest is for the network and a busy loop."""

_logger = logging.getLogger("posthouse.client")


class Connection:
    """See the module. `run` must be running; everything else may be called from any task of the same loop."""

    def __init__(
        self,
        home: Home,
        endpoint: Endpoint,
        hello: Callable[[int], Hello],
        *,
        deliver: Callable[[Sequence[StoredMessage]], None],
        gap: Callable[[Gap], None],
        closed: Callable[[], None],
        beat: Callable[[], None],
    ) -> None:
        self.home = home
        self._endpoint = endpoint
        self._hello = hello
        self._deliver = deliver
        self._gap = gap
        self._closed = closed
        self._beat = beat
        self.welcome: Welcome | None = None
        """The terms of the current session, or else of the last one."""
        self.connected = anyio.Event()
        self.failure: BusError | None = None
        """Why there will be no more sessions, or None."""
        self.refusal: BusError | None = None
        """Why the last attempt to open a session failed; a later one may succeed."""
        self.sessions = 0
        self.heard = 0
        """How many frames came, but for those that only keep a session alive."""
        self._port: Port | None = None
        self._token = ""
        self._open = False
        self._number = 0
        self._requests: dict[int, Request] = {}
        self._deadlines = Deadlines(home)
        self._unsent = Unsent()
        self._in_flight = 0
        self._outbox = Outbox()
        self.deliveries = Deliveries()
        self.wakes = Wakes()
        self._wake: Event = anyio.Event()
        self._lost = anyio.Event()
        self._room = anyio.Event()
        self._silence = WorkerSilence(0.0)
        self._welcomed = anyio.Event()

    def __repr__(self) -> str:
        state = "failed" if self.failure else "open" if self._open else "connecting"
        return f"<Connection {state} requests={len(self._requests)} held={len(self.deliveries.held)}>"

    # ── For callers ──────────────────────────────────────────────────────────────────────────────────────

    async def request(
        self, make: Make, *, once: bool = False, settles: Sequence[StoredMessage] = (), timeout: float | None = None
    ) -> msgspec.Raw:
        """Send a request and return the value of its answer. Raises RequestError if it is refused.

        It is repeated in later sessions until it is answered or TimeoutError is raised. A request that may be sent
        only `once` raises WorkerUnavailable instead. One that `settles` messages raises NotInFlight if the worker
        has another log by then. A frame too large for the worker raises FrameTooLarge at once, because the worker
        could not tell which request it refuses, and an answer larger than a frame raises AnsweredInParts.
        """
        due_at = self.due_at(timeout)
        request = self.post(make, once=once, settles=settles)
        try:
            await self._deadlines.wait(request, due_at)
        finally:
            self._requests.pop(request.number, None)
        if request.error is not None:
            raise request.error
        assert request.value is not None
        return request.value

    def post(self, make: Make, *, once: bool = False, settles: Sequence[StoredMessage] = ()) -> Request:
        """Send a request, and return it. It is repeated like any other, though nobody may wait for it."""
        self._check()
        number = self._next_number()
        frame = make(number)
        request = Request(encode(frame), once=once, settles=settles)
        request.number = number
        if self.welcome is not None and len(request.frame) > self.welcome.max_frame_bytes:
            raise FrameTooLarge(request.frame, isinstance(frame, Commit | Workflow))
        self._requests[number] = request
        self._post(number, request.frame)
        return request

    def withdraw(self, request: Request) -> bool:
        """Withdraw a request that was posted in this turn of the loop; return False if it may have been sent."""
        if not self._outbox.withdraw(request.number):
            return False
        del self._requests[request.number]
        request.finish()
        return True

    async def publish(self, ticket: Ticket, due_at: float) -> None:
        """Publish messages, in order; return when each has its outcome. Waits while the window is full.

        Raises TimeoutError if that takes longer; some messages may have an outcome then.
        """
        entered, count = 0, len(ticket.ids)
        try:
            while entered < count:
                self._check()
                room = self._window - self._in_flight - len(self._unsent)
                if room > 0:
                    start, entered = entered, min(count, entered + room)
                    self._unsent.add(ticket, start, entered)
                    self._wake.set()
                else:
                    self._room = anyio.Event() if self._room.is_set() else self._room
                    with anyio.fail_after(due_at - self.home.now()):
                        await self._room.wait()
            await self._deadlines.wait(ticket, due_at)
        finally:
            ticket.done = True  # what was not sent by now never is

    async def wait(self, awaited: Awaited, due_at: float) -> None:
        """Wait until something is done. Raises TimeoutError if it is not by `due_at`."""
        await self._deadlines.wait(awaited, due_at)

    def due_at(self, timeout: float | None) -> float:
        """Return the time by the loop's clock at which so many seconds are over; None means never."""
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds, 0 or more, or None; not {timeout!r}")
        return math.inf if timeout is None else self.home.now() + timeout

    def send(self, frame: msgspec.Struct) -> None:
        """Send a frame that belongs to this session only and has no answer."""
        self._post(self._next_number(), encode(frame))

    def ack(self, seq: int) -> None:
        """Ack a message, in one frame with the others of this turn of the loop."""
        self._outbox.ack(seq)
        self._wake.set()

    async def goodbye(self) -> None:
        """Send what is left and end the session, even one that is just being opened."""
        if self._open:
            await self.request(lambda number: Goodbye(request=number))
        elif self._port is not None:  # otherwise its hello would open a session without a client
            self._transmit(encode(Goodbye(request=self._next_number())))

    def reconnect(self) -> None:
        """Go on in another session, with what the endpoint has now."""
        self._lost.set()

    def close(self, error: BusError) -> None:
        """Fail all waiting and future calls."""
        self.failure = self.failure or error
        self.home.leave()
        for request in self._requests.values():
            request.fail(self.failure)
        self._unsent.fail(self.failure)
        self.connected.set()
        self._room.set()
        self._lost.set()
        self._closed()

    # ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Keep a session open until cancelled, or until the worker refuses for good.

        When this ends, all waiting calls fail, because nothing would wake them any more.
        """
        self.home.enter()
        self._wake = self.home.event()
        self._token = str(uuid_utils.uuid4())  # here: a process forked before this is another client
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._deadlines.run)
                await self._keep_session()
                tasks.cancel_scope.cancel()
        finally:
            self.close(ClosedError("the connection has ended"))

    async def _keep_session(self) -> None:
        while self.failure is None:
            sessions = self.sessions
            try:
                await self._session()
            except AddressError as error:
                self.close(error)
            if self.failure is None:
                await anyio.sleep(self._endpoint.route.go_on(opened=self.sessions > sessions))

    async def _session(self) -> None:
        """Hold one session, from its hello until it is lost."""
        self._lost, self._welcomed = anyio.Event(), anyio.Event()
        port = self._port = self._endpoint.open_command()
        try:
            self._silence = WorkerSilence(self.home.now())
            self._transmit(encode(self._returning_hello()))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._receive, port)
                tasks.start_soon(self._watch)
                tasks.start_soon(self._break, port)
                tasks.start_soon(self._flush)
                await self._lost.wait()
                tasks.cancel_scope.cancel()
        finally:
            if self._open and self.failure is None:
                _logger.info("the session was lost; reconnecting")
            self._open = False
            self._port = None
            port.close(linger=self.failure is not None)

    def _returning_hello(self) -> Hello:
        """Return a hello that names the messages this bot holds, and proves that it is the same client."""
        hello = msgspec.structs.replace(self._hello(self._next_number()), token=self._token, wakes=True, parts=True)
        if self.welcome is None:
            return hello
        hello = msgspec.structs.replace(hello, epoch=self.welcome.epoch)
        settling = [message for request in self._requests.values() for message in request.settles]
        return self.deliveries.returning(hello, settling, self.welcome.max_frame_bytes)

    def _opened(self, welcome: Welcome) -> None:
        before = self.welcome
        renewed = before is not None and before.epoch != welcome.epoch
        if renewed:
            _logger.warning("the worker has another log than before: epoch %s", welcome.epoch)
            self.deliveries.forget()
        _logger.info("bot %r has session %s of %s", welcome.bot, welcome.session, welcome.worker)
        if before is None and (others := shared(welcome)):
            _logger.warning("%s", others)  # not in later sessions, where a lost one may be counted
        if lost := [seq for seq in welcome.not_held if seq in self.deliveries.held]:
            _logger.warning("%d messages are no longer in flight for this bot: %s", len(lost), lost[:10])
        self.welcome, self.refusal = welcome, None
        self._endpoint.welcomed(welcome.tap)
        self._open = True
        self.sessions += 1
        self._outbox.take()
        for request in list(self._requests.values()):
            if request.once:
                text = "the session ended before this was confirmed: the message may be redelivered"
                request.fail(WorkerUnavailable(text))
            elif request.settles and renewed:
                request.fail(of_another_log())
            else:
                self._transmit(request.frame)
        self.connected.set()
        self.wakes.wake_all()
        self._welcomed.set()
        self._wake.set()

    async def _break(self, port: Port) -> None:
        """Notice a worker that died, whose successor does not know this session, or one that does not let us in."""
        failure, how = None, None
        while failure is None and how is not Break.LOST:
            how = await port.wait_broken()
            failure = await self._endpoint.judge(how)
        if failure is not None:
            # Who was in before waits for its worker, as something else may listen there meanwhile.
            self._turned_away(failure, for_good=self.welcome is None or isinstance(failure, KeyRefused))
        self._lost.set()

    def _turned_away(self, failure: BusError, *, for_good: bool) -> None:
        if for_good:
            self.close(failure)
        elif type(failure) is not type(self.refusal):
            _logger.warning("%s; trying again", failure)
        self.refusal = failure

    async def _watch(self) -> None:
        """Send something at least every heartbeat, extend held messages, and notice silence."""
        while True:
            welcome = self.welcome
            if not self._open or welcome is None:
                with anyio.move_on_after(self._endpoint.route.patience_seconds):
                    await self._welcomed.wait()
                if not self._open:
                    self._lost.set()
                    return
                continue
            silence, several = self._silence, len(self._endpoint.route.urls) > 1
            most = max(0.0, silence.over_at(welcome.session_timeout, several=several) - self.home.now())
            await anyio.sleep(min(most, min(welcome.heartbeat, welcome.ack_wait / 2) * _UPKEEP_FRACTION))
            self._drain()  # what came while the loop was busy
            now = self.home.now()
            if now >= silence.over_at(welcome.session_timeout, several=several):
                _logger.warning("nothing heard from the worker for %.0f s: reconnecting", now - silence.heard_at)
                self._lost.set()
                return
            for frame in (*self.deliveries.upkeep(), Ping()):
                self._transmit(encode(frame))
            silence.asked(now)
            self._drain()
            self._beat()

    # ── Frames out ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def _window(self) -> int:
        return self.welcome.max_publish_in_flight if self.welcome is not None else PUBLISH_MESSAGES_MAX

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        self.home.check()

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _post(self, number: int, frame: bytes) -> None:
        if self._open:
            self._outbox.add(number, frame)
            self._wake.set()

    def _transmit(self, frame: bytes) -> None:
        assert self._port is not None
        if not self._port.send((frame,)):
            self._lost.set()

    async def _flush(self) -> None:
        while True:
            if self._open:
                self._send_all()
                self._drain()
            self._wake = self.home.event()
            if not (self._open and (self._unsent or self._outbox)):
                await self._wake.wait()
            await anyio.lowlevel.checkpoint()

    def _send_all(self) -> None:
        for frame in self._outbox.take():
            self._transmit(frame)
        while self._unsent:
            self._pack()
        self._room.set()

    def _pack(self) -> None:
        """Send as many waiting messages in one publish frame as fit."""
        welcome = self.welcome
        assert welcome is not None, "there is a session"
        parts = self._unsent.pack(messages_max=welcome.max_publish_messages, bytes_max=welcome.max_frame_bytes)
        if parts:
            number = self._next_number()
            payloads = [payload for part in parts for payload in part.payloads]
            self._in_flight += len(payloads)
            request = self._requests[number] = Request(publish_frame(number, payloads), parts)
            self._transmit(request.frame)

    # ── Frames in ────────────────────────────────────────────────────────────────────────────────────────

    async def _receive(self, port: Port) -> None:
        # What a lost session left unread keeps the socket ready: to wait again would end at once, and never be
        # interrupted.
        while not self._lost.is_set():
            self._drain()
            await port.wait()

    def _drain(self) -> None:
        """Read all that the socket has. Also called after every send: sending can consume its readiness."""
        port = self._port
        while port is not None and not self._lost.is_set():
            parts = port.receive()
            if parts is None:
                if not port.has_input:
                    return
                continue
            self._silence.heard(self.home.now())
            frame = decode_worker_frame(parts[0])
            if frame is not None:
                self._take(frame)

    def _take(self, frame: Any) -> None:
        self.heard += not isinstance(frame, Pong)
        match frame:
            case Deliver(messages):
                self._delivered(messages)
            case Published():
                self._published(frame)
            case Ok(request=number) | InParts(request=number):
                if (request := self._requests.pop(number, None)) is not None:
                    request.answer(frame)
            case Welcome():
                self._opened(frame)
            case ErrorFrame():
                self._refused(frame)
            case Gap():
                self._gap(frame)
            case Hint():
                self.wakes.hear(frame)
            case Closing(url=url, tap=tap):
                self._endpoint.sent_on("it was stopped", {"url": url, "tap": tap})
                self._lost.set()

    def _delivered(self, messages: Sequence[StoredMessage]) -> None:
        new, settled = self.deliveries.take(messages)
        for seq in settled:
            self.ack(seq)
        if new:
            self._deliver(new)

    def _published(self, published: Published) -> None:
        request = self._requests.get(published.request)
        if request is None or not request.parts:
            return
        del self._requests[published.request]
        request.settle(published)
        self._leave_window(request)

    def _refused(self, error: ErrorFrame) -> None:
        if error.code == Code.ELSEWHERE:
            self.refusal = self._endpoint.sent_on(error.message, error.details)
        if error.code in (Code.UNKNOWN_SESSION, Code.ELSEWHERE):
            self._lost.set()
            return
        failure = request_error(error.code, error.message, retry=bool(error.retry), details=error.details)
        ended = error.code == Code.REVOKED and error.request is None
        if ended or not self._open:
            if not (ended and self._endpoint.recovered()):
                self._turned_away(failure, for_good=not error.retry)
            self._lost.set()
            return
        if error.request is None:
            _logger.warning("the worker refused a frame: %s", failure)
        elif (request := self._requests.pop(error.request, None)) is not None:  # otherwise nobody waits any more
            request.fail(failure)
            if request.parts:
                self._leave_window(request)

    def _leave_window(self, request: Request) -> None:
        self._in_flight -= sum(part.stop - part.start for part in request.parts)
        self._room.set()
