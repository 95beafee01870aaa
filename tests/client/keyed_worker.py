"""A fake worker with keys: it does what a test says, to the bots whose keys it knows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self

import zmq

from bus.client.credentials import Credentials, write_credentials
from bus.curve import new_secret, public_of
from bus.wire.keys import public_text, read_secret, secret_text

from .fake_worker import FakeWorker

__all__ = ["KeyedWorker", "credentials"]

_ZAP = "inproc://zeromq.zap.01"
_STOP = "inproc://stop"


def credentials(worker: KeyedWorker, bot: str = "b") -> Credentials:
    """Return credentials with a new key, which the worker does not know yet."""
    return Credentials(url=worker.url, bot=bot, secret=secret_text(new_secret()), worker=worker.public)


class KeyedWorker(FakeWorker):
    """Lets only the keys in `known` in; `status` is what it answers for all others."""

    def __init__(self, secret: bytes | None = None, url: str = "tcp://127.0.0.1:*") -> None:
        self.secret = secret or new_secret()
        self.public = public_text(public_of(self.secret))
        self.known: set[bytes] = set()
        self.status = b"400"
        self.refused = 0
        self._authenticator: threading.Thread
        super().__init__(url)

    def prepare(self, socket: zmq.Socket[bytes]) -> None:
        handler, stop = self.context.socket(zmq.ROUTER), self.context.socket(zmq.PAIR)
        handler.bind(_ZAP)
        stop.bind(_STOP)
        self._authenticator = threading.Thread(target=self._authenticate, args=(handler, stop))
        self._authenticator.start()
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt(zmq.ZAP_DOMAIN, b"test")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        with self.context.socket(zmq.PAIR) as stop:
            stop.connect(_STOP)
            stop.send(b"")
            self._authenticator.join()
        super().__exit__(*ended)

    def know(self, mine: Credentials) -> Credentials:
        """Let these credentials in from now on."""
        self.known.add(public_of(read_secret(mine.secret)))
        return mine

    def file(self, path: Path, bot: str = "b") -> Path:
        """Write a file of credentials that are let in."""
        write_credentials(path, self.know(credentials(self, bot)))
        return path

    def _authenticate(self, handler: zmq.Socket[bytes], stop: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(handler, zmq.POLLIN)
        poller.register(stop, zmq.POLLIN)
        with handler, stop:
            while True:
                ready = dict(poller.poll())
                if stop in ready:
                    return
                *route, version, number, _domain, _address, _id, _mechanism, key = handler.recv_multipart()
                status = b"200" if key in self.known else self.status
                self.refused += status != b"200"
                handler.send_multipart([*route, version, number, status, b"", b"", b""])
