"""posthouse on PostgreSQL: alone, and with a quorum of standbys, beside posthouse on SQLite.

Owns the nodes, which are started as for the tests, on this project's disk, and their processor time. The worker and
its clients are those of posthouse on SQLite.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.postgresql import cluster

from . import machine, names
from .processes import ROOT, Server, Worker
from .systems import Posthouse, frame_roles

__all__ = ["OnOneNode", "OnQuorum"]

_SETTINGS = "shared_buffers = 128MB"
"""As PostgreSQL is shipped: the tests' nodes have less memory."""


class _OnPostgreSQL(Posthouse):
    """What both have in common: the first of the nodes is the primary."""

    only = frozenset({names.PUBLISH_ONE, names.ONE_TO_ONE_SINGLES, names.ONE_TO_ONE_100})

    def __init__(self, *, profile: Path | None = None) -> None:
        super().__init__(profile=profile)
        self._nodes: list[cluster.Node] = []
        self._nodes_before: list[float] = []

    @classmethod
    def missing(cls) -> str | None:
        """Return why no node can be started here."""
        if find_spec("asyncpg") is None:
            return "asyncpg is not installed (the extra posthouse[postgresql])"
        return cluster.missing()

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Name the versions of the server and of its client."""
        return super().versions() | {"PostgreSQL": cluster.version(), "asyncpg": metadata.version("asyncpg")}

    def _start(self) -> Server:
        self._nodes = self._start_nodes()
        return Worker(engine=self._nodes[0].url(), profile=self._profile)

    def _start_nodes(self) -> list[cluster.Node]:
        raise NotImplementedError

    def _prepare(self) -> None:
        super()._prepare()
        self._nodes_before = [machine.tree_seconds(node.pid) for node in self._nodes]

    def finish(self) -> dict[str, float]:
        """Return the processor time of each node, too."""
        primary, *standbys = (
            machine.tree_seconds(node.pid) - before
            for node, before in zip(self._nodes, self._nodes_before, strict=True)
        )
        figures = super().finish()
        figures["primary_us"] = 1e6 * primary / self._stored
        if standbys:
            figures["standby_us"] = 1e6 * sum(standbys) / len(standbys) / self._stored
        return figures

    def _roles(self) -> dict[str, tuple[Any, ...]]:
        return frame_roles(self.worker.url)

    def _read(self, sql: str) -> tuple[int, ...]:
        [row] = self._nodes[0].query(f"SET search_path = posthouse; {sql}")
        return tuple(map(int, row.split("|")))


class OnOneNode(_OnPostgreSQL):
    """posthouse on one PostgreSQL, which syncs each commit."""

    name = names.ON_POSTGRESQL

    def _start_nodes(self) -> list[cluster.Node]:
        return [self._stack.enter_context(cluster.single(ROOT, _SETTINGS))]


class OnQuorum(_OnPostgreSQL):
    """posthouse on PostgreSQL whose commits are also synced by one of two standbys."""

    name = names.ON_QUORUM

    def _start_nodes(self) -> list[cluster.Node]:
        return [*self._stack.enter_context(cluster.quorum(ROOT, _SETTINGS))]
