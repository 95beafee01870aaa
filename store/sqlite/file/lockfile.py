"""Who holds a database, how far it was acknowledged, and whether its files are still in place.

Owns the locks, and the mark in `<database>-lock`. The lock that counts is on the database file itself, on a byte
far beyond any that SQLite locks, so that no link or removed file circumvents it. It belongs to the open file and
not to the process, so it is not dropped when SQLite, or anything else here, closes the database. The lock file is
locked too; it names the holder.

The mark holds the last acknowledged seq: one flipped bit in the WAL silently ends SQLite's recovery there, and only
this number shows that something is missing. It is written after the commit and before the answer, and not synced,
so it can only lag behind. It also identifies the file: another file is a copy, whose seqs may have been assigned to
other messages since.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from bus.errors import DatabaseDamaged, DatabaseInUse, DatabaseUnusable, StoreFailed, StoreFailure

from .place import Place, opening_failure

__all__ = ["LockFile", "Mark", "is_continued", "is_held", "read_mark"]

_MARK_BYTES = 256
"""The file's fixed size: a mark always overwrites the whole one before it."""

_LOCKED_BYTE = 1 << 62
"""SQLite locks bytes about 1 GiB (its file format, chapter 1.3.1); no file reaches this one."""

_SQLITE_SHARED = (0x40000002, 510)
"""The bytes that every connection holds a shared lock on, and that it locks exclusively to remove the WAL."""

_held: set[tuple[int, int]] = set()
"""The databases that this process holds: opening and closing one again would drop SQLite's own locks on it."""


class Mark(msgspec.Struct, frozen=True):
    """The contents of the file. `epoch` is empty until the database has one."""

    pid: int
    epoch: str
    last_seq: int
    inode: int = 0
    """Of the database; 0 until it has an epoch."""
    changed_ns: int = 0
    """When the database was last changed, by the file system; 0 while it is open, and after a crash."""
    restoring: str = ""
    """What the names of the old files end with while another database is put in their place."""


