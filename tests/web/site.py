"""A page of `posthouse web` as a process, at a worker of its own, and what a browser or a program asks it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import anyio

import bus
from bus.web.tickets import Login, LoginLink, Tickets, Token

from ..integration.wire import TIMEOUT_SECONDS
from ..integration.wire_worker import Worker

__all__ = ["Answer", "Site"]

T = TypeVar("T")


class Answer(NamedTuple):
    """What the page answered."""

    status: int
    text: str
    headers: http.client.HTTPMessage


class Site:
    """The process, and a folder for what it keeps."""

    def __init__(self, worker: Worker, folder: Path, *options: str) -> None:
        self.worker = worker
        self.folder = folder
        self.options = options
        self.tickets = Tickets(folder)
        self.origin = ""
        self._log = folder.with_suffix(".log")

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bus", "web", "--port", "0", "--json", "--folder", str(self.folder)]
        addresses = ["--url", self.worker.command, "--tap", self.worker.tap]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, *addresses, *self.options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log()
        self.origin = json.loads(line)["url"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        assert self._process.wait(TIMEOUT_SECONDS) == 0, self.log()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def log(self) -> str:
        """Return what it logged."""
        return self._log.read_text(encoding="utf-8")

    # ── Coming in ────────────────────────────────────────────────────────────────────────────────────────

    def link(self, person: str = "ann", *, read_only: bool = False) -> str:
        """Return a link to log in."""
        times = self.tickets.times(timedelta(minutes=10))
        secret = self.tickets.issue(LoginLink(person=person, read_only=read_only, **times))
        return f"{self.origin}/login?link={secret}"

    def login(self, person: str = "ann", *, read_only: bool = False) -> dict[str, str]:
        """Return the headers of a browser that is logged in."""
        ticket = Login(person=person, read_only=read_only, **self.tickets.times(timedelta(hours=1)))
        secret = self.tickets.issue(ticket)
        return {"Cookie": f"{self.cookie}={secret}", "Origin": self.origin}

    @property
    def cookie(self) -> str:
        """The name of the cookie."""
        return f"posthouse-{''.join(filter(str.isdigit, self.origin))}"

    def token(self, bot: str, *allow: str, **fields: Any) -> dict[str, str]:
        """Return the headers of a program with a token."""
        ticket = Token(label=bot, bot=bot, allow=allow, **self.tickets.times(None), **fields)
        return {"Authorization": f"Bearer {self.tickets.issue(ticket)}"}

    # ── Asking ───────────────────────────────────────────────────────────────────────────────────────────

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection, to be closed."""
        return http.client.HTTPConnection(urlsplit(self.origin).netloc, timeout=TIMEOUT_SECONDS)

    def ask(
        self, path: str, method: str = "GET", body: bytes | str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request, and read all of the answer."""
        with closing(
            http.client.HTTPConnection(urlsplit(self.origin).netloc, timeout=TIMEOUT_SECONDS)
        ) as connection:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, answer.read().decode(), answer.headers)

    def post(self, path: str, fields: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Send a form."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.ask(path, "POST", urlencode(fields, doseq=True), kind | headers)

    def play(self, scene: Callable[[Callable[[str], bus.Bot]], Awaitable[T]]) -> T:
        """Let bots of the worker do something: the scene connects them by their names."""

        async def played() -> T:
            with anyio.fail_after(TIMEOUT_SECONDS):
                return await scene(lambda name: bus.connect(self.worker.command, bot=name, tap_url=self.worker.tap))

        return anyio.run(played)
