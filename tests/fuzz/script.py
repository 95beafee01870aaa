"""A short play of frames on a core, written as bytes: what the fuzzer invents, and what its corpus keeps.

Owns the language and what must hold. Each line is one event:

    a{"op":"ping"}    a frame from connection a, b or c, as it came from the socket
    .                 the disk answers          -    the disk refuses
    +                 a second passes           *    a minute passes
    !a                nothing can be sent to a connection any more
    ^                 the worker is killed, and starts again

Before it, `a` and `b` have said hello, `a` is subscribed to a channel and has two messages in flight. Whatever the
lines say, each frame is carried out or refused, every frame that is sent can be read by a client, memory is bounded
and what is counted is what there is; and a stranger is served afterwards.

Pure.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from bus.core.core import Core
from bus.core.effects import Ask, Count, Effect, FindStart, Moment, Read, Send, Survey
from bus.errors import InvalidValue
from bus.model.records import timestamp
from bus.model.repository import SurveyRequest
from bus.settings import Delivery, Limits, Settings
from bus.wire.calls import decode_call
from bus.wire.codec import decode_request, decode_worker_frame, encode
from bus.wire.frames import Code, Deliver, Refusal, StoredMessage, WorkerFrame, Workflow

from ..pure.fake_log import FakeLog
from ..pure.promises import Promises
from .mutations import ID

__all__ = ["EVENTS_MAX", "Play", "play"]

STRANGE_ID = "ffffffff-0000-7000-8000-%012x"
"""Ids that no play is likely to hit upon."""

EVENTS_MAX = 200
"""Lines that are played; a longer play says nothing that a shorter one could not."""

SETTINGS = Settings(
    delivery=Delivery(ack_wait_seconds=5.0, max_deliver=3, backoff_seconds=(0.5, 2.0)),
    limits=Limits(
        ready_messages_max=6,
        in_flight_max=5,
        in_flight_default=5,
        batch_messages_max=8,
        batch_bytes_max=10_000,
        held_requests_max=3,
        backlog_messages_max=25,
        scheduled_messages_max=5,
        expected_replies_max=2,
    ),
)
"""Small, so that every bound is reached."""


class Play:
    """One core, its log and its clock. Raises AssertionError where something does not hold."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.refused = 0
        self.taken = 0
        self._now = 100.0
        self._ids = 0
        self._strangers = 0
        self._promises = Promises(self.log, SETTINGS)
        self._core = self._start()
        news = {"type": "channel", "name": "news"}
        messages = [{"id": ID % n, "recipient": news, "body": n} for n in (90, 91)]
        for address, frame in (
            (b"a", {"op": "hello", "request": 1, "protocol": 1, "bot": "a"}),
            (b"b", {"op": "hello", "request": 1, "protocol": 1, "bot": "b"}),
            (b"a", {"op": "subscribe", "request": 2, "channel": "news"}),
            (b"b", {"op": "publish", "request": 2, "messages": messages}),
        ):
            self.frame(address, encode(frame))
            self.commit()
        assert self._core.sessions.get(b"a") is not None
        self._ids = 10**6  # a frame may register a bot by an id: later ones of the worker's own are others

    def __repr__(self) -> str:
        return f"<Play {self._core}>"

    # ── Events ───────────────────────────────────────────────────────────────────────────────────────────

    def line(self, line: bytes) -> None:
        """Carry out one line of a script; what is none is passed over."""
        kind, rest = line[:1], line[1:]
        if kind in (b"a", b"b", b"c"):
            self.frame(kind, rest)
        elif kind == b".":
            self.commit()
        elif kind == b"-":
            self._refuse()
        elif kind in (b"+", b"*"):
            self._pass_time(1.0 if kind == b"+" else 60.0)
        elif kind == b"!":
            self._do(self._core.unreachable(rest[:1], self._moment))
        elif kind == b"^":
            self._core = self._start()
        self._promises.check(self._core)

    def frame(self, address: bytes, raw: bytes) -> list[WorkerFrame]:
        """Take a frame as the broker does; give what is said."""
        try:
            request = decode_request(raw, SETTINGS.limits.frame_bytes_max)
        except Refusal as error:
            self.refused += 1
            return self._do(self._core.reject(address, error, self._moment))
        self.taken += 1
        return self._do(self._core.receive(address, request, self._moment))

    def commit(self) -> list[WorkerFrame]:
        """Let the disk answer until nothing waits for it."""
        said: list[WorkerFrame] = []
        while (batch := self._core.take_batch(self._moment)) is not None:
            said += self._do(self._core.applied(batch, self.log.apply(batch.changes), self._moment))
        return said

    def end(self) -> None:
        """See that a stranger is served, and that what was stored can be taken up by another worker."""
        self.commit()
        for _ in range(2):
            self._serve_a_stranger()
            self._promises.check(self._core)
            self._core = self._start()

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _moment(self) -> Moment:
        return Moment(self._now, timestamp(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self._now - 100)))

    def _start(self) -> Core:
        return Core(self.log.load(), SETTINGS, worker="w", new_id=self._new_id)

    def _new_id(self) -> str:
        self._ids += 1
        return ID % self._ids

    def _refuse(self) -> None:
        batch = self._core.take_batch(self._moment)
        if batch is not None:
            self._do(self._core.failed(batch, Code.STORAGE_FULL, "the disk is full", self._moment))

    def _pass_time(self, seconds: float) -> None:
        for _ in range(5):
            self._now += seconds / 5
            self._do(self._core.tick(self._moment))

    def _do(self, effects: Iterable[Effect]) -> list[WorkerFrame]:
        """Carry effects out as the broker does, with a store that answers at once."""
        said: list[WorkerFrame] = []
        queue = deque(effects)
        while queue:
            effect = queue.popleft()
            match effect:
                case Send(_, frame):
                    said.append(self._read(frame))
                case Read(request):
                    queue.extend(self._core.page_read(request, self.log.read_page(request), self._moment))
                case Count(request):
                    queue.extend(self._core.counted(effect, self.log.backlog(request), self._moment))
                case Survey(SurveyRequest() as request):
                    queue.extend(self._core.surveyed(self.log.survey(request), self._moment))
                case FindStart():
                    queue.extend(self._core.start_found(effect, 0, self._moment))
                case Ask(query=Workflow() as call):
                    self._call(call)
                case _:
                    pass
        return said

    def _read(self, frame: bytes) -> WorkerFrame:
        """Read a frame as clients do, ours and anybody's."""
        json.loads(frame.decode())
        read = decode_worker_frame(frame)
        assert read is not None, frame
        if isinstance(read, Deliver):
            for message in read.messages:
                self._check_delivered(message)
        return read

    def _check_delivered(self, message: StoredMessage) -> None:
        stored = self.log.messages[message.seq]
        assert (message.id, message.body) == (stored.id, json.loads(stored.body))

    def _call(self, call: Workflow) -> None:
        with suppress(InvalidValue):
            decode_call(call)

    def _serve_a_stranger(self) -> None:
        hello = {"op": "hello", "request": 1, "protocol": 1, "bot": "stranger"}
        said = self.frame(b"z", encode(hello)) + self.commit()
        assert any(frame.__class__.__name__ == "Welcome" for frame in said), said
        self._strangers += 1
        message = {
            "id": STRANGE_ID % self._strangers,
            "recipient": {"type": "direct", "bot": "stranger"},
            "body": "served",
        }
        said = self.frame(b"z", encode({"op": "publish", "request": 2, "messages": [message]})) + self.commit()
        delivered = [each for frame in said if isinstance(frame, Deliver) for each in frame.messages]
        assert message["id"] in [each.id for each in delivered], said
        seqs = [each.seq for each in delivered]
        assert self.frame(b"z", encode({"op": "ack", "request": 3, "seqs": seqs})) + self.commit()


def play(script: bytes) -> Play:
    """Play a script to its end."""
    played = Play()
    for line in script.split(b"\n")[:EVENTS_MAX]:
        played.line(line)
    played.end()
    return played
