"""What the client processes do: hold many subscribed bots, and publish on time.

Owns the measuring: the time of receipt is taken first of all, for every frame that is there, before anything is
decoded or acked. Nothing is summed up here, and the garbage collector is off, so that a client's own pauses are not
taken for the worker's.
"""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import uuid_utils
import zmq

from .wire import ANSWER_SECONDS, Delivery, Frame, Session, WireError, decode

__all__ = ["Received", "publish", "subscribe"]

_PING_FRACTION = 0.4
"""How much of a heartbeat passes between two pings."""

_WAKE_MILLISECONDS = 100
"""How often a subscriber looks at the clock when nothing comes."""

_COARSE_NANOSECONDS = 2_000_000
"""Before this much time is left, a publisher waits with a timer of whole milliseconds."""

Received = tuple[str, "array[int]", "array[int]"]
"""A bot, the numbers that it got, in their order, and after how many nanoseconds each."""

_TEXT = "x" * 200
"""What makes a body as long as a short note."""


def subscribe(pipe: Connection, url: str, channel: str, bots: Sequence[str], narrow: bool) -> None:
    """Hold bots that are subscribed to a channel, and ack whatever comes.

    Commands: `stall` with what is not done any more ("acks" or "reads"); `resume`; `take` with a number and a
    deadline, which is answered with what came (`Received` for each bot) when every bot has that number, or then.
    """
    with zmq.Context() as context:
        group = _Subscribers(pipe, [Session(context, url, bot, narrow=narrow) for bot in bots])
        group.subscribe(channel)
        pipe.send("subscribed")
        gc.freeze()
        gc.disable()
        try:
            group.run()
        finally:
            for member in group.members:
                member.session.socket.close()


