"""Lists of checkpoints, read in portions: which are chosen, and in which order.

Owns what the arguments of `list` mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, CheckpointTuple, get_checkpoint_id

from ...client.keyed import KeyedStore
from .rows import CheckpointRow, checkpoint_key, thread_prefix

__all__ = ["CheckpointReader", "Listing"]

_PAGE_ROWS = 50
"""Checkpoints that are read at once, each with its values."""


class CheckpointReader(Protocol):
    """What a list is read with."""

    kv: KeyedStore

    async def tuples_of(self, rows: Sequence[CheckpointRow]) -> Sequence[CheckpointTuple]:
        """Return checkpoints with their values and writes."""

    def metadata_of(self, row: CheckpointRow) -> CheckpointMetadata:
        """Return the metadata of a checkpoint."""


class Listing:
    """A list that is read in portions. `is_over` says that there are no more."""

    def __init__(
        self,
        reader: CheckpointReader,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> None:
        configurable = {} if config is None else config["configurable"]
        thread, namespace = configurable.get("thread_id"), configurable.get("checkpoint_ns")
        self._reader = reader
        self._filter = filter or {}
        self._id = configurable.get("checkpoint_id")
        self._before = None if before is None else get_checkpoint_id(before)
        self._left = limit
        self._after: str | None = None
        self._prefix = "c/" if thread is None else thread_prefix("c", str(thread), namespace)
        if thread is not None and namespace is not None and self._before:
            self._after = checkpoint_key(str(thread), namespace, self._before)
        self.is_over = limit is not None and limit <= 0

    async def more(self) -> Sequence[CheckpointTuple]:
        """Return the next ones."""
        is_chosen = self._filter or self._id
        size = _PAGE_ROWS if self._left is None or is_chosen else min(_PAGE_ROWS, self._left)
        page = await self._reader.kv.list(self._prefix, after=self._after, limit=size)
        rows = [row for row in (CheckpointRow.decode(value.value) for value in page) if self._matches(row)]
        if page:
            self._after = page[-1].key
        if self._left is not None:
            rows = rows[: self._left]
            self._left -= len(rows)
        self.is_over = len(page) < size or self._left == 0
        return await self._reader.tuples_of(rows)

    def _matches(self, row: CheckpointRow) -> bool:
        if (self._id and row.id != self._id) or (self._before and row.id >= self._before):
            return False
        if not self._filter:
            return True
        metadata: dict[str, Any] = {**self._reader.metadata_of(row)}
        return all(metadata.get(key) == wanted for key, wanted in self._filter.items())
