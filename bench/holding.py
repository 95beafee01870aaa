"""Thousands of bots in one process: each is connected, pings, and gets what is sent to it.

Owns the opening of many sessions at once: every hello is sent before the first welcome is waited for. A bot
pings when what it said before was answered, and says hello again when it is not, or when its session was over.
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

_LOOK_SECONDS = 4.0
"""How often a bot pings: a little sooner than the worker asks for."""

_AGAIN_SECONDS = 12.0
"""After this long without an answer a bot says hello again: a connection may have been lost, and what was on it."""

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


class _Bot:
    """One bot: whether it has a session, and since when it waits for an answer."""

    __slots__ = ("asked_at", "received", "socket", "welcome")

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.welcome = False
        self.asked_at = 0.0
        """When it said hello or ping and was not answered since; 0 where it was."""
        self.received = 0


class _Holding:
    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], url: str, names: Sequence[str]) -> None:
        self._url = url
        self._bots = {name: _Bot(context.socket(zmq.DEALER)) for name in names}
        self._by_socket: dict[Any, str] = {bot.socket: name for name, bot in self._bots.items()}
        self._poller = zmq.Poller()
        self._look_at = 0.0

    @property
    def received(self) -> list[int]:
        return [bot.received for bot in self._bots.values()]

    def connect(self) -> tuple[int, int]:
        began = time.monotonic_ns()
        for name, bot in self._bots.items():
            bot.socket.setsockopt(zmq.LINGER, 0)
            bot.socket.connect(self._url)
            self._poller.register(bot.socket, zmq.POLLIN)
            self._hello(name, bot)
        deadline = time.monotonic() + _CONNECT_SECONDS
        while missing := sum(not bot.welcome for bot in self._bots.values()):
            if time.monotonic() > deadline:
                raise WireError(f"{missing} of {len(self._bots)} bots have no session after {_CONNECT_SECONDS:g} s")
            self.turn()
        return began, time.monotonic_ns()

    def turn(self) -> None:
        """Receive what is there, and keep the sessions when it is time."""
        now = time.monotonic()
        if now > self._look_at:
            self._look_at = now + _LOOK_SECONDS
            for name, bot in self._bots.items():
                if bot.asked_at and now - bot.asked_at > _AGAIN_SECONDS:
                    self._hello(name, bot)
                elif not bot.asked_at:
                    bot.asked_at = now
                    bot.socket.send(b'{"op":"ping"}', zmq.NOBLOCK)
        for socket, _ in self._poller.poll(_WAKE_MILLISECONDS):
            name = self._by_socket[socket]
            self._read(name, self._bots[name])

    def _read(self, name: str, bot: _Bot) -> None:
        while True:
            try:
                frame = decode(bot.socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            bot.asked_at = 0.0
            if frame.op == "welcome":
                bot.welcome = True
            elif frame.op == "deliver":
                bot.received += len(frame.messages)
                seqs = [delivery.seq for delivery in frame.messages]
                bot.socket.send(encode({"op": "ack", "seqs": seqs}), zmq.NOBLOCK)
            elif frame.op == "error" and frame.code == "unknown_session":  # it was silent for too long
                self._hello(name, bot)
            elif frame.op == "error":
                raise WireError(f"{name}: {frame.code}: {frame.message}")

    def _hello(self, name: str, bot: _Bot) -> None:
        bot.welcome = False
        bot.asked_at = time.monotonic()
        hello = {"op": "hello", "request": 1, "protocol": 1, "bot": name, "max_in_flight": _CREDIT}
        bot.socket.send(encode(hello), zmq.NOBLOCK)

    def close(self) -> None:
        for bot in self._bots.values():
            bot.socket.close()
