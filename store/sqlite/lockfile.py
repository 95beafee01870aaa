"""The file beside the database: who holds it, and how far it was acknowledged.

Owns `<database>-lock`. It is locked for as long as the store is open, so that a second worker is refused, and
it holds the last seq that was acknowledged, in a place of its own: one flipped bit in the WAL silently ends
SQLite's recovery there, and only this number tells that something is missing.

The mark is written after the commit and before the answer, and it is not synced: it can only lag behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

from ..errors import DatabaseDamaged, DatabaseInUse

__all__ = ["LockFile", "Mark", "read_mark"]

_MARK_BYTES = 128
"""The file's fixed size: a mark of any age overwrites the whole one before it."""


class Mark(msgspec.Struct, frozen=True):
    """What the file says. `epoch` is empty until the database has one."""

    pid: int
    epoch: str
    last_seq: int


def read_mark(path: Path) -> Mark | None:
    """Read the mark beside a database without locking it; None where there is none that can be read."""
    try:
        return msgspec.json.decode(path.read_bytes().strip(b"\n\0 "), type=Mark)
    except (OSError, msgspec.DecodeError):
        return None


class LockFile:
    """An exclusive lock, and the mark inside."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + "-lock")
        self._database = database
        self._file: int | None = None
        self.mark = Mark(os.getpid(), "", 0)

    def __repr__(self) -> str:
        return f"<LockFile {self.path} {'held' if self._file is not None else 'free'} {self.mark}>"

    def acquire(self) -> None:
        """Take the lock at once, or raise DatabaseInUse with the holder's process id."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            mark = read_mark(self.path)
            raise DatabaseInUse(str(self._database), mark.pid if mark else None) from None
        self._file = file
        before = read_mark(self.path)
        self.write(before.epoch if before else "", before.last_seq if before else 0)

    def verify(self, epoch: str | None, last_seq: int) -> None:
        """Raise DatabaseDamaged where the log (None: there is none) ends before what was acknowledged."""
        if epoch is None and self.mark.last_seq:
            raise DatabaseDamaged(
                f"{self._database} is empty, but {self.mark.last_seq} messages were acknowledged in it: "
                f"put it back, or remove {self.path} to begin a new log"
            )
        if self.mark.epoch == epoch and self.mark.last_seq > last_seq:
            raise DatabaseDamaged(
                f"{self._database} ends at message {last_seq}, but {self.mark.last_seq} was acknowledged: "
                f"its end is damaged or it is an old copy; to go on without the rest, remove {self.path}"
            )

    def write(self, epoch: str, last_seq: int) -> None:
        """Note the last acknowledged seq."""
        assert self._file is not None
        self.mark = Mark(os.getpid(), epoch, last_seq)
        os.pwrite(self._file, msgspec.json.encode(self.mark).ljust(_MARK_BYTES - 1) + b"\n", 0)

    def release(self) -> None:
        """Free the lock. The file stays: it belongs to the database."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None
