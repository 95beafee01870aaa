"""The size of the write-ahead log: what limits it, and the warning when something keeps it from shrinking.

Owns the limits. Changes are written to the WAL, and copied back into the database after about `CHECKPOINT_BYTES`;
then it is overwritten from its beginning, unless it still has readers. Two things prevent that:

- Overlapping short readers, of other programs or of the worker: each is done in a moment, but at every commit one
  is active. If the WAL has outgrown `WAL_KEPT_BYTES`, the writer waits for them, once, for up to
  `RESTART_MILLISECONDS`. Readers that start meanwhile read the newest snapshot and do not prevent it.
- Another program that holds one snapshot for a long time. Meanwhile the WAL grows by everything that is written. No
  write can be refused for that, but operators can be warned.
"""

from __future__ import annotations

import enum
import os
import shutil
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from bus.model.repository import StoreWatch

__all__ = [
    "CHECKPOINT_BYTES",
    "CHECKPOINT_BYTES_MAX",
    "RESTART_MILLISECONDS",
    "WAL_KEPT_BYTES",
    "Growth",
    "WalLength",
    "WalWatch",
    "file_bytes",
    "free_bytes",
]

CHECKPOINT_BYTES = 16 * 1024 * 1024
"""The WAL is checkpointed after about this much: limited, but not at every other commit."""

CHECKPOINT_BYTES_MAX = 24 * 1024 * 1024
"""SQLite itself checkpoints a WAL of this size, within a commit that somebody waits for."""

WAL_KEPT_BYTES = 32 * 1024 * 1024
"""The file is truncated to this when it is overwritten from its beginning: twice what it needs."""

RESTART_MILLISECONDS = 500
"""How long the writer waits for readers that prevent restarting the WAL: twice what a short one takes, because it
waits for those that read an older snapshot, and then for those that began meanwhile."""

_RETRY_FACTOR = 1.5
"""How much the WAL must grow before that is retried after a failure: a backup during which the database grows by a
gibibyte costs nine such waits."""

_LOOK_SECONDS = 1.0


async def file_bytes(path: Path) -> int:
    """Return a file's size, or 0 if it does not exist. Opens nothing, so it works when no descriptor is left."""
    try:
        status = await anyio.to_thread.run_sync(os.stat, path)
    except FileNotFoundError:
        return 0
    return status.st_size


async def free_bytes(folder: Path) -> int | None:
    """Return how much the disk of a folder has free for this user, or None if it does not say."""
    try:
        return (await anyio.to_thread.run_sync(shutil.disk_usage, folder)).free
    except OSError:
        return None


class WalLength(enum.Enum):
    """What to do about the WAL after a commit: nothing, checkpoint it, or wait until it can restart."""

    FITS = enum.auto()
    LONGER = enum.auto()
    TOO_LONG = enum.auto()


class Growth:
    """Compares the WAL's size with the previous one. From a certain size on, it is checkpointed and overwritten."""

    def __init__(self, wal: Path) -> None:
        self._wal = wal
        self._bytes_max = CHECKPOINT_BYTES
        self._restart_bytes = WAL_KEPT_BYTES
        self._written_bytes = 0
        """About what was written since the last checkpoint: an overwritten WAL does not show it by its size."""

    def __repr__(self) -> str:
        return f"<Growth {self._wal} bytes_max={self._bytes_max}>"

    def __call__(self, written_bytes: int) -> WalLength:
        """Check the file's size after about so much was written to it."""
        self._written_bytes += written_bytes
        with suppress(OSError):  # the next write reports disk errors
            return self.look(os.stat(self._wal).st_size)
        return WalLength.FITS

    def look(self, size_bytes: int) -> WalLength:
        """Return what to do about a WAL of this size."""
        before = self._bytes_max
        if self._written_bytes >= CHECKPOINT_BYTES:
            self._written_bytes, before = 0, 0
        self._bytes_max = max(CHECKPOINT_BYTES, size_bytes)
        if size_bytes <= WAL_KEPT_BYTES:
            self._restart_bytes = WAL_KEPT_BYTES
        elif size_bytes > self._restart_bytes:
            self._restart_bytes = int(size_bytes * _RETRY_FACTOR)
            return WalLength.TOO_LONG
        return WalLength.LONGER if self._bytes_max > before else WalLength.FITS


class WalWatch:
    """Warns when the WAL reaches `wal_warning_bytes`, and again whenever it has doubled since."""

    def __init__(self, database: Path, watch: StoreWatch) -> None:
        self.path = database.with_name(f"{database.name}-wal")
        self._database = database
        self._watch = watch
        self._next_bytes = watch.wal_warning_bytes
        self._closed = anyio.Event()

    def __repr__(self) -> str:
        return f"<WalWatch {self.path} next={self._next_bytes}>"

    async def run(self) -> None:
        """Check the size until closed."""
        while not self._closed.is_set():
            with suppress(OSError):  # the writer reports disk errors
                self.look(await file_bytes(self.path))
            with anyio.move_on_after(_LOOK_SECONDS):
                await self._closed.wait()

    def close(self) -> None:
        """Stop checking."""
        self._closed.set()

    def look(self, size_bytes: int) -> None:
        """Note the current size, and warn if needed."""
        if size_bytes < self._watch.wal_warning_bytes:
            self._next_bytes = self._watch.wal_warning_bytes
        elif size_bytes >= self._next_bytes:
            self._next_bytes = 2 * size_bytes
            self._watch.warn(
                f"the WAL {self.path} has {size_bytes / 2**20:.0f} MiB, and grows: another program has been reading"
                f" the database for a long time; `fuser {self._database}` names it. The WAL shrinks when it is done"
            )
