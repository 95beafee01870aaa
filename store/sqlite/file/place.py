"""Where a database is: its paths, and whether a worker can serve it.

Owns the refusals that a person has to fix: a missing folder, a path to something other than a file, missing
permissions, a file with two names. They are checked before anything is opened, because SQLite opens a file without
write permission read-only, and fails only at the first write.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import msgspec

from bus.errors import DatabaseUnusable, StoreFailed, StoreFailure

from .file_systems import file_system_warning

__all__ = ["Place", "check_place", "find_place", "opening_failure", "place_warnings", "reachable_by_others"]

_PATH_BYTES_MAX = 504
"""SQLite's limit of 512, minus the `-journal` that it may append."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_GROUP, _OTHERS = stat.S_IRGRP | stat.S_IWGRP, stat.S_IROTH | stat.S_IWOTH

_OPEN_TO_OTHERS = (
    "{0} can be read or written by other users of this machine, and it holds every message: chmod go= {0} {0}-*"
)

_WRONG_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}
_NO_RIGHTS = {errno.EACCES, errno.EPERM, errno.EROFS}
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


class Place(msgspec.Struct, frozen=True):
    """The paths of a database and of the files beside it, all absolute."""

    named: Path
    """The path as given, which may contain symbolic links."""
    database: Path
    """The file itself, with all links resolved. SQLite's files and the lock file are beside this path."""

    @property
    def wal(self) -> Path:
        """SQLite's write-ahead log."""
        return self._beside("-wal")

    @property
    def shm(self) -> Path:
        """The index of the write-ahead log."""
        return self._beside("-shm")

    @property
    def lock(self) -> Path:
        """The lock file, with the mark in it."""
        return self._beside("-lock")

    def _beside(self, suffix: str) -> Path:
        return self.database.with_name(self.database.name + suffix)


def find_place(path: Path) -> Place:
    """Resolve a path once, so that neither a link nor another working directory makes it a second database."""
    try:
        named = Path.cwd() / path
    except OSError as error:
        raise opening_failure(path, error) from error
    return Place(named, Path(os.path.realpath(named)))


def check_place(place: Place) -> None:
    """Raise DatabaseUnusable, or StoreFailed for a disk error, unless a database can be written here."""
    if len(os.fsencode(place.database)) > _PATH_BYTES_MAX:
        raise DatabaseUnusable(
            f"the path {place.database} is too long: SQLite allows {_PATH_BYTES_MAX} bytes; use a shorter one"
        )
    folder = place.database.parent
    status = _status(folder)
    if status is None:
        raise DatabaseUnusable(f"{place.database} cannot be opened: the folder {folder} does not exist; create it")
    if not stat.S_ISDIR(status.st_mode):
        raise DatabaseUnusable(f"{place.database} cannot be opened: {folder} is not a folder; check the path")
    if not _may(folder, os.W_OK | os.X_OK):
        raise DatabaseUnusable(
            f"{place.database} cannot be served: this user may not create files in {folder}, as SQLite has to;"
            " change the folder's owner or permissions, or mount it for writing"
        )
    for path in (place.named, place.wal, place.shm, place.lock):
        status = _status(path)
        if status is not None:
            _check_file(path, status)
    for path in (place.wal, place.shm, place.lock):
        if path.is_symlink():
            raise DatabaseUnusable(f"{path} is a symbolic link: its target would be written; remove the link")
    status = _status(place.named)
    if status is not None and status.st_nlink > 1:
        raise DatabaseUnusable(
            f"{place.database} has {status.st_nlink} names (hard links), and its newest messages are beside one of"
            " them: remove the other names, or serve a copy"
        )


def reachable_by_others(path: Path) -> bool:
    """Return True if other users can read or write a file, by its permissions and those of its folders."""
    mode = os.stat(path).st_mode
    folders = [os.stat(folder).st_mode for folder in path.parents]
    group = mode & _GROUP and all(folder & (stat.S_IXGRP | stat.S_IXOTH) for folder in folders)
    return bool(group or (mode & _OTHERS and all(folder & stat.S_IXOTH for folder in folders)))


def place_warnings(database: Path) -> list[str]:
    """Return what is wrong with where a database is, although it can be served there, and what to do."""
    warnings: list[str] = []
    if database.exists() and reachable_by_others(database):
        warnings.append(_OPEN_TO_OTHERS.format(database))
    if (unsafe := file_system_warning(database)) is not None:
        warnings.append(unsafe)
    return warnings


def opening_failure(path: Path, error: OSError) -> StoreFailure:
    """Return why a file of a database cannot be opened or created, and what to do."""
    if error.errno in _DISK_FULL:
        return StoreFailed(f"{path} cannot be written: the disk is full; make room, then start again")
    if error.errno in _NO_DESCRIPTORS:
        return StoreFailed(f"{path} cannot be opened: {error.strerror}; raise the limit on open files")
    if error.errno in _NO_RIGHTS:
        return DatabaseUnusable(
            f"{path} cannot be written by this user ({error.strerror}); change its owner or permissions"
        )
    if error.errno in _WRONG_PATH:
        return DatabaseUnusable(f"{path} cannot be opened: {error.strerror}; check the path")
    return StoreFailed(f"{path} cannot be opened: {error.strerror}; check the disk, then start again")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise opening_failure(path, error) from error


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise DatabaseUnusable(f"{path} is {kind}, not a file; use another path, or remove it")
    if not _may(path, os.R_OK | os.W_OK):
        raise opening_failure(path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
