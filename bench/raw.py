"""Clients of posthouse that write their frames by hand: what the worker can do, with next to nothing around it.

Owns the measuring in these processes. They follow docs/protocol.md and nothing else: a publish frame of several
messages, an ack for each frame that was delivered. The garbage collector is off.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uuid_utils
import zmq

from .messages import Content, Tally, write
from .roles import Answered, Order, Paced, Receiver, Sender, Taken, Wanted
from .wire import ANSWER_SECONDS, Session, WireError, encode

__all__ = ["consume", "decode", "produce"]

_CREDIT = 1000
"""The most that the worker gives."""

_PING_FRACTION = 0.4
_WAKE_MILLISECONDS = 100

_FRAME_MESSAGES_MAX = 1000
"""The most messages that a publish frame may have."""

_FRAMES_OUT_MAX = 1900
"""The most frames without an answer. A worker ends a session for which 4,000 frames are queued
(`socket_frames_max`), and ZeroMQ counts them as taken by halves only: so 2,000 answers at once always have room.
"""

_PACE_SECONDS = 0.0005
"""A sender that is on time looks this often for what has become due."""


class _Delivery(msgspec.Struct, gc=False):
    """One delivered message."""

    seq: int
    body: Content


class _Frame(msgspec.Struct, gc=False):
    """A frame of the worker: the fields that are looked at."""

    op: str
    request: int | None = None
    messages: list[_Delivery] = []
    code: str = ""
    message: str = ""
    errors: list[Any] = []


decode = msgspec.json.Decoder(_Frame).decode
"""Read a frame of deliveries or answers."""


def _quiet() -> None:
    gc.collect()
    gc.freeze()
    gc.disable()


def _recipient(sender: Sender) -> bytes:
    if sender.is_channel:
        return encode({"type": "channel", "name": sender.to})
    return encode({"type": "direct", "bot": sender.to})


# ── Sending ──────────────────────────────────────────────────────────────────────────────────────────────


def produce(pipe: Connection, url: str, senders: Sequence[Sender]) -> None:
    """Hold bots that send. Commands: an `Order` or a `Paced`, each answered with `Answered`."""
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, len(senders) + 64)
        group = [_Outbox(Session(context, url, sender.bot, credit=0), sender) for sender in senders]
        try:
            _quiet()
            pipe.send("ready")
            _Producing(group).run(pipe)
        finally:
            for outbox in group:
                outbox.session.socket.close()


class _Outbox:
    """One sending bot: what it has sent, and what of that is not answered yet."""

    def __init__(self, session: Session, sender: Sender) -> None:
        self.session = session
        self.sent = 0
        self.open = 0
        self.acknowledged = 0
        self._number = sender.number
        self._head = b'","recipient":%b,"body":' % _recipient(sender)
        self._request = 0
        self._frames: dict[int, tuple[int, int]] = {}

    def has_room(self, order: Order) -> bool:
        """Return True if another portion may be sent before anything is answered."""
        return self.open + order.portion <= order.window and len(self._frames) < _FRAMES_OUT_MAX

    def send(self, dues: Sequence[int]) -> None:
        """Send a frame of messages that were due at these times."""
        messages: list[bytes] = []
        for due in dues:
            self.sent += 1
            body = write(self._number, self.sent, due)
            messages.append(b'{"id":"%b%b%b}' % (str(uuid_utils.uuid7()).encode(), self._head, body))
        self._request += 1
        self._frames[self._request] = (time.monotonic_ns(), len(messages))
        self.open += len(messages)
        frame = b'{"op":"publish","request":%d,"messages":[%b]}' % (self._request, b",".join(messages))
        self.session.socket.send(frame, zmq.NOBLOCK)

    def read(self, latencies: array[int]) -> None:
        """Take what was answered, and note how long it took."""
        while (written := self.session.receive()) is not None:
            arrived = time.monotonic_ns()
            frame = decode(written)
            if frame.op == "error" or frame.errors:
                raise WireError(f"a sender was refused: {written.decode()}")
            if frame.op == "published" and frame.request is not None:
                sent_at, count = self._frames.pop(frame.request)
                latencies.append(arrived - sent_at)
                self.open -= count
                self.acknowledged += count


class _Producing:
    def __init__(self, group: Sequence[_Outbox]) -> None:
        self._group = group
        self._poller = zmq.Poller()
        self._by_socket: dict[Any, _Outbox] = {}
        for outbox in group:
            self._poller.register(outbox.session.socket, zmq.POLLIN)
            self._by_socket[outbox.session.socket] = outbox
        self._latencies = array("q")

    def run(self, pipe: Connection) -> None:
        while True:
            while not pipe.poll(self._group[0].session.heartbeat_seconds * _PING_FRACTION):
                for outbox in self._group:
                    outbox.session.ping()
                    outbox.read(self._latencies)
            [order] = pipe.recv()
            pipe.send(self._paced(order) if isinstance(order, Paced) else self._ordered(order))

    def _ordered(self, order: Order) -> Answered:
        return self._measure(lambda began: self._send_all(order, began), array("q"))

    def _paced(self, paced: Paced) -> Answered:
        late = array("q")
        return self._measure(lambda began: self._send_on_time(paced, began, late), late)

    def _measure(self, send: Callable[[int], None], late: array[int]) -> Answered:
        before = [outbox.acknowledged for outbox in self._group]
        self._latencies = array("q")
        began = time.monotonic_ns()
        send(began)
        self._wait_answered()
        return Answered(
            counts=[outbox.acknowledged - count for outbox, count in zip(self._group, before, strict=True)],
            began=began,
            ended=time.monotonic_ns(),
            latencies=self._latencies,
            late=late,
        )

    def _send_all(self, order: Order, began: int) -> None:
        until = began + int((order.seconds or ANSWER_SECONDS * 100) * 1e9)
        most = [outbox.sent + order.count for outbox in self._group]
        while time.monotonic_ns() < until:
            idle = True
            for outbox, end in zip(self._group, most, strict=True):
                while outbox.sent < end and outbox.has_room(order):
                    outbox.send([time.monotonic_ns()] * min(order.portion, end - outbox.sent))
                    outbox.read(self._latencies)
                idle = idle and outbox.sent >= end
            if idle:
                return
            self._read()

    def _send_on_time(self, paced: Paced, began: int, late: array[int]) -> None:
        [outbox] = self._group
        interval = 1e9 / paced.rate
        sent, count = 0, int(paced.rate * paced.seconds)
        while sent < count:
            now = time.monotonic_ns()
            due = min(count, int((now - began) / interval) + 1, sent + _FRAME_MESSAGES_MAX)
            if due > sent:
                moments = [began + int(index * interval) for index in range(sent, due)]
                outbox.send(moments)
                late.append(now - moments[0])
                sent = due
            outbox.read(self._latencies)
            time.sleep(_PACE_SECONDS)

    def _read(self) -> None:
        for socket, _ in self._poller.poll(_WAKE_MILLISECONDS):
            self._by_socket[socket].read(self._latencies)

    def _wait_answered(self) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while missing := sum(outbox.open for outbox in self._group):
            if time.monotonic() > deadline:
                raise WireError(f"{missing} messages are not acknowledged after {ANSWER_SECONDS:g} s")
            self._read()


# ── Receiving ────────────────────────────────────────────────────────────────────────────────────────────


def consume(pipe: Connection, url: str, receivers: Sequence[Receiver]) -> None:
    """Hold bots that receive and ack whatever comes. A `Wanted` is answered with `Taken`."""
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, len(receivers) + 64)
        group = [_Inbox(Session(context, url, receiver.bot, credit=0)) for receiver in receivers]
        try:
            for inbox, receiver in zip(group, receivers, strict=True):
                if receiver.channel is not None:
                    inbox.session.request("subscribe", channel=receiver.channel)
                inbox.session.request("credit", max_in_flight=_CREDIT)
            _quiet()
            pipe.send("ready")
            _Consuming(pipe, group).run()
        finally:
            for inbox in group:
                inbox.session.socket.close()


class _Inbox:
    """One receiving bot."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.tally = Tally()
        self.newest_seq = 0
        self.confirmed = False

    def read(self) -> None:
        """Take what is there, and ack it, frame by frame."""
        while (written := self.session.receive()) is not None:
            arrived = time.monotonic_ns()
            frame = decode(written)
            if frame.op == "deliver":
                seqs = [delivery.seq for delivery in frame.messages]
                self.session.ack(seqs)
                self.newest_seq = seqs[-1]
                self.tally.got((delivery.body for delivery in frame.messages), arrived)
            elif frame.op == "ok":
                self.confirmed = True
            elif frame.op == "error":
                raise WireError(f"{self.session.bot}: {frame.code}: {frame.message}")

    def confirm(self) -> None:
        """Ask to be told when everything that was acked is on disk."""
        self.confirmed = not self.newest_seq
        if self.newest_seq:
            self.session.send(op="ack", seqs=[self.newest_seq], request=1 << 40)


