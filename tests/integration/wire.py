"""A client that knows only the wire: what the tests of docs/protocol.md send, and what they look at.

Owns the smallest blocking client that the page allows, on plain pyzmq and json. It must not import `bus`: these
tests show that the page is enough. Every wait here has an end.
"""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import zmq

__all__ = [
    "BODY_BYTES_MAX",
    "FRAME_BYTES_MAX",
    "ID",
    "MESSAGE_FIELDS",
    "TIME",
    "TIMEOUT_SECONDS",
    "Frame",
    "Message",
    "Served",
    "Session",
    "TapReader",
    "bodies",
    "new_id",
    "publish_frame",
    "seqs_of",
    "to_bot",
    "to_channel",
]

TIMEOUT_SECONDS = 30.0
"""The longest that any one answer may take: far more than a loaded machine needs, and an end all the same."""

FRAME_BYTES_MAX = 1024 * 1024
BODY_BYTES_MAX = 256 * 1024

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
MESSAGE_FIELDS = {
    "seq", "id", "sender_bot_id", "sender_bot_name", "recipient", "message_type", "body", "reply_to",
    "headers", "timestamp",
}  # fmt: skip

_SLICE_SECONDS = 0.2
"""How often a wait looks whether the worker still lives."""

_UPKEEP_SECONDS = 4.0
"""A client that waits says `ping` this often; the worker asks for one every five seconds."""

Frame = dict[str, Any]
Message = dict[str, Any]


# ── What is sent, and what is looked at ──────────────────────────────────────────────────────────────────


def new_id() -> str:
    """Make a UUID of version 7: milliseconds, then randomness."""
    value = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=value))


def to_bot(bot: str, body: Any, **fields: Any) -> Message:
    """A message for one bot, by name."""
    return {"id": new_id(), "recipient": {"type": "direct", "bot": bot}, "body": body, **fields}


def to_channel(channel: str, body: Any, **fields: Any) -> Message:
    """A message for a channel."""
    return {"id": new_id(), "recipient": {"type": "channel", "name": channel}, "body": body, **fields}


def publish_frame(channel: str, *raw_bodies: bytes, request: int = 77) -> bytes:
    """A publish frame with bodies byte for byte."""
    messages = b",".join(
        b'{"id":"%b","recipient":{"type":"channel","name":"%b"},"body":%b}'
        % (new_id().encode(), channel.encode(), raw)
        for raw in raw_bodies
    )
    return b'{"op":"publish","request":%d,"messages":[%b]}' % (request, messages)


def bodies(messages: list[Message]) -> list[Any]:
    """The bodies of messages."""
    return [message["body"] for message in messages]


def seqs_of(messages: list[Message]) -> list[int]:
    """The seqs of messages."""
    return [message["seq"] for message in messages]


# ── The sockets ──────────────────────────────────────────────────────────────────────────────────────────


class Served(Protocol):
    """A worker as its clients see it."""

    command: str
    tap: str

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        """Open a socket that drops what it has left when it is closed."""

    def has_ended(self) -> bool:
        """Tell whether the worker is gone, so that nothing more will be answered."""

    def log_tail(self) -> str:
        """Give the end of what the worker wrote."""


