"""The worker's own pair of keys: one file, beside the database unless it is elsewhere by configuration.

With an engine the files are where the worker runs: its working directory.

Owns the file's form; `secret_files` keeps it from others. It is not part of the database, so that nobody can pose
as the worker with a copy of that.

The secret is in no `repr` and in no error.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from .curve import new_secret, public_of
from .errors import InvalidKey, KeyFileUnusable
from .secret_files import NotSecret, read_secret_file, write_secret_file
from .wire.keys import public_text, read_secret, secret_text

__all__ = ["WorkerKey", "find_admin_file", "find_key_file", "open_worker_key"]

_FILE_BYTES_MAX = 4096
"""Much more than a key has: what is larger is another file."""

_HEADER = """\
# The secret key of a posthouse worker, by which its bots recognise it. Whoever has it can pose as the worker:
# keep a copy of it, but not beside copies of the database.
"""


class WorkerKey(msgspec.Struct, frozen=True):
    """The worker's pair; `is_new` says that it was made now."""

    secret: bytes
    is_new: bool = False

    def __repr__(self) -> str:
        return f"<WorkerKey {self.public}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Return what may be shown: not the secret."""
        return [("public", self.public)]

    @property
    def public(self) -> str:
        """The public half, as `php_…`."""
        return public_text(public_of(self.secret))


def find_key_file(database: str | Path | None, key_file: str = "") -> Path:
    """Return where a worker's pair is: `key_file`, or `<database>-key`; the database is None with an engine."""
    return Path(key_file) if key_file else _beside(database, "-key")


def find_admin_file(database: str | Path | None) -> Path:
    """Return where the first start with keys writes credentials that may manage keys: `<database>-admin.creds`."""
    return _beside(database, "-admin.creds")


def _beside(database: str | Path | None, suffix: str) -> Path:
    found = Path(os.path.realpath("posthouse" if database is None else database))
    return found.with_name(found.name + suffix)


def open_worker_key(path: Path) -> WorkerKey:
    """Return the pair in a file, which is made if there is none. Raise KeyFileUnusable if it must not be used.

    A new file is on disk when this returns.
    """
    try:
        return WorkerKey(_read(path, read_secret_file(str(path), _FILE_BYTES_MAX)))
    except FileNotFoundError:
        pass
    except (NotSecret, OSError) as error:
        raise KeyFileUnusable(str(path), _reason(error)) from None
    key = WorkerKey(new_secret(), is_new=True)
    try:
        write_secret_file(str(path), f"{_HEADER}{secret_text(key.secret)}\n".encode())
    except OSError as error:
        raise KeyFileUnusable(str(path), _reason(error)) from None
    return key


def _read(path: Path, data: bytes) -> bytes:
    text = data.decode("ascii", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1 or len(data) > _FILE_BYTES_MAX:
        raise KeyFileUnusable(str(path), "this is not the file of a worker's key; restore it from a copy")
    try:
        return read_secret(lines[0])
    except InvalidKey as error:
        raise KeyFileUnusable(str(path), f"{error}; restore it from a copy") from None


def _reason(error: NotSecret | OSError) -> str:
    if isinstance(error, NotSecret):
        return str(error)
    if error.errno == errno.ELOOP:
        return "it is a link, which is not followed: name the file itself"
    return f"it cannot be used: {error.strerror}"
