"""A bot on the wire, as thin as docs/protocol.md allows: one DEALER, and frames that are written by hand.

Owns one session. It does what a benchmark needs and nothing for its user: no reconnecting, no repeating, no task.
What it costs to receive is a receive and the decoding of four fields, so that what is measured is the worker.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import zmq

__all__ = ["ANSWER_SECONDS", "Delivery", "Frame", "Session", "WireError", "decode", "encode"]

ANSWER_SECONDS = 30.0
"""The longest that an answer may take: far more than a loaded machine needs, and an end all the same."""

_NARROW_BYTES = 128 * 1024
"""What the kernel is to keep for a narrow session: a fixed size, which does not grow while it reads. With less than
a packet of the loopback interface (64 KiB) what was held back may come by the kernel's timers only, for minutes.
"""

encode = msgspec.json.Encoder().encode
"""Write a frame."""


class WireError(Exception):
    """The worker refused something, or did not answer."""


class _Content(msgspec.Struct, gc=False):
    """What a benchmark's message says: its number, from 1, and when it was to be sent, in monotonic nanoseconds."""

    number: int = 0
    due: int = 0


class Delivery(msgspec.Struct, gc=False):
    """One delivered message."""

    seq: int
    body: _Content


class Frame(msgspec.Struct):
    """A frame of the worker: the fields that are looked at."""

    op: str
    request: int | None = None
    messages: list[Delivery] = []
    value: msgspec.Raw = msgspec.Raw(b"null")
    code: str = ""
    message: str = ""
    errors: list[Any] = []
    heartbeat: float = 0.0


decode = msgspec.json.Decoder(Frame).decode
"""Read a frame of the worker."""


class Session:
    """A bot's connection and its hello. A narrow one takes so little in advance that what it does not read is left
    to the worker's side.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        url: str,
        bot: str,
        *,
        narrow: bool = False,
        credit: int = 100,
    ) -> None:
        self.bot = bot
        self.heartbeat_seconds = 0.0
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 1 if narrow else 0)
        if narrow:
            self.socket.setsockopt(zmq.RCVBUF, _NARROW_BYTES)
        self._credit = credit
        self._number = 0
        try:
            self.socket.connect(url)
            self.hello()
            self.heartbeat_seconds = self._wait("welcome").heartbeat
        except BaseException:
            self.socket.close()
            raise

    def __repr__(self) -> str:
        return f"<Session of {self.bot!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, **frame: Any) -> None:
        """Send a frame; it waits in memory where the connection does not take it."""
        self.socket.send(encode(frame), zmq.NOBLOCK)

    def receive(self) -> bytes | None:
        """Take the next frame as it came; None where there is none."""
        try:
            return self.socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def hello(self) -> None:
        """Open the session, or another one in its place; `welcome` follows."""
        self.send(op="hello", request=self._next_number(), protocol=1, bot=self.bot, max_in_flight=self._credit)

    def ping(self) -> None:
        """Keep the session."""
        self.send(op="ping")

    def ack(self, seqs: Sequence[int]) -> None:
        """Settle messages."""
        self.socket.send(b'{"op":"ack","seqs":%b}' % encode(seqs), zmq.NOBLOCK)

    def publish(self, messages: Sequence[dict[str, Any]]) -> int:
        """Publish messages in one frame; give the number of the request, which `published` will name."""
        number = self._next_number()
        self.send(op="publish", request=number, messages=messages)
        return number

    def request(self, op: str, **fields: Any) -> Any:
        """Send a request and wait for its answer's value. What comes in between is dropped."""
        self.send(op=op, request=self._next_number(), **fields)
        return msgspec.json.decode(self._wait("ok").value)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _wait(self, op: str) -> Frame:
        deadline = time.monotonic() + ANSWER_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            if self.socket.poll(int(left * 1000) + 1):
                frame = decode(self.socket.recv())
                if frame.op == "error":
                    raise WireError(f"{frame.code}: {frame.message}")
                if frame.op == op and frame.request == self._number:
                    return frame
        raise WireError(f"no {op} for {self.bot!r} within {ANSWER_SECONDS:g} s")
