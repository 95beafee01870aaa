"""The write-ahead log's size: what bounds it, and who is warned when something keeps it from its bounds.

Owns the numbers. What is written goes to the WAL, and back into the database when that has `CHECKPOINT_PAGES`;
then it is written again from its beginning, unless somebody still reads what is in it. Two things prevent that:

- Short readers that overlap, of other programs or of the worker: each is done in a moment, but at every commit one
  of them reads. Where the WAL has outgrown `WAL_KEPT_BYTES` the writer waits for them, once, for up to
  `RESTART_MILLISECONDS`. Whoever begins to read meanwhile reads the newest snapshot, and is not in the way.
- Another program that holds one snapshot for as long as it likes. Meanwhile the WAL grows by all that is written:
  nobody can be refused for that, but the people who run the worker can be told.
"""

from __future__ import annotations

import enum
import os
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from bus.model.repository import StoreWatch

__all__ = [
    "CHECKPOINT_PAGES",
    "RESTART_MILLISECONDS",
    "WAL_KEPT_BYTES",
    "Growth",
    "WalLength",
    "WalWatch",
    "file_bytes",
]

CHECKPOINT_PAGES = 4_000
"""The WAL is copied back when it has this many pages (16 MiB): bounded, and not at every other commit."""

WAL_KEPT_BYTES = 32 * 1024 * 1024
"""What stays of the file when it is written from its beginning again: twice what it needs; the rest goes."""

RESTART_MILLISECONDS = 500
"""How long the writer waits for readers that keep the WAL from its beginning: twice what a short one takes, since
it waits for those that read an older snapshot, and then for those that began meanwhile."""

_RETRY_FACTOR = 1.5
"""How much longer the WAL is when that is tried again after it failed: a backup of a database that grows by a
gibibyte meanwhile costs nine such waits."""

_PAGE_BYTES = 4096

_LOOK_SECONDS = 1.0


async def file_bytes(path: Path) -> int:
    """Return a file's size, or 0 if there is none. It opens nothing, and so works when no descriptor is left."""
    try:
        status = await anyio.to_thread.run_sync(os.stat, path)
    except FileNotFoundError:
        return 0
    return status.st_size


class WalLength(enum.Enum):
    """What there is to do about the WAL after a commit: nothing, copy it back, or wait until it can begin anew."""

    FITS = enum.auto()
    LONGER = enum.auto()
    TOO_LONG = enum.auto()


class Growth:
    """Compares a WAL with what it was before. It is copied back from a length on, and overwritten then."""

    def __init__(self, wal: Path) -> None:
        self._wal = wal
        self._bytes_max = CHECKPOINT_PAGES * _PAGE_BYTES
        self._restart_bytes = WAL_KEPT_BYTES

    def __repr__(self) -> str:
        return f"<Growth {self._wal} bytes_max={self._bytes_max}>"

    def __call__(self) -> WalLength:
        """Look at the file."""
        with suppress(OSError):  # what ails the disk is for the next write to find
            return self.look(os.stat(self._wal).st_size)
        return WalLength.FITS

    def look(self, size_bytes: int) -> WalLength:
        """Return what is to be done about a WAL of this size."""
        before = self._bytes_max
        self._bytes_max = max(CHECKPOINT_PAGES * _PAGE_BYTES, size_bytes)
        if size_bytes <= WAL_KEPT_BYTES:
            self._restart_bytes = WAL_KEPT_BYTES
        elif size_bytes > self._restart_bytes:
            self._restart_bytes = int(size_bytes * _RETRY_FACTOR)
            return WalLength.TOO_LONG
        return WalLength.LONGER if self._bytes_max > before else WalLength.FITS


class WalWatch:
    """Looks at the WAL, and warns when it has `wal_warning_bytes`, and again whenever it has doubled since."""

    def __init__(self, database: Path, watch: StoreWatch) -> None:
        self.path = database.with_name(f"{database.name}-wal")
        self._database = database
        self._watch = watch
        self._next_bytes = watch.wal_warning_bytes
        self._closed = anyio.Event()

    def __repr__(self) -> str:
        return f"<WalWatch {self.path} next={self._next_bytes}>"

    async def run(self) -> None:
        """Look at it until closed."""
        while not self._closed.is_set():
            with suppress(OSError):  # what ails the disk is for the writer to find
                self.look(await file_bytes(self.path))
            with anyio.move_on_after(_LOOK_SECONDS):
                await self._closed.wait()

    def close(self) -> None:
        """Look no more."""
        self._closed.set()

    def look(self, size_bytes: int) -> None:
        """Note how large it is now."""
        if size_bytes < self._watch.wal_warning_bytes:
            self._next_bytes = self._watch.wal_warning_bytes
        elif size_bytes >= self._next_bytes:
            self._next_bytes = 2 * size_bytes
            self._watch.warn(
                f"the WAL {self.path} has {size_bytes / 2**20:.0f} MiB, and grows: another program has been reading"
                f" the database for long; `fuser {self._database}` names it, and the WAL shrinks when it is done"
            )
