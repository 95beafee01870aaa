"""Files that keep a secret: a worker's pair of keys, and credentials.

Owns whom such a file is kept from, and how it is written: it is created for its owner alone, never in the place of
another file or through a link, whole or not at all, and it is not read if another user could have read or written
it. What is in it belongs to others.
"""

from __future__ import annotations

import os
import stat

__all__ = ["NotSecret", "read_secret_file", "sync_folder", "write_secret_file"]

_CLOSED_FOR_PROGRAMS = getattr(os, "O_CLOEXEC", 0)

_NOT_FOLLOWED = getattr(os, "O_NOFOLLOW", 0)

_NOT_WAITED_FOR = getattr(os, "O_NONBLOCK", 0)
"""Without it, opening a pipe would wait for its writer."""


class NotSecret(Exception):
    """The file must not be used; the text says why, and what to do."""


def read_secret_file(path: str, bytes_max: int, *, through_links: bool = False) -> bytes:
    """Return what a file has, at most one byte more than `bytes_max`.

    Raises OSError if it cannot be read, and NotSecret if it is no file, or if another user could have read or
    written it.
    """
    links = 0 if through_links else _NOT_FOLLOWED
    descriptor = os.open(path, os.O_RDONLY | links | _NOT_WAITED_FOR | _CLOSED_FOR_PROGRAMS)
    try:
        _check(path, os.fstat(descriptor))
        return os.read(descriptor, bytes_max + 1)
    finally:
        os.close(descriptor)


def write_secret_file(path: str, data: bytes) -> None:
    """Create a file for its owner alone; it is on disk when this returns.

    Raises FileExistsError if something has that name, and OSError if it cannot be written: then there is no file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOT_FOLLOWED | _CLOSED_FOR_PROGRAMS
    descriptor = os.open(path, flags, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        sync_folder(path)
    except OSError:
        os.unlink(path)
        raise


def sync_folder(path: str) -> None:
    """Put the name of a file on disk."""
    if os.name != "posix":
        return
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | _CLOSED_FOR_PROGRAMS)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check(path: str, found: os.stat_result) -> None:
    """Raise NotSecret if it is no file, or if another user could have read or written it.

    A service manager hands files over that belong to root, and lets the service's user read them by an access
    list, which shows as a right of root's group.
    """
    if not stat.S_ISREG(found.st_mode):
        raise NotSecret("this is not a file")
    if not hasattr(os, "geteuid"):
        return
    user = os.geteuid()
    if found.st_uid not in (user, 0):
        raise NotSecret(f"it belongs to user {found.st_uid}, and this is user {user}: make a copy")
    is_handed_over = found.st_uid == found.st_gid == 0 and user != 0
    others = stat.S_IRWXO | (stat.S_IWGRP if is_handed_over else stat.S_IRWXG)
    if found.st_mode & others:
        raise NotSecret(f"other users may read or change it; run: chmod 600 {path}")
