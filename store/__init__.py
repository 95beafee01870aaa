"""Everything that is kept: messages, subscriptions, mailboxes and workflow checkpoints.

`open_store(url)` is the way in. Importing this package loads no backend; opening a store does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path

from bus.model.repository import Store, StoreWatch, WorkflowRules

__all__ = ["open_store"]


def open_store(
    url: str,
    *,
    rules: WorkflowRules | None = None,
    clock: Callable[[], datetime] | None = None,
    watch: StoreWatch | None = None,
) -> AbstractAsyncContextManager[Store]:
    """Open the store that a URL names: `sqlite:///relative.db`, `sqlite:////absolute.db`, or a plain path.

    Workflows are kept by `rules`, and stamped and leased by `clock`, which gives times with a zone. Unless one is
    given, they are stamped by the system's, and leases go on as if that were not set while the store is open. While
    it is open, `watch` is told what the people who run it should know.

    The store is ready, recovered and locked against a second worker inside the context; leaving it flushes and
    closes. Raises ValueError for another scheme, and DatabaseUnusable, DatabaseInUse, DatabaseDamaged,
    DatabaseNewer or StoreFailed where the file cannot be used; it is then as it was. StoreFailed also ends the
    context later, where the disk reports an error, or the file is removed, moved or replaced.
    """
    scheme, separator, path = url.partition("://")
    if not separator:
        path = url
    elif scheme == "sqlite":
        path = path.removeprefix("/")
    else:
        raise ValueError(f"no store for {url!r}; write a path, or sqlite:///path")
    if not path or path == ":memory:":
        raise ValueError("a store needs a file: in memory nothing would be durable")
    if "\0" in path:
        raise ValueError(f"{path!r} cannot name a file")
    if not Path(path).name:
        raise ValueError(f"{path} names a folder, not a file")
    from .sqlite import open_sqlite_store

    return open_sqlite_store(path, rules or WorkflowRules(), clock, watch)
