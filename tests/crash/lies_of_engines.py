"""Workers on PostgreSQL that are broken on purpose: each ignores one rule that keeps what was acknowledged.

Owns these lies; `lies` tells them. What brings each to light is the fault that its rule is there for.
"""

from __future__ import annotations

from collections.abc import Callable

from store.postgresql.server import connecting, incarnation, leadership

__all__ = ["LIES_OF_ENGINES", "TELLERS_OF_ENGINES"]

LIES_OF_ENGINES: dict[str, tuple[str, set[str]]] = {
    "local_commits": ("quorum lost", {"unsafe", "lost"}),
    "believed_at_once": ("quorum lost, primary restarted and killed", {"lost"}),
    "no_fence": ("worker declared dead", {"lost", "duplicated", "out_of_order", "redelivered", "not_drained"}),
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


def _no_fence() -> None:
    """Go on writing whoever leads by now, and wherever the log ends."""
    anybodys = "mine AS (SELECT 1 AS id WHERE ($1::text, $2::bigint, $3::bigint) IS NOT NULL)"
    incarnation._BEGIN = incarnation._BEGIN.replace(incarnation._MINE, anybodys)
    incarnation._ALONE = incarnation._ALONE.replace("WHERE last_seq = $4", "WHERE $4::bigint IS NOT NULL")
    incarnation._MINE = anybodys
    leadership._RENEW = f"WITH renewed AS ({leadership._RENEW}) SELECT $1::bigint"


TELLERS_OF_ENGINES: dict[str, Callable[[], None]] = {
    "local_commits": _local_commits,
    "believed_at_once": _believed_at_once,
    "no_fence": _no_fence,
}
