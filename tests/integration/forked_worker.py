"""Workers out of a nursery that all tests of this process share: no start waits for the imports of an interpreter.

What is tested of a worker's start, its signals, its streams or its end takes `wire_worker.Worker`, which starts the
command as usual.
"""

from __future__ import annotations

from pathlib import Path

from bus.model.engines import is_engine

from ..crash.nursery import ForkedWorker, shared_nursery

__all__ = ["forked_worker"]


def forked_worker(directory: Path, configuration: str = "", store_url: str = "") -> ForkedWorker:
    """Return a worker that is not started yet. Without a URL, its store is a file in its directory."""
    worker = ForkedWorker(directory, configuration, shared_nursery())
    if is_engine(store_url):
        worker.engine = store_url
    elif store_url:
        worker.database = Path(store_url)
    return worker
