"""Copying a database while a worker serves it, and putting a copy in the place of a database.

Owns what a kill in the middle leaves behind. A backup appears under its name when it was checked and is on the
disk, and until then the one before it stays. A restoration moves the database aside, with the files beside it, and
removes nothing. Killed in between, the mark keeps a worker from starting, and the restoration can be repeated.

Like a check, this must not run in a worker's process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bus.errors import DatabaseDamaged, DatabaseUnusable, StoreFailed

from .check import Check, Progress
from .file.lockfile import LockFile
from .file.place import Place, check_place, find_place, opening_failure
from .file.read_only import open_read_only

__all__ = ["back_up", "restore"]

Tell = Callable[[Progress], None]
"""Is called with how far it is."""

_PAGES_A_STEP = 500
"""Copied between two reports: some milliseconds."""


def back_up(source: Path, target: Path, tell: Tell) -> Check:
    """Copy a database as it is at one moment, and return the check of the copy, in which no damage was found.

    It has everything that was acknowledged before the call. The worker goes on; while this reads, its WAL cannot be
    reset, and grows. Replaces an earlier backup at `target`.

    Raise DatabaseDamaged if the copy is damaged: then it is left at `<target>.part`. Raise DatabaseUnusable if the
    source is no database that can be read, or the target belongs to one that a worker serves; StoreFailed if the
    target cannot be written; and what `open_read_only` raises.
    """
    place = find_place(target)
    _refuse_served(find_place(source), place)
    part = place.database.with_name(f"{place.database.name}.part")
    with _written(part):
        _copy(source, part, tell)
        check = _checked(part, tell)
    _rename(part, place.database)
    check.path = target
    return check


def restore(backup: Path, database: Path, tell: Tell) -> tuple[Check, Path | None]:
    """Put a copy of a backup in the place of a database. Return the check of it, and where the old one is now.

    The old one keeps its contents and the files beside it, under a new name. The next start gives the log a new
    epoch: what was acknowledged after the backup is not in it, and clients are told so.

    Raise DatabaseInUse if a worker serves the database, and DatabaseDamaged, with nothing changed, if the backup is
    damaged; otherwise as `back_up`.
    """
    place = find_place(database)
    check_place(place)
    part = place.database.with_name(f"{place.database.name}.part")
    lock = LockFile(place)
    try:
        lock.acquire()
        with _written(part):
            _copy(backup, part, tell)
            check = _checked(part, tell)
        aside = _move_aside(place, lock)
        _rename(part, place.database)
        check.path = database
        lock.restored()
        _rename(place.lock, aside.lock)
    finally:
        lock.release()
    return check, aside.database if aside.database.exists() else None


def _refuse_served(source: Place, target: Place) -> None:
    if not source.named.is_file():
        raise DatabaseUnusable(f"{source.named} is not a file; name the database itself")
    if target.named.exists() and not target.named.is_file():
        raise DatabaseUnusable(f"{target.named} is not a file; name one for the backup")
    if target.lock.exists() or target.wal.exists() or source.database == target.database:
        raise DatabaseUnusable(
            f"{target.named} is a database that a worker serves, or has served: name another file for the backup;"
            " `posthouse restore` replaces a database"
        )


@contextmanager
def _written(part: Path) -> Iterator[None]:
    """Hold an empty file, for this user alone, which the block fills; afterwards it is on the disk."""
    try:
        file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise opening_failure(part, error) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatabaseUnusable(
                f"{part} is being written by another command: wait until that has ended"
            ) from None
        os.ftruncate(file, 0)
        yield
        os.fsync(file)
    except OSError as error:
        raise _unwritable(part, error.strerror) from error
    finally:
        os.close(file)


def _copy(source: Path, part: Path, tell: Tell) -> None:
    """Copy the pages of one snapshot: a read transaction is held, so that no commit makes SQLite start over."""
    place = find_place(source)
    while True:
        # As for a check: without a WAL there is no writer; if one has begun meanwhile, the copy is invalid.
        alone = not place.wal.exists()
        with (
            closing(open_read_only(place.database, alone=alone)) as connection,
            closing(sqlite3.connect(part, isolation_level=None)) as copy,
        ):
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
            try:
                connection.backup(
                    copy,
                    pages=_PAGES_A_STEP,
                    progress=lambda _, left, pages: tell(Progress("pages", pages - left, pages)),
                )
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise DatabaseDamaged(f"{source} cannot be copied: {error}") from error
                raise _unwritable(part, str(error)) from error
        if not (alone and place.wal.exists()):
            return


def _checked(part: Path, tell: Tell) -> Check:
    check = Check(part)
    for progress in check.run():
        tell(progress)
    if check.damage:
        more = f", and {len(check.damage) - 1} more" if len(check.damage) > 1 else ""
        raise DatabaseDamaged(
            f"the copy {part} is damaged, so it was not put into place: {check.damage[0]}{more};"
            " `posthouse check` shows all"
        )
    return check


def _move_aside(place: Place, lock: LockFile) -> Place:
    """Give the database, and SQLite's files beside it, another name; return where they are.

    What an interrupted restoration has moved stays where it is: the database now in its place is a copy.
    """
    suffix = lock.restore(f"before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    aside = find_place(place.database.with_name(f"{place.database.name}.{suffix}"))
    for old, new in ((place.wal, aside.wal), (place.shm, aside.shm), (place.database, aside.database)):
        if old.exists() and not new.exists():
            _rename(old, new)
    return aside


def _rename(old: Path, new: Path) -> None:
    try:
        old.replace(new)
        folder = os.open(new.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _unwritable(new, error.strerror) from error


def _unwritable(path: Path, reason: str | None) -> StoreFailed:
    return StoreFailed(f"{path} cannot be written: {reason}; make room or check the disk, then try again")
