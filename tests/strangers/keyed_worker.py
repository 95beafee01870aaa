"""A worker with keys as a process, and connections to it with a key of one's choice."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zmq

from bus.client.credentials import Credentials, write_credentials
from bus.curve import CurveKeys, new_secret, public_of, secure
from bus.wire.keys import public_text, secret_text
from bus.worker_key import find_admin_file, find_key_file, open_worker_key

from ..crash.nursery import ForkedWorker, Nursery
from ..integration.wire import TIMEOUT_SECONDS, Session, TapReader

__all__ = ["Bearer", "KeyedWorker"]

CONFIGURATION = '[security]\nmode = "keys"\n'


class Bearer:
    """Connects to a worker with a key, as far as its handshakes succeed."""

    def __init__(self, worker: KeyedWorker, secret: bytes | None = None) -> None:
        self._worker = worker
        self.secret = secret or new_secret()
        self.public = public_text(public_of(self.secret))
        self.command, self.tap = worker.command, worker.tap
        self.server = public_of(worker.secret)
        """The key that the worker must have."""

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        opened = self._worker.socket(kind)
        secure(opened, CurveKeys(self.secret, self.server))
        return opened

    def has_ended(self) -> bool:
        return self._worker.has_ended()

    def log_tail(self) -> str:
        return self._worker.log_tail()

    def session(self, bot: str | None = None, **fields: Any) -> Session:
        """Connect, and say hello where a bot is named."""
        return self._worker.keep(Session(self), bot, fields)

    def tap_reader(self, *channels: str) -> TapReader:
        """Connect to the tap."""
        return self._worker.watch(TapReader(self, channels))


class KeyedWorker(ForkedWorker):
    """A worker process with keys. `admin` may manage them."""

    def __init__(self, directory: Path, nursery: Nursery, configuration: str = CONFIGURATION) -> None:
        super().__init__(directory, configuration, nursery)
        self._sockets = ExitStack()
        self.secret = open_worker_key(find_key_file(self.database)).secret
        self.admin = Bearer(self)
        credentials = Credentials(
            url=self.command,
            bot="admin",
            secret=secret_text(self.admin.secret),
            worker=public_text(public_of(self.secret)),
        )
        write_credentials(find_admin_file(self.database), credentials)

    def start(self) -> None:
        """Start the process and wait until it answers its admin."""
        self.launch()
        with Session(self.admin) as probe:
            probe.hello("admin")
            probe.goodbye()  # else its session lasts until the worker sees that the connection broke

    def close(self) -> None:
        """End the process and everything connected to it, even what a failed test left open."""
        self._sockets.close()
        super().close()

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        return self._sockets.enter_context(super().socket(kind))

    def until_logged(self, text: str) -> None:
        """Wait until the log has a text."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while text not in self.log_tail():
            assert time.monotonic() < deadline, self.log_tail()
            time.sleep(0.01)

    def keep(self, session: Session, bot: str | None, fields: dict[str, Any]) -> Session:
        self._clients.append(session)
        if bot is not None:
            session.hello(bot, **fields)
        return session

    def watch(self, reader: TapReader) -> TapReader:
        self._clients.append(reader)
        return reader

    def add(self, bot: str, **fields: Any) -> Bearer:
        """Return a new key, which is that of a bot from now on."""
        bearer = Bearer(self)
        with self.admin.session("admin") as admin:
            admin.value("add_key", bot=bot, public_key=bearer.public, **fields)
        return bearer
