"""posthouse while it is watched: metrics are scraped each second, and a bot follows `posthouse.events`.

Owns who watches, which is a process of its own. Beside posthouse without it, in the same round, this shows what
watching costs the hot path: `make bench OPTIONS="--quick --watched"`.
"""

from __future__ import annotations

import socket
import urllib.request
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmq

from .names import WATCHED
from .processes import Server, Worker
from .systems import Posthouse, frame_roles
from .wire import Session, decode

__all__ = ["Watched"]

_SECONDS = 1.0
_EVENTS = "posthouse.events"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _watch(pipe: Connection, url: str, metrics: str) -> None:
    """Scrape and listen until the pipe is closed, or the worker ends."""
    with zmq.Context() as context, Session(context, url, "watcher") as session:
        session.request("subscribe", channel=_EVENTS)
        _scrape(metrics)
        pipe.send("watching")
        while not pipe.poll(_SECONDS):
            try:
                _scrape(metrics)
            except OSError:
                return
            for frame in iter(session.receive, None):
                told = decode(frame)
                if told.messages:
                    session.ack([message.seq for message in told.messages])
            session.ping()


def _scrape(metrics: str) -> None:
    with urllib.request.urlopen(metrics) as answer:
        answer.read()


class Watched(Posthouse):
    """posthouse with metrics and events on, and clients that write their frames by hand."""

    name = WATCHED

    def __init__(self, *, profile: Path | None = None, folder: Path | None = None) -> None:
        super().__init__(profile=profile, folder=folder)
        self._port = _free_port()

    def _start(self) -> Server:
        settings = f'[listen]\nmetrics = "tcp://127.0.0.1:{self._port}"\n'
        return Worker(settings, folder=self._folder, profile=self._profile)

    def _prepare(self) -> None:
        self._client(_watch, self.worker.url, f"http://127.0.0.1:{self._port}/metrics")
        super()._prepare()

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return frame_roles(self.worker.url)

    @classmethod
    def missing(cls) -> str | None:
        """Return why no metrics can be served here."""
        return None if find_spec("prometheus_client") else "posthouse[metrics] is not installed"
