"""Copying a database while a worker serves it, and putting a copy in the place of a database.

Owns what a kill in the middle leaves behind. A backup appears under its name when it was checked and is on the
disk, and until then the one before it stays. A restoration moves the database aside, with the files beside it, and
removes nothing. Killed in between, the mark keeps a worker from starting, and the restoration can be repeated.

Like a check, this must not run in a worker's process.
"""

from __future__ import annotations

import fcntl
import glob
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from bus.errors import DatabaseDamaged, DatabaseUnusable, StoreFailed
from bus.model.databases import Tell

from ..findings import Progress
from .check import Check
from .file.lockfile import LockFile, Mark, read_mark
from .file.place import Place, check_place, find_place, opening_failure
from .file.read_only import is_posthouses, open_read_only

__all__ = ["back_up", "restore"]

_PAGES_A_STEP = 500
"""Copied between two reports: some milliseconds."""

_PART = ".posthouse-"
"""What the names of files that are not whole have, so that no other file is taken for one."""


def back_up(source: Path, target: Path, tell: Tell) -> Check:
    """Copy a database as it is at one moment, and return the check of the copy, in which no damage was found.

    It has everything that was acknowledged before the call. The worker goes on; while this reads, its WAL cannot be
    reset, and grows. Replaces an earlier backup at `target`, and nothing else.

    Raise DatabaseDamaged if the copy is damaged, or lacks what was acknowledged. Raise DatabaseUnusable if the
    source is no database that can be read, or the target is something else than an earlier backup; StoreFailed if
    the target cannot be written; and what `open_read_only` raises.
    """
    with _readable(source, target):
        place = find_place(target)
        _check_target(find_place(source), place)
        with _copied(source, place.database, tell) as (part, check):
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
    with _readable(backup, database):
        place = find_place(database)
        check_place(place)
        lock = LockFile(place)
        try:
            lock.acquire()
            with _copied(backup, place.database, tell) as (part, check):
                _give(part, place.database if place.database.exists() else place.database.parent)
                aside = _move_aside(place, lock)
                _rename(part, place.database)
            lock.restored()
            _rename(place.lock, aside.lock)
        finally:
            lock.release()
        check.path = database
        return check, aside.database if aside.database.exists() else None


@contextmanager
def _readable(*paths: Path) -> Iterator[None]:
    """Raise what says in one line that a path cannot be read: by this user, or because of its length."""
    try:
        yield
    except OSError as error:
        raise opening_failure(Path(error.filename or paths[0]), error) from error


def _check_target(source: Place, target: Place) -> None:
    if not source.named.is_file():
        raise DatabaseUnusable(f"{source.named} is not a file; name the database itself")
    if target.named.exists() and not target.named.is_file():
        raise DatabaseUnusable(f"{target.named} is not a file; name one for the backup")
    if target.lock.exists() or target.wal.exists() or source.database == target.database:
        raise DatabaseUnusable(
            f"{target.named} is a database that a worker serves, or has served: name another file for the backup;"
            " `posthouse restore` replaces a database"
        )
    if target.named.exists() and not _may_be_replaced(target.named):
        raise DatabaseUnusable(f"{target.named} exists, and is not a backup: name another file, or remove it")


def _may_be_replaced(file: Path) -> bool:
    """Return True for an earlier backup, also a damaged one, and for an empty file."""
    if not file.stat().st_size:
        return True
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return is_posthouses(connection)
    except sqlite3.DatabaseError as error:
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT


@contextmanager
def _copied(source: Path, target: Path, tell: Tell) -> Iterator[tuple[Path, Check]]:
    """Copy a database to a new file beside the target, for this user alone, and check it. The block moves it.

    What is left of the file afterwards is removed, and so is what a command left that was killed.
    """
    for path in target.parent.glob(f"{glob.escape(target.name)}{_PART}*.part"):
        if not path.samefile(source):
            _remove_abandoned(path)
    mark = read_mark(find_place(source).lock)
    if mark is not None and mark.restoring:
        raise DatabaseUnusable(f"the restoration of {source} was interrupted: run `posthouse restore` again first")
    try:
        file, name = tempfile.mkstemp(prefix=f"{target.name}{_PART}", suffix=".part", dir=target.parent)
    except OSError as error:
        raise opening_failure(target, error) from error
    part = Path(name)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        _copy(source, part, tell)
        check = _checked(source, part, mark, tell)
        os.fsync(file)
        yield part, check
    except OSError as error:
        raise _unwritable(target, error.strerror) from error
    finally:
        part.unlink(missing_ok=True)
        os.close(file)


def _remove_abandoned(part: Path) -> None:
    with suppress(OSError):
        file = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
        finally:
            os.close(file)


def _copy(source: Path, part: Path, tell: Tell) -> None:
    """Copy the pages of one snapshot: a read transaction is held, so that no commit makes SQLite start over."""
    place = find_place(source)
    while True:
        # As for a check: without a WAL there is no writer; if one has begun meanwhile, the copy is invalid.
        alone = not place.wal.exists()
        changed_ns = place.database.stat().st_ctime_ns
        with (
            closing(open_read_only(place.database, alone=alone)) as connection,
            closing(sqlite3.connect(part, isolation_level=None)) as copy,
        ):
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
            copy.execute("PRAGMA journal_mode = OFF")  # what is not whole is removed
            try:
                connection.backup(
                    copy,
                    pages=_PAGES_A_STEP,
                    progress=lambda _, left, pages: tell(Progress("copying pages", pages - left, pages)),
                )
            except sqlite3.Error as error:
                if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise DatabaseDamaged(f"{source} cannot be copied: {error}") from error
                raise _unwritable(part.parent, str(error)) from error
        if not alone or (changed_ns == place.database.stat().st_ctime_ns and not place.wal.exists()):
            return


def _checked(source: Path, part: Path, mark: Mark | None, tell: Tell) -> Check:
    check = Check(part, mark)
    for part_read, done, total in check.run():
        tell(Progress(f"reading {part_read}", done, total))
    if check.damage:
        more = f", and {len(check.damage) - 1} more" if len(check.damage) > 1 else ""
        raise DatabaseDamaged(
            f"{source} is damaged, so the copy was not put into place: {check.damage[0]}{more};"
            f" `posthouse check {source}` shows all"
        )
    return check


def _move_aside(place: Place, lock: LockFile) -> Place:
    """Rename the database, and SQLite's files beside it; return where they are.

    What an interrupted restoration has moved stays where it is: the database now in its place is a copy.
    """
    suffix = lock.restore(f"before-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    aside = find_place(place.database.with_name(f"{place.database.name}.{suffix}"))
    for old, new in ((place.wal, aside.wal), (place.shm, aside.shm), (place.database, aside.database)):
        if old.exists() and not new.exists():
            _rename(old, new)
    return aside


def _give(part: Path, like: Path) -> None:
    """As root, change the owner of a file to that of another one, which is the worker's user."""
    if os.geteuid() == 0:
        status = like.stat()
        os.chown(part, status.st_uid, status.st_gid)


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
