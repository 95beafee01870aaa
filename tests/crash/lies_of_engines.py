"""Workers on PostgreSQL that are broken on purpose: each ignores one rule that keeps what was acknowledged.

Owns these lies; `lies` tells them. What brings each to light is the fault that its rule is there for.
"""

from __future__ import annotations

from collections.abc import Callable

from store.postgresql.server import connecting, incarnation

__all__ = ["LIES_OF_ENGINES", "TELLERS_OF_ENGINES"]

LIES_OF_ENGINES: dict[str, tuple[str, set[str]]] = {
    "local_commits": ("quorum lost", {"unsafe", "lost"}),
    "believed_at_once": ("quorum lost, primary restarted and killed", {"lost"}),
}
"""Each lie with the fault that shows it, and the kinds of violations of which one has to be found."""


def _local_commits() -> None:
    """Answer what is on the primary's disk alone: `synchronous_commit = local`, which the start refuses."""
    connecting._SETTINGS["synchronous_commit"] = "local"
    connecting.refusals = lambda server: []  # type: ignore[attr-defined]


def _believed_at_once() -> None:
    """Believe what a new session shows, without a commit that waits."""
    connecting._EMPTY_COMMIT = "SELECT 1"
    incarnation._LOOK = "SELECT batch FROM workers WHERE id = $1 AND fence = $2"


TELLERS_OF_ENGINES: dict[str, Callable[[], None]] = {
    "local_commits": _local_commits,
    "believed_at_once": _believed_at_once,
}
