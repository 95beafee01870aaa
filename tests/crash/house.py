"""A house on an engine: three nodes of PostgreSQL with a quorum, and a worker.

Owns who is the primary, and how a node is brought back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ..postgresql.cluster import HOST, USER, Node
from ..postgresql.promotion import WAITED_FOR, promote
from .load import CONFIGURATION
from .nursery import ForkedWorker, shared_nursery

__all__ = ["House"]


class House:
    """See the module. With a `lie`, the worker is broken in that way."""

    def __init__(self, folder: Path, nodes: Sequence[Node], *, lie: str | None = None) -> None:
        self.nodes = tuple(nodes)
        self.primary = nodes[0]
        self.lie = lie
        for node in nodes:
            node.configure(WAITED_FOR)
            node.reload()
        self.worker = ForkedWorker(folder, CONFIGURATION, shared_nursery(), lie=lie)
        hosts = ",".join(f"{HOST}:{node.port}" for node in nodes)
        self.worker.engine = f"postgresql://{USER}@{hosts}/{USER}"

    def __repr__(self) -> str:
        return f"<House primary={self.primary.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.close()

    @property
    def standbys(self) -> list[Node]:
        """The nodes that follow the primary."""
        return [node for node in self.nodes if node is not self.primary]

    def fail_over(self) -> None:
        """Promote a standby of a primary that is gone, and take the old primary in again, from a copy."""
        gone = self.primary
        self.primary = promote(self.standbys)
        gone.copy(self.primary)
        gone.start()
