"""The key by which all workers of one house are known, whichever of them serves: a client pins it.

Owns that no worker shows another one. Each has the pair in a file; a house whose engine is a database that several
workers use has the public half there. The secret half is not: whoever reads a copy of the database must not be able
to pose as a worker (docs/decisions/0081-postgresql-for-people.md).
"""

from __future__ import annotations

import os

from .errors import KeyFileUnusable
from .model.databases import Databases
from .settings import Settings
from .worker_key import WorkerKey, find_key_file, open_worker_key

__all__ = ["check_house_key", "note_house_key"]


async def check_house_key(databases: Databases, settings: Settings) -> None:
    """Raise KeyFileUnusable if the house has a key already, and this worker has another one, or none.

    Call it before the worker's pair is made. Raises also what `Databases.house_key` does.
    """
    if not settings.store.engine:
        return
    known = await databases.house_key(settings.store.engine)
    if known not in (None, _own(settings)):
        raise _other(settings, known)


async def note_house_key(databases: Databases, settings: Settings, key: WorkerKey) -> None:
    """Note the key of the first worker of a house. Raise KeyFileUnusable if another one was noted meanwhile."""
    if not settings.store.engine:
        return
    known = await databases.house_key(settings.store.engine, key.public)
    if known != key.public:
        raise _other(settings, known)


def _own(settings: Settings) -> str | None:
    """Return the key of this worker, if it has one."""
    path = find_key_file(None, settings.security.key_file)
    return open_worker_key(path).public if os.path.lexists(path) else None


def _other(settings: Settings, known: str | None) -> KeyFileUnusable:
    path = find_key_file(None, settings.security.key_file)
    text = (
        f"it is not the key {known}, by which bots know the workers of this house: copy the file of another worker"
    )
    return KeyFileUnusable(str(path), text)
