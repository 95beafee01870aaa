"""The load of a soak: bots that publish, receive, ask, leave and come back, at a steady rate and in one thread.

Owns the sessions and the account of what came. What is kept does not grow with the number of messages, so that a
soak may be as long as it likes. Every message carries the number that it has in its stream: one stream for each
channel, and one for the direct messages to each bot.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uuid_utils
import zmq

from .figures import Account, total
from .wire import ANSWER_SECONDS, Session, WireError

__all__ = ["Load", "LoadOptions", "Tally"]

_CHANNELS_A_BOT = 2
"""Of all channels: each message on a channel goes to several bots, and not to all."""

_DIRECT_FRACTION = 0.5
_BODY_BYTES_MAX = 2_000
"""Of a body's text, whose length is random: the database's pages are filled unevenly, as in use."""

_UNANSWERED_FRAMES_MAX = 100
"""Publish frames without an answer at which the load waits: a machine that is busy elsewhere loses no message."""

_TURNS_A_SECOND = 10
_QUESTION_SECONDS = 0.5
_RETURN_SECONDS = 2.0
_HISTORY_MESSAGES = 100


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done."""

    bots: int = 8
    channels: int = 4
    rate: float = 100.0
    seed: int = 1


class Tally:
    """What one bot received of one stream. Its size depends on what is missing, not on what came."""

    def __init__(self) -> None:
        self._through = 0
        self._ahead: set[int] = set()
        self._newest = 0
        self._newest_seq = 0
        self.repeated = 0
        self.out_of_order = 0
        self.doubled = 0
        """Numbers that came under a second seq: the message was stored twice."""

    def __repr__(self) -> str:
        return f"<Tally through={self._through} ahead={len(self._ahead)}>"

    def add(self, number: int, seq: int) -> None:
        """Record one delivery."""
        if number <= self._through or number in self._ahead:
            self.repeated += 1
            self.doubled += seq > self._newest_seq
        else:
            self.out_of_order += number < self._newest
            self._ahead.add(number)
        self._newest = max(self._newest, number)
        self._newest_seq = max(self._newest_seq, seq)
        while self._through + 1 in self._ahead:
            self._through += 1
            self._ahead.remove(self._through)

    def account(self, due: int) -> Account:
        """Return the account of a stream of `due` messages."""
        delivered = self._through + len(self._ahead)
        return Account(due, delivered, due - delivered, self.repeated, self.out_of_order)


class _Body(msgspec.Struct, gc=False):
    stream: str
    number: int
    text: str


class _Delivery(msgspec.Struct, gc=False):
    seq: int
    body: _Body


class _Frame(msgspec.Struct):
    op: str
    request: int | None = None
    messages: list[_Delivery] = []
    errors: list[Any] = []
    code: str = ""
    message: str = ""


_decode = msgspec.json.Decoder(_Frame).decode


