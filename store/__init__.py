"""The store: messages, subscriptions, mailboxes and workflow checkpoints.

Use `open_store(url)`. Importing this package loads no backend; opening a store does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path

from bus.model.repository import Store, StoreCheck, StoreWatch, WorkflowRules

__all__ = ["check_of", "database_path", "open_store"]


def open_store(
    url: str,
    *,
    rules: WorkflowRules | None = None,
    clock: Callable[[], datetime] | None = None,
    watch: StoreWatch | None = None,
) -> AbstractAsyncContextManager[Store]:
    """Open the store at a URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, or a plain path.

    Workflows follow `rules`. `clock` returns times with a zone; it gives workflows their timestamps and leases. By
    default timestamps use the system's clock, and leases a clock that is not affected if the system's is set while
    the store is open. While it is open, `watch` receives warnings for its operators.

    Inside the context the store is ready, recovered and locked against a second worker; leaving the context flushes
    and closes it. Raises ValueError for another scheme, and DatabaseUnusable, DatabaseInUse, DatabaseDamaged,
    DatabaseNewer or StoreFailed if the file cannot be used; it is then left unchanged. StoreFailed also ends the
    context later, if the disk reports an error, or the file is removed, moved or replaced.
    """
    if url.startswith("postgresql://"):
        from .postgresql.store import open_postgresql_store

        return open_postgresql_store(url, rules or WorkflowRules(), clock, watch)
    path = database_path(url)
    from .sqlite import open_sqlite_store

    return open_sqlite_store(path, rules or WorkflowRules(), clock, watch)


def check_of(url: str) -> StoreCheck:
    """Return a check of the store at a URL of `open_store`, which may be in use by another process.

    The process that has the store open must not check it: closing the file would drop its locks.
    """
    path = database_path(url)
    from .sqlite.check import Check

    return Check(Path(path))


def database_path(url: str) -> str:
    """Return the path of the file that a URL of `open_store` names. Raise ValueError if it names none."""
    scheme, separator, path = url.partition("://")
    if not separator:
        path = url
    elif scheme == "sqlite":
        path = path.removeprefix("/")
    else:
        raise ValueError(f"unsupported store URL {url!r}: use a path, or sqlite:///path")
    if not path or path == ":memory:":
        raise ValueError("a store needs a file: memory is not durable")
    if "\0" in path:
        raise ValueError(f"{path!r} cannot name a file")
    if not Path(path).name:
        raise ValueError(f"{path} names a folder, not a file")
    return path
