"""What the disk and SQLite allow at all, with nothing around them: one writer, one row or one block at a time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from multiprocessing.connection import Connection

import msgspec

from .loads import Lane, serve

__all__ = ["fdatasync", "sqlite"]


def sqlite(pipe: Connection, path: str) -> None:
    """Commit one row after the other, each synced."""
    connection = sqlite3.connect(path, isolation_level="IMMEDIATE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE steps (id INTEGER PRIMARY KEY, output TEXT NOT NULL)")

    def carry_out(lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            for run in lane:
                while run.more:
                    output = msgspec.json.encode(run()).decode()
                    connection.execute("INSERT INTO steps (output) VALUES (?)", (output,))
                    connection.commit()

    serve(pipe, {}, carry_out)


def fdatasync(pipe: Connection, path: str) -> None:
    """Append one output after the other to a file, each synced."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def carry_out(lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            for run in lane:
                while run.more:
                    os.write(file, msgspec.json.encode(run()) + b"\n")
                    os.fdatasync(file)

    serve(pipe, {}, carry_out)
