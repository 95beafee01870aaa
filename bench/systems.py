"""The systems that are compared: how each is started fresh, what it promises, and what its clients run.

Owns what they have in common, and posthouse itself. Those that are not posthouse stand in `peers`.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from . import links, machine, raw, raw_asking, through_bus
from .names import BUS, FRAMES
from .processes import BenchFailed, Client, QuickClient, Server, Worker
from .roles import Receiver, Sender
from .wire import Session

__all__ = [
    "EACH_SECOND",
    "SYNCED",
    "WRITTEN",
    "Posthouse",
    "System",
    "ThroughBus",
    "WithFrames",
    "frame_roles",
    "link_roles",
]

SYNCED = "synced"
WRITTEN = "written, not synced"
EACH_SECOND = "in memory, synced each second"
"""What an acknowledgement may be worth."""

_READY_SECONDS = 60.0

_NEWEST_MESSAGES = 100_000
"""So many are looked at for the size of transactions."""

_TRANSACTIONS = f"""
    SELECT COUNT(*), COUNT(DISTINCT timestamp) FROM bot_messages
    WHERE seq > (SELECT MAX(seq) FROM bot_messages) - {_NEWEST_MESSAGES}"""

Role = Callable[..., None]


class System:
    """A system that was started fresh, and its client processes: a context.

    Subclasses name themselves and what their acknowledgement promises, start the server, and give what the client
    processes run.
    """

    name: str
    promise: str
    batches: str
    """What several messages at once are for its client and its server."""
    window = 4000
    """How many messages one producer may have unanswered, when it is to be fast."""
    portion = 100
    """How many of these are handed to the client at once."""

    left_out: frozenset[str] = frozenset()
    """Workloads that make no sense for this system."""
    only: frozenset[str] | None = None
    """The only workloads for this system; None where it has no such limit."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._server: Server | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._server!r}>"

    def __enter__(self) -> Self:
        try:
            self._server = self._stack.enter_context(self._start())
            self._prepare()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def memory_bytes(self) -> int:
        """What the server's processes hold."""
        assert self._server is not None
        return machine.memory_bytes(self._server.pid)

    @classmethod
    def takes(cls, workload: str) -> bool:
        """Return True if a workload is measured on this system."""
        return workload not in cls.left_out and (cls.only is None or workload in cls.only)

    @classmethod
    def missing(cls) -> str | None:
        """Say why this system cannot be started here; None where it can."""
        return None

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Name the versions of the server and of its client."""
        return {}

    def register(self, bots: Sequence[str]) -> None:
        """Make a place for what is sent to bots that are not there."""
        raise NotImplementedError

    def waiting(self, bot: str) -> int:
        """Count the messages that are stored for a bot and were not delivered."""
        raise NotImplementedError

    def finish(self) -> dict[str, float]:
        """Give what else is worth knowing after a workload. The server may be ended by this."""
        return {}

    def produce(self, senders: Sequence[Sender]) -> Client:
        """Start a process of bots that send."""
        return self._client(*self._roles()["produce"], senders)

    def consume(self, receivers: Sequence[Receiver]) -> Client:
        """Start a process of bots that receive and settle."""
        return self._client(*self._roles()["consume"], receivers)

    def ask(self, senders: Sequence[Sender]) -> Client:
        """Start a process of a bot that asks."""
        return self._client(*self._roles()["ask"], senders)

    def answer(self, receivers: Sequence[Receiver]) -> Client:
        """Start a process of a bot that answers."""
        return self._client(*self._roles()["answer"], receivers)

    def release(self, client: Client) -> None:
        """End a client process before the system ends."""
        client.__exit__(None, None, None)

    def _client(self, work: Role, *arguments: Any) -> Client:
        client = self._stack.enter_context(QuickClient(work, *arguments))
        client.answer(_READY_SECONDS)
        return client

    def _start(self) -> Server:
        raise NotImplementedError

    def _prepare(self) -> None:
        """Do what the server needs before the first client."""

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        """Give what a process of each role runs, with what comes before the bots."""
        raise NotImplementedError


def link_roles(connect: links.Connect, address: str) -> dict[str, tuple[Any, ...]]:
    """Give the roles of a system with an asyncio client."""
    roles = (links.produce, links.consume, links.ask, links.answer)
    return {role.__name__: (role, connect, address) for role in roles}


def frame_roles(url: str) -> dict[str, tuple[Any, ...]]:
    """Give the roles of clients that write posthouse's frames by hand."""
    return {
        "produce": (raw.produce, url),
        "consume": (raw.consume, url),
        "ask": (raw_asking.ask, url),
        "answer": (raw_asking.answer, url),
    }