class Load:
    """Bots at work on one worker until they are stopped."""

    def __init__(self, url: str, options: LoadOptions) -> None:
        self.published = 0
        self.delivered = 0
        self.returns = 0
        self.questions = 0
        self._options = options
        self._url = url
        self._random = random.Random(options.seed)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._poller = zmq.Poller()
        self._sent: dict[str, int] = {}
        self._unanswered: set[int] = set()
        self._asked: set[int] = set()
        self._bots = [f"bot-{number}" for number in range(options.bots)]
        self._tallies: dict[str, dict[str, Tally]] = {bot: {bot: Tally()} for bot in self._bots}
        self._by_socket: dict[zmq.Socket[bytes], Session] = {}
        self._sender = self._open("sender")
        self._asker = self._open("asker")
        self._members: dict[str, Session] = {}
        for number, bot in enumerate(self._bots):
            self._members[bot] = self._open(bot)
            for offset in range(_CHANNELS_A_BOT):
                channel = f"channel-{(number + offset) % options.channels}"
                self._members[bot].request("subscribe", channel=channel)
                self._tallies[bot][channel] = Tally()

    def __repr__(self) -> str:
        return f"<Load published={self.published} delivered={self.delivered}>"

    def close(self) -> None:
        """Close every connection."""
        for socket in list(self._by_socket):
            self._close(socket)
        self._context.term()

    def run(self, seconds: float, every: float, look: Callable[[float], None]) -> None:
        """Work for so long, and call `look` with the seconds passed every so often; then receive what is left."""
        start = time.monotonic()
        timers = _Timers(start)
        timers.add(1 / _TURNS_A_SECOND, self._publish)
        timers.add(_QUESTION_SECONDS, self._ask)
        timers.add(_RETURN_SECONDS, self._come_back)
        timers.add(self._sender.heartbeat_seconds * 0.4, self._ping)
        timers.add(every, lambda: look(time.monotonic() - start))
        while time.monotonic() < start + seconds:
            self._receive(timers.wait_seconds())
            timers.run()
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline and (self._unanswered or self.account.lost):
            self._receive(0.1)
            self._ping()

    @property
    def account(self) -> Account:
        """The account of all bots and streams."""
        accounts = [
            tally.account(self._sent.get(stream, 0))
            for tallies in self._tallies.values()
            for stream, tally in tallies.items()
        ]
        return total(accounts)

    @property
    def doubled(self) -> int:
        """How many deliveries were of a message that was stored twice."""
        return sum(tally.doubled for tallies in self._tallies.values() for tally in tallies.values())

    # ── What is done in turn ─────────────────────────────────────────────────────────────────────────────

    def _publish(self) -> None:
        if len(self._unanswered) >= _UNANSWERED_FRAMES_MAX:
            return
        count = max(1, round(self._options.rate / _TURNS_A_SECOND))
        self._unanswered.add(self._sender.publish([self._message() for _ in range(count)]))
        self.published += count

    def _message(self) -> dict[str, Any]:
        chance = self._random
        if chance.random() < _DIRECT_FRACTION:
            stream = chance.choice(self._bots)
            recipient = {"type": "direct", "bot": stream}
        else:
            stream = f"channel-{chance.randrange(self._options.channels)}"
            recipient = {"type": "channel", "name": stream}
        number = self._sent[stream] = self._sent.get(stream, 0) + 1
        body = {"stream": stream, "number": number, "text": "x" * chance.randrange(_BODY_BYTES_MAX)}
        return {"id": str(uuid_utils.uuid7()), "recipient": recipient, "body": body}

    def _ask(self) -> None:
        # The answer is received with the others, and dropped.
        channel = f"channel-{self._random.randrange(self._options.channels)}"
        for op, fields in (("history", {"channel": channel, "limit": _HISTORY_MESSAGES}), ("status", {})):
            self.questions += 1
            self._asker.send(op=op, request=self.questions, **fields)

    def _come_back(self) -> None:
        """Let one bot leave, and return on a new connection; half of them say goodbye."""
        bot = self._random.choice(self._bots)
        old = self._members[bot]
        if self._random.random() < 0.5:  # the other half is what a bot does that breaks off
            old.send(op="goodbye", request=0)
            self._receive_until_gone(old)
        self._close(old.socket)
        self._members[bot] = self._open(bot)
        self.returns += 1

    def _receive_until_gone(self, session: Session) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            if session.socket.poll(1_000):
                frame = session.socket.recv()
                self._take(session, frame)
                if b'"op":"ok"' in frame[:20]:
                    return
        raise WireError("a goodbye was not answered")

    def _ping(self) -> None:
        for session in self._by_socket.values():
            session.ping()

    # ── Sessions and frames ──────────────────────────────────────────────────────────────────────────────

    def _open(self, bot: str) -> Session:
        session = Session(self._context, self._url, bot)
        self._by_socket[session.socket] = session
        self._poller.register(session.socket, zmq.POLLIN)
        return session

    def _close(self, socket: zmq.Socket[bytes]) -> None:
        self._poller.unregister(socket)
        del self._by_socket[socket]
        socket.close(1_000)  # what it acked is to arrive

    def _receive(self, seconds: float) -> None:
        for socket, _ in self._poller.poll(max(0, int(seconds * 1000))):
            session = self._by_socket[socket]
            while (raw := session.receive()) is not None:
                self._take(session, raw)

    def _take(self, session: Session, raw: bytes) -> None:
        if session is self._asker:
            return
        frame = _decode(raw)
        if frame.op == "deliver":
            self._deliver(session, frame.messages)
        elif frame.op == "published":
            self._unanswered.discard(frame.request or 0)
            if frame.errors:
                raise WireError(f"a message was refused: {frame.errors[0]}")
        elif frame.op == "error":
            raise WireError(f"{frame.code}: {frame.message}")

    def _deliver(self, session: Session, messages: Sequence[_Delivery]) -> None:
        tallies = self._tallies[session.bot]
        for message in messages:
            tallies[message.body.stream].add(message.body.number, message.seq)
        self.delivered += len(messages)
        session.ack([message.seq for message in messages])


class _Timers:
    """What is due every so often. What is late is done once, not as often as it was missed."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._timers: list[tuple[list[float], float, Callable[[], None]]] = []

    def add(self, every: float, act: Callable[[], None]) -> None:
        self._timers.append(([self._now], every, act))

    def wait_seconds(self) -> float:
        return max(0.0, min(due[0] for due, _, _ in self._timers) - time.monotonic())

    def run(self) -> None:
        for due, every, act in self._timers:
            now = time.monotonic()
            if now >= due[0]:
                due[0] = max(due[0] + every, now)
                act()
