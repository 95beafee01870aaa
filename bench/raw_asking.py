"""Questions and replies, with frames that are written by hand; see `raw`.

Owns one bot that asks, and one that answers each question with its own body and settles it.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uuid_utils
import zmq

from .messages import write
from .roles import Answered, Order, Receiver, Sender
from .wire import ANSWER_SECONDS, Session, WireError, encode

__all__ = ["answer", "ask"]

_CREDIT = 1000
_WAKE_MILLISECONDS = 1000


class _Delivery(msgspec.Struct, gc=False):
    """One delivered message, with what a reply to it needs."""

    seq: int
    id: str
    sender_bot_id: str
    body: msgspec.Raw
    reply_to: str | None = None


class _Frame(msgspec.Struct, gc=False):
    """A frame of the worker: the fields that are looked at."""

    op: str
    messages: list[_Delivery] = []
    errors: list[Any] = []


_decode = msgspec.json.Decoder(_Frame).decode


def _receive(session: Session) -> Sequence[_Delivery] | None:
    """Take a frame's messages; None where there is no frame."""
    written = session.receive()
    if written is None:
        return None
    frame = _decode(written)
    if frame.op == "error" or frame.errors:
        raise WireError(f"{session.bot} was refused: {written.decode()}")
    return frame.messages


def answer(pipe: Connection, url: str, receivers: Sequence[Receiver]) -> None:
    """Be a bot that answers every question with its own body."""
    [receiver] = receivers
    with zmq.Context() as context, Session(context, url, receiver.bot, credit=_CREDIT) as session:
        pipe.send("ready")
        while True:
            if not session.socket.poll(_WAKE_MILLISECONDS):
                session.ping()
            questions: list[_Delivery] = []
            while (found := _receive(session)) is not None:
                questions.extend(found)
            if questions:
                replies = [
                    b'{"id":"%b","recipient":{"type":"direct","bot_id":"%b"},"reply_to":"%b","body":%b}'
                    % (_id(), question.sender_bot_id.encode(), question.id.encode(), question.body)
                    for question in questions
                ]
                session.socket.send(b'{"op":"publish","request":1,"messages":[%b]}' % b",".join(replies))
                session.ack([question.seq for question in questions])


def ask(pipe: Connection, url: str, senders: Sequence[Sender]) -> None:
    """Be a bot that asks. An `Order` is answered with `Answered`: a question counts when its reply is acked."""
    [sender] = senders
    with zmq.Context() as context, Session(context, url, sender.bot, credit=_CREDIT) as session:
        pipe.send("ready")
        asker = _Asker(session, sender)
        while True:
            if pipe.poll(1):
                [order] = pipe.recv()
                pipe.send(asker.ask(order))
            else:
                session.ping()


class _Asker:
    def __init__(self, session: Session, sender: Sender) -> None:
        self._session = session
        self._sender = sender
        self._recipient = encode({"type": "direct", "bot": sender.to})
        self._asked: dict[str, int] = {}
        self._count = 0
        self._latencies = array("q")

    def ask(self, order: Order) -> Answered:
        self._latencies = array("q")
        began = time.monotonic_ns()
        until = began + int((order.seconds or ANSWER_SECONDS * 100) * 1e9)
        asked = 0
        while asked < order.count and time.monotonic_ns() < until:
            room = min(order.window - len(self._asked), order.count - asked)
            if room:
                self._ask(room)
                asked += room
            self._read()
        deadline = time.monotonic() + ANSWER_SECONDS
        while self._asked:
            if time.monotonic() > deadline:
                raise WireError(f"{len(self._asked)} questions are not answered after {ANSWER_SECONDS:g} s")
            self._read()
        return Answered(counts=[asked], began=began, ended=time.monotonic_ns(), latencies=self._latencies)

    def _ask(self, questions: int) -> None:
        messages: list[bytes] = []
        now = time.monotonic_ns()
        for _ in range(questions):
            self._count += 1
            id = _id()
            self._asked[id.decode()] = now
            body = write(self._sender.number, self._count, now)
            messages.append(
                b'{"id":"%b","recipient":%b,"expects_reply":true,"body":%b}' % (id, self._recipient, body)
            )
        self._session.socket.send(b'{"op":"publish","request":1,"messages":[%b]}' % b",".join(messages))

    def _read(self) -> None:
        if not self._session.socket.poll(_WAKE_MILLISECONDS):
            self._session.ping()
        while (replies := _receive(self._session)) is not None:
            arrived = time.monotonic_ns()
            for reply in replies:
                asked_at = self._asked.pop(reply.reply_to or "", None)
                if asked_at is not None:
                    self._latencies.append(arrived - asked_at)
            if replies:
                self._session.ack([reply.seq for reply in replies])


def _id() -> bytes:
    return str(uuid_utils.uuid7()).encode()