class Posthouse(System):
    """What posthouse's two kinds of clients have in common."""

    promise = SYNCED
    batches = "a frame: one answer, a commit with all that came meanwhile"

    python = sys.executable
    """The Python in whose environment the worker is installed."""
    reads_todays_files = True
    """Whether the worker can serve a file that today's store has made."""

    def __init__(self, *, profile: Path | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self._profile = profile
        self._folder = folder
        self._first = 0
        self._stored = 0
        self._before = (0.0, 0.0)

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Name the versions of what the worker and its clients run on."""
        names = ("posthouse", "pyzmq", "msgspec", "aiosqlite", "uvloop")
        found = {name: metadata.version(name) for name in names}
        return found | {"libzmq": zmq.zmq_version(), "SQLite": sqlite3.sqlite_version}

    @property
    def worker(self) -> Worker:
        """The worker itself."""
        assert isinstance(self._server, Worker)
        return self._server

    @classmethod
    def start(cls, *, folder: Path | None = None, profile: Path | None = None) -> Worker:
        """Return a worker that starts where its context begins."""
        return Worker(python=cls.python, folder=folder, profile=profile)

    def _start(self) -> Server:
        return self.start(folder=self._folder, profile=self._profile)

    def register(self, bots: Sequence[str]) -> None:
        """Let each bot say hello once, and leave."""
        with zmq.Context() as context:
            for bot in bots:
                with Session(context, self.worker.url, bot, credit=0) as session:
                    session.request("goodbye")

    def waiting(self, bot: str) -> int:
        """Ask the worker for the bot's backlog."""
        with zmq.Context() as context, Session(context, self.worker.url, "observer", credit=0) as session:
            found = session.request("bots")["bots"]
            session.request("goodbye")
        return next(int(each["backlog"]) for each in found if each["name"] == bot)

    def _prepare(self) -> None:
        self._first = self._read("SELECT COALESCE(MAX(seq), 0) FROM bot_messages")[0]
        self._before = machine.processor_seconds(self.worker.pid)

    def finish(self) -> dict[str, float]:
        """End the worker; give how large its transactions were, and the processor time that each message took it.

        That is told apart by thread: the loop's own, and the database's together with ZeroMQ's.
        """
        after = machine.processor_seconds(self.worker.pid)
        self.worker.end()
        messages, batches = self._read(_TRANSACTIONS)
        self._stored = self._read("SELECT MAX(seq) FROM bot_messages")[0] - self._first
        if not self._stored:
            raise BenchFailed("the worker stored nothing")
        # Each of these times is rounded down to a tick, so the difference of an idle thread may be one below zero.
        spent = [max(0.0, now - then) for now, then in zip(after, self._before, strict=True)]
        loop, others = (1e6 * seconds / self._stored for seconds in spent)
        return {"batch_messages": messages / batches, "loop_us": loop, "threads_us": others}

    def _read(self, sql: str) -> tuple[int, ...]:
        """Ask the database itself for one row."""
        with closing(sqlite3.connect(f"file:{self.worker.database}?mode=ro", uri=True)) as connection:
            found: tuple[int, ...] = connection.execute(sql).fetchone()
        return found


class WithFrames(Posthouse):
    """posthouse, and clients that write their frames by hand."""

    name = FRAMES

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return frame_roles(self.worker.url)


class ThroughBus(Posthouse):
    """posthouse, and clients that use its Python package."""

    name = BUS

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return link_roles(through_bus.connect, self.worker.url)