def read_mark(path: Path) -> Mark | None:
    """Return the mark beside a database without locking it, or None if it is missing or unreadable."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return msgspec.json.decode(os.pread(file, _MARK_BYTES, 0).strip(b"\n\0 "), type=Mark)
    except (OSError, msgspec.DecodeError):
        return None
    finally:
        os.close(file)


def is_continued(mark: Mark | None, epoch: str, status: os.stat_result) -> bool:
    """Return True if a mark was written for this very file, which has not changed since the worker stopped."""
    return (
        mark is not None
        and mark.epoch == epoch
        and mark.inode == status.st_ino
        and mark.changed_ns in (0, status.st_ctime_ns)
    )


def is_held(path: Path) -> bool:
    """Return True if this process has a database open: it must not open and close it once more."""
    return _key_at(path) in _held


class LockFile:
    """The locks on a database, and the mark. `warn` is called when the lock file had to be recreated."""

    def __init__(self, place: Place, warn: Callable[[str], None] | None = None) -> None:
        self.place = place
        self._warn = warn
        self._file: int | None = None
        self._database: int | None = None
        self._key: tuple[int, int] | None = None
        self._file_key: tuple[int, int] | None = None
        self._opened: dict[Path, tuple[int, int] | None] = {}
        self.mark = Mark(os.getpid(), "", 0)
        self._lock = threading.Lock()  # commits are noted on the database's thread
        self.failure: StoreFailure | None = None
        """Why nothing may be acknowledged any more: the database's files are not in place."""

    def __repr__(self) -> str:
        return f"<LockFile {self.place.lock} {'held' if self._database is not None else 'free'} {self.mark}>"

    # ── Holding ──────────────────────────────────────────────────────────────────────────────────────────

    def acquire(self) -> None:
        """Lock immediately, or raise DatabaseInUse with the holder's process id. Does not create a database."""
        self._file = _open(self.place.lock, os.O_CREAT)
        _refuse_foreign(self._file, self.place.lock)
        self._file_key = _key(os.fstat(self._file))
        if not _flock(self._file):
            raise self._in_use()
        if self.place.database.exists():
            self._hold(0)
            self._note_holder()

    def create(self) -> None:
        """Create an empty database, and lock it."""
        self._hold(os.O_CREAT | os.O_EXCL)
        self._note_holder()

    def verify(self, epoch: str | None, last_seq: int) -> bool:
        """Return True if the log continues as marked, and False if it may be an older copy.

        Raises DatabaseDamaged if the log (None: there is no log) ends before what was acknowledged.
        """
        mark = read_mark(self.place.lock) or Mark(0, "", 0)
        if mark.restoring:
            raise DatabaseDamaged(
                f"the restoration of {self.place.database} was interrupted: run `posthouse restore` again"
            )
        if epoch is None:
            if mark.last_seq:
                raise DatabaseDamaged(
                    f"{self.place.database} is empty, but {mark.last_seq} messages were acknowledged in it: "
                    f"restore it, or remove {self.place.lock} to start a new log"
                )
            return True
        if mark.epoch == epoch and mark.last_seq > last_seq:
            raise DatabaseDamaged(
                f"{self.place.database} ends at message {last_seq}, but {mark.last_seq} was acknowledged: its end"
                f" is damaged or it is an old copy; to go on without the rest, remove {self.place.lock}"
            )
        assert self._database is not None
        return is_continued(mark, epoch, os.fstat(self._database))

    def release(self) -> None:
        """Release the locks. The lock file stays: it belongs to the database."""
        for file in (self._database, self._file):
            if file is not None:
                with contextlib.suppress(OSError):
                    os.close(file)
        if self._key is not None:
            _held.discard(self._key)
        self._database = self._file = self._key = None

    def _hold(self, flags: int) -> None:
        path = self.place.database
        if not flags and _key(path.stat()) in _held:
            raise self._in_use()
        try:
            self._database = _open(path, flags)
            _lock_range(self._database, fcntl.F_WRLCK, (_LOCKED_BYTE, 1))
        except (BlockingIOError, PermissionError, FileExistsError):
            raise self._in_use() from None
        self._key = _key(os.fstat(self._database))
        _held.add(self._key)

    def _in_use(self) -> DatabaseInUse:
        mark = read_mark(self.place.lock)
        return DatabaseInUse(str(self.place.database), mark.pid if mark else None)

    # ── The mark ─────────────────────────────────────────────────────────────────────────────────────────

    def restore(self, suffix: str) -> str:
        """Note durably that the database is being replaced, unless that was noted before; return the suffix."""
        assert self._file is not None
        before = read_mark(self.place.lock) or self.mark
        self._write(msgspec.structs.replace(before, restoring=before.restoring or suffix))
        os.fsync(self._file)
        return self.mark.restoring

    def restored(self) -> None:
        """Note that it was replaced."""
        self._write(msgspec.structs.replace(self.mark, restoring=""))

    def _note_holder(self) -> None:
        before = read_mark(self.place.lock) or self.mark
        self._write(msgspec.structs.replace(before, pid=os.getpid()))

    def begin(self, epoch: str, last_seq: int) -> None:
        """Note durably which log is served, before anything of it is acknowledged."""
        assert self._file is not None
        assert self._key is not None
        self._write(Mark(os.getpid(), epoch, last_seq, self._key[1]))
        # The mark of the last stop must not reappear after a power cut.
        os.fsync(self._file)

    def committed(self, last_seq: int) -> None:
        """After a commit, check that the files are in place, and note the last acknowledged seq."""
        with self._lock:
            self._look_once()
            if last_seq != self.mark.last_seq:
                self._write(msgspec.structs.replace(self.mark, last_seq=last_seq))

    def end(self) -> None:
        """After an orderly end, note when the database was last changed; otherwise only its identity counts."""
        assert self._database is not None
        with contextlib.suppress(OSError):
            changed_ns = os.fstat(self._database).st_ctime_ns
            self._write(msgspec.structs.replace(self.mark, changed_ns=changed_ns))

    def _write(self, mark: Mark) -> None:
        assert self._file is not None
        self.mark = mark
        os.pwrite(self._file, msgspec.json.encode(mark).ljust(_MARK_BYTES - 1) + b"\n", 0)

    # ── The files ────────────────────────────────────────────────────────────────────────────────────────

    def note_files(self) -> None:
        """Note which files are open, once SQLite has opened them all."""
        assert self._key is not None
        self._opened = {path: _key_at(path) for path in (self.place.wal, self.place.shm)}
        self._opened[self.place.named] = self._key
        self.look()

    def look(self) -> None:
        """Check that the paths lead to the open files; raise StoreFailed, from then on, if they do not.

        What is written to a removed file is gone when it is closed. The lock file is recreated instead.
        """
        with self._lock:
            self._look_once()

    def _look_once(self) -> None:
        if self.failure is None:
            try:
                self._look()
            except StoreFailure as failure:
                self.failure = failure
        if self.failure is not None:
            raise self.failure

    def _look(self) -> None:
        for path, key in self._opened.items():
            if _key_at(path) != key:
                self._keep_others_wal()
                raise StoreFailed(
                    f"{path} was removed, moved or replaced while it was served; restore the database and the files"
                    " beside it as they were, then start again"
                )
        self._keep_lock_file()

    def _keep_others_wal(self) -> None:
        """Keep SQLite from removing another database's WAL when it closes this one: it goes by the name."""
        wal = self.place.wal
        if self._database is not None and _key_at(wal) not in (None, self._opened[wal]):
            with contextlib.suppress(OSError):
                _lock_range(self._database, fcntl.F_RDLCK, _SQLITE_SHARED)

    def _keep_lock_file(self) -> None:
        path = self.place.lock
        if _key_at(path) == self._file_key:
            return
        file = _open(path, os.O_CREAT)
        # Somebody else's file, or that of another worker, which the database's own lock will refuse.
        if not _is_ours(file) or not _flock(file):
            os.close(file)
            return
        if self._file is not None:
            os.close(self._file)
        self._file, self._file_key = file, _key(os.fstat(file))
        self._write(self.mark)
        if self._warn is not None:
            self._warn(f"{path} was removed or replaced, and was recreated; keep it beside the database")


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o600)
    except FileExistsError:
        raise
    except OSError as error:
        raise opening_failure(path, error) from error


def _refuse_foreign(file: int, path: Path) -> None:
    """Raise DatabaseUnusable for a file that the mark must not overwrite."""
    if not _is_ours(file):
        raise DatabaseUnusable(f"{path} is not a lock file of posthouse: look what it is, and move it away")


def _is_ours(file: int) -> bool:
    """Return True for a file that may have held a mark, even if that is damaged."""
    status = os.fstat(file)
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and status.st_size <= _MARK_BYTES


def _flock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_range(file: int, kind: int, span: tuple[int, int]) -> None:
    """Lock bytes of a file as long as it is open; on systems without such locks, for this process."""
    start, length = span
    if hasattr(fcntl, "F_OFD_SETLK"):
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, start, length, 0))
    elif kind == fcntl.F_WRLCK:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _key_at(path: Path) -> tuple[int, int] | None:
    try:
        return _key(os.stat(path))
    except OSError:
        return None