class _Member:
    """One subscribed bot, and what it got since it was last asked."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.opening = False
        self.newest = 0
        self.held: list[int] = []
        self.numbers = array("q")
        self.latencies = array("q")

    def got(self, messages: Sequence[Delivery], arrived: int) -> None:
        """Note messages; one without a number is not part of any measurement."""
        for message in messages:
            self.held.append(message.seq)
            if message.body.number:
                self.newest = max(self.newest, message.body.number)
                self.numbers.append(message.body.number)
                self.latencies.append(arrived - message.body.due)

    def take(self) -> Received:
        """Give what was noted, and forget it."""
        taken = (self.session.bot, self.numbers, self.latencies)
        self.numbers, self.latencies = array("q"), array("q")
        return taken


class _Subscribers:
    def __init__(self, pipe: Connection, sessions: Sequence[Session]) -> None:
        self.members = [_Member(session) for session in sessions]
        self._by_socket: dict[Any, _Member] = {member.session.socket: member for member in self.members}
        self._pipe = pipe
        self._poller = zmq.Poller()
        self._poller.register(pipe.fileno(), zmq.POLLIN)
        self._ping_seconds = sessions[0].heartbeat_seconds * _PING_FRACTION
        self._acks = True
        self._wanted: tuple[int, float] | None = None

    def subscribe(self, channel: str) -> None:
        for member in self.members:
            member.session.request("subscribe", channel=channel)
        self._read_sockets(True)

    def run(self) -> None:
        ping_at = 0.0
        while True:
            now = time.monotonic()
            if now >= ping_at:
                ping_at = now + self._ping_seconds
                for member in self.members:
                    member.session.ping()
            ready = dict(self._poller.poll(_WAKE_MILLISECONDS))
            frames = list(self._receive(ready))
            for member, arrived, frame in frames:
                self._carry_out(member, arrived, decode(frame))
            if self._pipe.fileno() in ready:
                self._command(*self._pipe.recv())
            self._answer()

    def _receive(self, ready: Iterable[Any]) -> Iterator[tuple[_Member, int, bytes]]:
        for socket in ready:
            member = self._by_socket.get(socket)
            while member is not None and (frame := member.session.receive()) is not None:
                yield member, time.monotonic_ns(), frame

    def _carry_out(self, member: _Member, arrived: int, frame: Frame) -> None:
        if frame.op == "deliver":
            member.got(frame.messages, arrived)
            if self._acks:
                self._ack(member)
        elif frame.op == "welcome":
            member.opening = False
        elif frame.op == "error":
            if frame.code != "unknown_session":
                raise WireError(f"{member.session.bot}: {frame.code}: {frame.message}")
            if not member.opening:  # the session was over: it stood still for too long
                member.opening = True
                member.session.hello()

    def _ack(self, member: _Member) -> None:
        if member.held:
            member.session.ack(member.held)
            member.held = []

    def _command(self, name: str, *arguments: Any) -> None:
        if name == "take":
            number, deadline = arguments
            self._wanted = number, deadline
            return
        if name == "stall":
            self._acks = False
            if arguments == ("reads",):
                self._read_sockets(False)
        else:
            self._acks = True
            self._read_sockets(True)
            for member in self.members:
                self._ack(member)
        self._pipe.send(name)

    def _read_sockets(self, wanted: bool) -> None:
        for member in self.members:
            self._poller.register(member.session.socket, zmq.POLLIN if wanted else 0)

    def _answer(self) -> None:
        if self._wanted is None:
            return
        number, deadline = self._wanted
        if time.monotonic() > deadline or all(member.newest >= number for member in self.members):
            self._wanted = None
            self._pipe.send([member.take() for member in self.members])


def publish(pipe: Connection, url: str, channel: str) -> None:
    """Be a bot that publishes at given times, whether or not the worker answers (an open loop).

    Commands: `publish` with the first number and the monotonic nanoseconds at which it and its followers are due,
    answered with two arrays of nanoseconds: how late each was sent, and how long after it was due it was answered
    to be on disk; `fill` with a bot, a number of messages and their bytes: direct messages without a number.
    """
    with zmq.Context() as context, Session(context, url, "publisher", credit=0) as session:
        publisher = _Publisher(session, channel)
        gc.freeze()
        gc.disable()
        pipe.send("connected")
        while True:
            if not pipe.poll(session.heartbeat_seconds * _PING_FRACTION):
                session.ping()
                publisher.read()
                continue
            name, *arguments = pipe.recv()
            if name == "fill":
                publisher.fill(*arguments)
                pipe.send(name)
            else:
                pipe.send(publisher.publish(*arguments))


class _Publisher:
    def __init__(self, session: Session, channel: str) -> None:
        self._session = session
        self._recipient = {"type": "channel", "name": channel}
        self._due: dict[int, int] = {}
        self._stored = array("q")

    def publish(self, first: int, due: Sequence[int]) -> tuple[array[int], array[int]]:
        late, self._stored = array("q"), array("q")
        for number, moment in enumerate(due, first):
            self._wait_until(moment)
            body = {"number": number, "due": moment, "text": _TEXT}
            late.append(time.monotonic_ns() - moment)
            self._due[self._send(self._recipient, [body])] = moment
        self._wait_stored()
        return late, self._stored

    def fill(self, bot: str, messages: int, size_bytes: int) -> None:
        for _ in range(messages):
            self._due[self._send({"type": "direct", "bot": bot}, [{"fill": "x" * size_bytes}])] = 0
        self._wait_stored()

    def read(self) -> None:
        """Take what the worker answered."""
        while (frame := self._session.receive()) is not None:
            arrived = time.monotonic_ns()
            answer = decode(frame)
            if answer.op == "error" or answer.errors:
                raise WireError(f"the publisher was refused: {frame.decode()}")
            if answer.op == "published" and answer.request is not None:
                self._stored.append(arrived - self._due.pop(answer.request))

    def _send(self, recipient: dict[str, str], bodies: Sequence[dict[str, Any]]) -> int:
        return self._session.publish(
            [{"id": str(uuid_utils.uuid7()), "recipient": recipient, "body": body} for body in bodies]
        )

    def _wait_until(self, moment: int) -> None:
        while (left := moment - time.monotonic_ns()) > 0:
            if left <= _COARSE_NANOSECONDS:
                time.sleep(left / 1e9)
            elif self._session.socket.poll((left - _COARSE_NANOSECONDS // 2) // 1_000_000):
                self.read()

    def _wait_stored(self) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while self._due:
            if time.monotonic() > deadline:
                raise WireError(f"{len(self._due)} messages are not acknowledged after {ANSWER_SECONDS:g} s")
            if self._session.socket.poll(_WAKE_MILLISECONDS):
                self.read()
