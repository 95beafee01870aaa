"""Thousands of bots in one process: each is connected, pings, and gets what is sent to it.

Owns the opening of many sessions at once: every hello is sent before the first welcome is waited for. A bot pings
when its last ping was answered, and says hello again where its session was over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import zmq

from .raw import decode
from .wire import WireError, encode

__all__ = ["hold"]

_CONNECT_SECONDS = 300.0
_PING_FRACTION = 0.8
_HEARTBEAT_SECONDS = 5.0
_WAKE_MILLISECONDS = 50
_CREDIT = 10


def hold(pipe: Connection, url: str, bots: Sequence[str]) -> None:
    """Hold bots. Commands: `connect`, answered with when it began and when all were welcome, in monotonic
    nanoseconds; `wait` with a deadline, answered with how many messages each bot got when each has one, or then.
    """
    with zmq.Context() as context:
        context.set(zmq.MAX_SOCKETS, len(bots) + 64)
        holding = _Holding(context, url, bots)
        try:
            pipe.send("ready")
            pipe.recv()
            pipe.send(holding.connect())
            while not pipe.poll():
                holding.turn()
            [_, deadline] = pipe.recv()
            while not all(holding.received) and time.monotonic_ns() < deadline:
                holding.turn()
            pipe.send(holding.received)
            while not pipe.poll():
                holding.turn()
        finally:
            holding.close()


class _Holding:
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], url: str, bots: Sequence[str]) -> None:
        self._url = url
        self._bots = bots
        self._sockets = [context.socket(zmq.DEALER) for _ in bots]
        self._place: dict[Any, int] = {socket: place for place, socket in enumerate(self._sockets)}
        self._poller = zmq.Poller()
        self._welcome: set[int] = set()
        self._pinged: set[int] = set()
        self._ping_at = 0.0
        self.received = [0] * len(bots)

    def connect(self) -> tuple[int, int]:
        began = time.monotonic_ns()
        for bot, socket in zip(self._bots, self._sockets, strict=True):
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._url)
            self._hello(socket, bot)
            self._poller.register(socket, zmq.POLLIN)
        deadline = time.monotonic() + _CONNECT_SECONDS
        while len(self._welcome) < len(self._bots):
            if time.monotonic() > deadline:
                raise WireError(f"{len(self._bots) - len(self._welcome)} bots have no session")
            self.turn()
        return began, time.monotonic_ns()

    def turn(self) -> None:
        """Receive what is there, and ping when it is time."""
        if time.monotonic() > self._ping_at:
            self._ping_at = time.monotonic() + _HEARTBEAT_SECONDS * _PING_FRACTION
            for place in self._welcome - self._pinged:
                self._sockets[place].send(b'{"op":"ping"}', zmq.NOBLOCK)
                self._pinged.add(place)
        for socket, _ in self._poller.poll(_WAKE_MILLISECONDS):
            self._read(socket, self._place[socket])

    def _read(self, socket: Any, place: int) -> None:
        while True:
            try:
                frame = decode(socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            if frame.op == "welcome":
                self._welcome.add(place)
            elif frame.op == "pong":
                self._pinged.discard(place)
            elif frame.op == "deliver":
                self.received[place] += len(frame.messages)
                socket.send(encode({"op": "ack", "seqs": [delivery.seq for delivery in frame.messages]}))
            elif frame.op == "error" and frame.code == "unknown_session":  # it was silent for too long
                self._welcome.discard(place)
                self._pinged.discard(place)
                self._hello(socket, self._bots[place])
            elif frame.op == "error":
                raise WireError(f"{self._bots[place]}: {frame.code}: {frame.message}")

    def _hello(self, socket: Any, bot: str) -> None:
        socket.send(encode({"op": "hello", "request": 1, "protocol": 1, "bot": bot, "max_in_flight": _CREDIT}))

    def close(self) -> None:
        for socket in self._sockets:
            socket.close()