class _Client:
    """A socket with waits that end."""

    def __init__(self, worker: Served, kind: int) -> None:
        self._worker = worker
        self._socket = worker.socket(kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _receive(self, timeout_seconds: float) -> list[bytes] | None:
        """Give the next message's frames, or None when the time is over. Fails where the worker is gone."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            ended = self._worker.has_ended()
            left = deadline - time.monotonic()
            if self._socket.poll(int(1000 * max(0.0, min(left, _SLICE_SECONDS)))):
                return self._socket.recv_multipart()
            if ended:
                raise AssertionError(f"the worker has ended; its log:\n{self._worker.log_tail()}")
            if left <= 0:
                return None
            self._keep_up()

    def _keep_up(self) -> None:
        """Do what a wait must not leave undone."""


class Session(_Client):
    """One connection to the command socket, and the session on it once `hello` was said.

    What arrives while something else is waited for is kept: deliveries in `delivered`, gaps and the like in
    `others`. Nothing is acknowledged by itself.
    """

    def __init__(self, worker: Served) -> None:
        super().__init__(worker, zmq.DEALER)
        self._socket.connect(worker.command)
        self._request = 0
        self._sent_at = time.monotonic()
        self._open = False
        self._unasked_pongs = 0
        self.delivered: deque[Message] = deque()
        self.others: list[Frame] = []
        self.bot_id = ""
        self.raw = b""
        """The bytes of the last frame that was received."""

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────

    def send(self, **frame: Any) -> None:
        """Send one frame."""
        self.send_raw(json.dumps(frame).encode())

    def send_raw(self, *frames: bytes) -> None:
        """Send these bytes as they are."""
        if not self._socket.poll(int(1000 * TIMEOUT_SECONDS), zmq.POLLOUT):
            raise AssertionError(f"nothing can be sent to {self._worker}")
        self._sent_at = time.monotonic()
        self._socket.send_multipart(frames)

    def receive(self, timeout_seconds: float = TIMEOUT_SECONDS) -> Frame:
        """Give the next frame, whatever it is, but for the pongs of the upkeep."""
        frame = self.poll(timeout_seconds)
        if frame is None:
            raise AssertionError(
                f"nothing came for {timeout_seconds} s; the worker's log:\n{self._worker.log_tail()}"
            )
        return frame

    def poll(self, timeout_seconds: float) -> Frame | None:
        """Give the next frame, or None when the time is over."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            received = self._receive(deadline - time.monotonic())
            if received is None:
                return None
            if len(received) != 1:
                raise AssertionError(f"the worker sent {len(received)} frames in one message")
            self.raw = received[0]
            frame = json.loads(self.raw)
            if not isinstance(frame, dict) or "op" not in frame:
                raise AssertionError(f"the worker sent {frame!r}, which is no object with an op")
            if frame["op"] == "pong" and self._unasked_pongs:
                self._unasked_pongs -= 1
                continue
            return frame

    def _keep_up(self) -> None:
        if self._open and time.monotonic() - self._sent_at > _UPKEEP_SECONDS:
            self._unasked_pongs += 1
            self.send(op="ping")

    def receive_until(self, op: str, request: int | None = None) -> Frame:
        """Give the next frame with this op, or the error that came for it; what comes before it is kept.

        An error without a request is taken as the answer: a frame that could not be parsed gets such a one.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            frame = self.receive(max(0.0, deadline - time.monotonic()))
            ours = request is None or frame.get("request") == request
            if (frame["op"] == op and ours) or (frame["op"] == "error" and (ours or "request" not in frame)):
                return frame
            self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        if frame["op"] == "deliver":
            self.delivered.extend(frame["messages"])
        else:
            self.others.append(frame)

    # ── requests ─────────────────────────────────────────────────────────────────────────────────────────

    def request_number(self) -> int:
        """Give a number that this connection has not used."""
        self._request += 1
        return self._request

    def ask(self, op: str, *, answer: str = "ok", **fields: Any) -> Frame:
        """Send a request and give its answer, which may be an error."""
        request = self.request_number()
        self.send(op=op, request=request, **fields)
        return self.receive_until(answer, request)

    def value(self, op: str, **fields: Any) -> Any:
        """Send a request that has to succeed, and give the answer's value."""
        frame = self.ask(op, **fields)
        if frame["op"] != "ok":
            raise AssertionError(f"{op} {fields} was answered {frame}")
        return frame.get("value")

    def code(self, op: str, **fields: Any) -> str:
        """Send a request that has to be refused, and give the error's code."""
        frame = self.ask(op, **fields)
        if frame["op"] != "error":
            raise AssertionError(f"{op} {fields} was answered {frame}")
        return str(frame["code"])

    def hello(self, bot: str, **fields: Any) -> Frame:
        """Open a session that has to be welcome."""
        frame = self.ask("hello", answer="welcome", **{"protocol": 1, "bot": bot, "max_in_flight": 100, **fields})
        if frame["op"] != "welcome":
            raise AssertionError(f"hello as {bot!r} was answered {frame}")
        self.bot_id = frame["bot_id"]
        self._open = True
        return frame

    def goodbye(self) -> None:
        """End the session in order."""
        self.value("goodbye")
        self._open = False

    def ping(self) -> Frame:
        """Make a round trip; what came before the answer is kept."""
        self.send(op="ping")
        return self.receive_until("pong")

    def try_publish(self, *messages: Message) -> Frame:
        """Publish, and give the answer, whatever it is."""
        return self.ask("publish", answer="published", messages=list(messages))

    def publish(self, *messages: Message) -> list[int]:
        """Publish messages that all have to be stored, and give their seqs."""
        frame = self.try_publish(*messages)
        if frame["op"] != "published" or "errors" in frame or None in frame["seqs"]:
            raise AssertionError(f"publish was answered {frame}")
        return [int(seq) for seq in frame["seqs"]]

    def subscribe(self, channel: str, **fields: Any) -> Any:
        """Subscribe, and give the answer's value."""
        return self.value("subscribe", channel=channel, **fields)

    def history(self, **fields: Any) -> list[Message]:
        """Read a conversation back, newest first."""
        return list(self.value("history", **fields)["messages"])

    # ── deliveries ───────────────────────────────────────────────────────────────────────────────────────

    def take(self, count: int) -> list[Message]:
        """Wait for this many deliveries and give them."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self.delivered) < count:
            self._keep(self.receive(max(0.0, deadline - time.monotonic())))
        return [self.delivered.popleft() for _ in range(count)]

    def take_one(self) -> Message:
        """Wait for a delivery and give it."""
        return self.take(1)[0]

    def settle(self, op: str, *seqs: int, **fields: Any) -> None:
        """Settle deliveries and wait until that is on disk."""
        self.value(op, seqs=list(seqs), **fields)

    def waiting_deliveries(self) -> list[Message]:
        """Give what was delivered before the worker answered a ping that is sent now."""
        self.ping()
        found = list(self.delivered)
        self.delivered.clear()
        return found


class TapReader(_Client):
    """A plain SUB on the tap."""

    def __init__(self, worker: Served, channels: Sequence[str], *, heads: Sequence[str] = ()) -> None:
        super().__init__(worker, zmq.SUB)
        self._socket.connect(worker.tap)
        for channel in channels:
            self._socket.subscribe(f"channel/{channel}\0".encode())
        for channel in heads:
            self._socket.subscribe(f"head/{channel}\0".encode())

    def poll(self, timeout_seconds: float) -> tuple[bytes, Message] | None:
        """Give the next topic and message, or None when the time is over."""
        received = self._receive(timeout_seconds)
        if received is None:
            return None
        if len(received) != 2:
            raise AssertionError(f"the tap sent {len(received)} frames in one message")
        return received[0], json.loads(received[1])

    def receive(self) -> tuple[bytes, Message]:
        """Give the next topic and message."""
        received = self.poll(TIMEOUT_SECONDS)
        if received is None:
            raise AssertionError(f"the tap was silent for {TIMEOUT_SECONDS} s")
        return received

    def wait_until_connected(self, sender: Session, channel: str) -> None:
        """Publish on a channel of its own until the tap shows it: no SUB can ask whether it is connected."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            last = sender.publish(to_channel(channel, None))[-1]
            received = self.poll(_SLICE_SECONDS)
            while received is not None:
                if received[1]["seq"] == last:
                    return
                received = self.poll(_SLICE_SECONDS)
        raise AssertionError(f"the tap showed nothing of {channel!r} for {TIMEOUT_SECONDS} s")
