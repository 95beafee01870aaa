"""A house on an engine: three nodes of PostgreSQL with a quorum, workers, and the way of each worker to the nodes.

Owns who is the primary and who leads, how each is brought back, and where its files lie. A worker reaches the nodes
only by its own cable and relay, so that it alone can be cut off.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from ..postgresql.cluster import USER, Node
from ..postgresql.promotion import WAITED_FOR, promote
from .load import CONFIGURATION
from .nursery import ForkedWorker, shared_nursery
from .relay import Cable, Relay, lay

__all__ = ["WORKERS", "House"]

_PATIENCE_SECONDS = 120.0
"""How long a leader may be missing: far more than a lease."""

_GLANCE_SECONDS = 0.05

WORKERS = 2

_LEADERSHIP = """
[leadership]
lease_seconds = {}
renew_seconds = 0.5
"""

_LEASE_SECONDS = 4.0
"""Long enough for a busy machine, and short enough for many of them."""

_LEASE_OF_ONE_SECONDS = 120.0
"""One that nobody waits for: no fault lasts as long."""

_FENCE = "SELECT fence FROM posthouse.log_end"

_SESSIONS = """
    SELECT pid, application_name, client_port, state, wait_event, now() - state_change, pg_blocking_pids(pid),
           left(regexp_replace(query, '\\s+', ' ', 'g'), 100)
    FROM pg_stat_activity WHERE backend_type = 'client backend'"""

# It may renew its lease before another worker looks.
_DECLARE_DEAD = """
    DO $$ BEGIN
        FOR attempt IN 1..1000 LOOP
            UPDATE posthouse.leadership SET expires_at = clock_timestamp() WHERE fence = {fence};
            EXIT WHEN NOT FOUND;
            COMMIT;
            PERFORM pg_sleep(0.02);
        END LOOP;
    END $$"""


class House:
    """See the module. With a `lie`, all workers are broken in that way."""

    def __init__(
        self, folder: Path, nodes: Sequence[Node], *, workers: int = WORKERS, lie: str | None = None
    ) -> None:
        self.nodes = tuple(nodes)
        self.primary = nodes[0]
        self.ways: list[Cable | Relay] = []
        self.workers: list[ForkedWorker] = []
        self.lie = lie
        self._stack = ExitStack()
        leadership = _LEADERSHIP.format(_LEASE_SECONDS if workers > 1 else _LEASE_OF_ONE_SECONDS)
        with ExitStack() as stack:
            for number in range(workers):
                directory = folder / f"worker-{number}"
                directory.mkdir()
                way = lay([node.port for node in nodes])
                stack.push(way)
                worker = ForkedWorker(directory, CONFIGURATION + leadership, shared_nursery(), lie=lie)
                way.lead(worker, USER)
                stack.callback(worker.close)
                self.ways.append(way)
                self.workers.append(worker)
            for node in nodes:
                node.configure(WAITED_FOR)
                node.reload()
            self._stack = stack.pop_all()

    def __repr__(self) -> str:
        return f"<House primary={self.primary.name} workers={len(self.workers)}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for way in self.ways:
            way.mend()
        for worker in self.workers:
            if not worker.has_ended():
                worker.signal(signal.SIGCONT)
        self._stack.close()

    @property
    def commands(self) -> list[str]:
        """The addresses of all workers."""
        return [worker.command for worker in self.workers]

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────

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

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start all workers; the first one leads, unless another one is faster."""
        for worker in self.workers:
            worker.launch()
        self.wait_for_leader(0)

    @property
    def fence(self) -> int:
        """The fence of the worker that leads, or led last; 0 before any did."""
        if self.primary.query("SELECT to_regclass('posthouse.log_end')") == [""]:
            return 0
        return int(self.primary.query(_FENCE)[0])

    def wait_for_leader(self, before: int) -> int:
        """Wait until somebody leads with a higher fence than the one before, and return it."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (fence := self.fence) <= before:
            if time.monotonic() > deadline:
                raise AssertionError(f"nobody leads after fence {before}:\n{self.log_tails()}\n{self._sessions()}")
            time.sleep(_GLANCE_SECONDS)
        return fence

    @property
    def leader(self) -> int:
        """The number of the worker that leads, or led last."""
        [url] = self.primary.query("SELECT url FROM posthouse.leadership")
        return self.commands.index(url)

    def declare_dead(self) -> None:
        """Let another worker lead while the one that does still believes in its lease."""
        before = self.fence
        self.primary.query(_DECLARE_DEAD.format(fence=before))
        self.wait_for_leader(before)

    def _sessions(self) -> str:
        """Return what each session of the primary does, and which others it waits for."""
        return "\n".join(self.primary.query(_SESSIONS))

    def log_tails(self) -> str:
        """Return the ends of what all workers wrote."""
        return "\n".join(f"{worker}:\n{worker.log_tail()}" for worker in self.workers)