class _Consuming:
    def __init__(self, pipe: Connection, group: Sequence[_Inbox]) -> None:
        self._pipe = pipe
        self._group = group
        self._by_socket: dict[Any, _Inbox] = {inbox.session.socket: inbox for inbox in group}
        self._poller = zmq.Poller()
        self._poller.register(pipe.fileno(), zmq.POLLIN)
        for inbox in group:
            self._poller.register(inbox.session.socket, zmq.POLLIN)
        self._ping_at = 0.0

    def run(self) -> None:
        while True:
            if self._turn():
                [wanted] = self._pipe.recv()
                self._pipe.send(self._take(wanted))

    def _turn(self) -> bool:
        """Wait for something, and receive it; tell whether there is an order."""
        now = time.monotonic()
        if now >= self._ping_at:
            self._ping_at = now + self._group[0].session.heartbeat_seconds * _PING_FRACTION
            for inbox in self._group:
                inbox.session.ping()
        ordered = False
        for socket, _ in self._poller.poll(_WAKE_MILLISECONDS):
            if socket in self._by_socket:
                self._by_socket[socket].read()
            else:
                ordered = True
        return ordered

    def _take(self, wanted: Wanted) -> Taken:
        self._until(wanted.deadline, self._missing(wanted))
        for inbox in self._group:
            inbox.confirm()
        self._until(wanted.deadline, lambda: all(inbox.confirmed for inbox in self._group))
        if not all(inbox.confirmed for inbox in self._group):
            raise WireError("what was acked was not confirmed")
        return Taken.of([inbox.tally for inbox in self._group], time.monotonic_ns())

    def _missing(self, wanted: Wanted) -> Callable[[], bool]:
        waiting = list(zip(self._group, wanted.counts, strict=True))

        def complete() -> bool:
            nonlocal waiting
            waiting = [(inbox, count) for inbox, count in waiting if len(inbox.tally) < count]
            return not waiting

        return complete

    def _until(self, deadline: int, complete: Callable[[], bool]) -> None:
        while not complete() and time.monotonic_ns() < deadline:
            self._turn()
