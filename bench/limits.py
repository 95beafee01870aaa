"""What the parts can do by themselves: SQLite, the disk, and ZeroMQ. Nothing that is made of them can be faster.

Owns these measurements. The rows are those that posthouse writes for one bot's messages to another, in a file that
posthouse's own store has made, with its settings; they are made before the time begins.
"""

from __future__ import annotations

import os
import sqlite3
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio
import uuid_utils
import zmq

from store import open_store

from .figures import latency
from .filling import insert
from .messages import Tally, write
from .processes import QuickClient, data_folder
from .raw import decode
from .workloads import Figures, LostMessages, Scale

__all__ = ["commits", "forwarding", "inserts", "syncs"]

_PRAGMAS = ("synchronous = FULL", "foreign_keys = ON", "cache_size = -16384", "wal_autocheckpoint = 4000")
"""As the store sets them."""

_ROWS_AHEAD = 20_000
"""Rows that are made at once, outside the time that counts."""

_PAGE_BYTES = 4096

_STAMP = "2026-11-23T00:00:00.{:06d}Z"


# ── SQLite ───────────────────────────────────────────────────────────────────────────────────────────────


class _Rows:
    """Makes rows of one sender's messages to one recipient, in order."""

    def __init__(self) -> None:
        self._sender, self._recipient = str(uuid_utils.uuid7()), str(uuid_utils.uuid7())
        self._seq = 0

    def make(self, count: int, batch: int) -> list[list[Any]]:
        """Give batches of rows, each as one flat list of values. A batch has one time."""
        return [
            [value for _ in range(batch) for value in self._row(index)] for index in range(max(1, count // batch))
        ]

    def _row(self, index: int) -> tuple[Any, ...]:
        self._seq += 1
        stamp = _STAMP.format(index)
        body = write(1, self._seq, time.monotonic_ns()).decode()
        ids = (self._seq, str(uuid_utils.uuid7()), self._sender, "writer", "direct", self._recipient)
        return (*ids, None, "message", body, None, "{}", stamp, None, self._seq)


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    with data_folder() as folder:
        path = Path(folder, "limit.db")
        anyio.run(_make_database, path)
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            yield connection
        finally:
            connection.close()


async def _make_database(path: Path) -> None:
    async with open_store(str(path)):
        pass


def _commit(connection: sqlite3.Connection, values: list[Any]) -> int:
    """Insert rows in one transaction; give the nanoseconds that this took."""
    began = time.monotonic_ns()
    connection.execute("BEGIN IMMEDIATE")
    insert(connection, values)
    connection.execute("COMMIT")
    return time.monotonic_ns() - began


def inserts(batch: int) -> Callable[[Scale], Figures]:
    """Give the measurement of transactions of so many rows: rows a second, of the time in the transactions."""

    def measure(scale: Scale) -> Figures:
        rows, stored, spent = _Rows(), 0, 0
        with _database() as connection:
            while spent < scale.seconds * 1e9:
                for values in rows.make(min(scale.messages, _ROWS_AHEAD), batch):
                    spent += _commit(connection, values)
                    stored += batch
            _check(connection, stored)
        return {"rate": stored / spent * 1e9}

    return measure


def commits(scale: Scale) -> Figures:
    """Measure transactions of one row."""
    rows, samples = _Rows(), array("q")
    with _database() as connection:
        until = time.monotonic() + scale.latency_seconds
        while time.monotonic() < until:
            [values] = rows.make(1, 1)
            samples.append(_commit(connection, values))
        _check(connection, len(samples))
    found = latency(samples)
    return {"rate": len(samples) / sum(samples) * 1e9, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms}


def _check(connection: sqlite3.Connection, due: int) -> None:
    [[stored]] = connection.execute("SELECT COUNT(*) FROM bot_messages").fetchall()
    if stored != due:
        raise LostMessages(f"{due} rows were committed, {stored} are there")


# ── The disk ─────────────────────────────────────────────────────────────────────────────────────────────


def syncs(scale: Scale) -> Figures:
    """Measure how long the disk takes to keep a page that was appended."""
    samples = array("q")
    page = os.urandom(_PAGE_BYTES)
    with data_folder() as folder, Path(folder, "pages").open("wb", buffering=0) as file:
        until = time.monotonic() + scale.latency_seconds
        while time.monotonic() < until:
            file.write(page)
            began = time.monotonic_ns()
            os.fdatasync(file.fileno())
            samples.append(time.monotonic_ns() - began)
    found = latency(samples)
    return {"rate": len(samples) / sum(samples) * 1e9, "p50_ms": found.p50_ms, "p99_ms": found.p99_ms}


# ── ZeroMQ ───────────────────────────────────────────────────────────────────────────────────────────────

_READY_SECONDS = 60.0
_FRAMES_AHEAD = 40
_HEAD = b'{"op":"deliver","messages":['


def forwarding(portion: int) -> Callable[[Scale], Figures]:
    """Give the measurement of messages that a ROUTER passes from one DEALER to another, so many in a frame.

    The one that sends waits for answers as a publisher does, and the one that receives reads as a bot does.
    """

    def measure(scale: Scale) -> Figures:
        with QuickClient(_forward) as router:
            url = router.answer(_READY_SECONDS)
            with QuickClient(_drain, url) as receiver, QuickClient(_pour, url, portion) as sender:
                receiver.answer(_READY_SECONDS)
                sender.answer(_READY_SECONDS)
                receiver.tell()
                sent, began = sender.ask(scale.seconds, seconds=scale.seconds + _READY_SECONDS)
                received, ended = receiver.answer(_READY_SECONDS)
        if received != sent:
            raise LostMessages(f"{sent} messages were sent, {received} came")
        return {"rate": received / (ended - began) * 1e9}

    return measure


def _forward(pipe: Connection) -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.bind("tcp://127.0.0.1:*")
        pipe.send(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        receiver = b""
        while True:
            address, frame = socket.recv_multipart()
            if frame == b"receiver":
                receiver = address
                socket.send_multipart((receiver, b"known"))
            else:
                socket.send_multipart((receiver, frame))
                socket.send_multipart((address, b"published"))


def _drain(pipe: Connection, url: str) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.connect(url)
        socket.send(b"receiver")
        socket.recv()  # what comes for a receiver that is not known yet would be dropped
        pipe.send("ready")
        pipe.recv()
        tally = Tally()
        while (frame := socket.recv()) != b"end":
            tally.got([delivery.body for delivery in decode(frame).messages], time.monotonic_ns())
        pipe.send((len(tally), time.monotonic_ns()))
        pipe.recv()


def _pour(pipe: Connection, url: str, portion: int) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.connect(url)
        pipe.send("ready")
        [seconds] = pipe.recv()
        began = time.monotonic_ns()
        until = began + int(seconds * 1e9)
        sent = out = 0
        while time.monotonic_ns() < until or out:
            if out < _FRAMES_AHEAD and time.monotonic_ns() < until:
                messages = [b'{"seq":1,"body":%b}' % write(1, sent + 1 + each, began) for each in range(portion)]
                socket.send(_HEAD + b",".join(messages) + b"]}")
                sent += portion
                out += 1
            else:
                socket.recv()
                out -= 1
        socket.send(b"end")
        pipe.send((sent, began))
        pipe.recv()
