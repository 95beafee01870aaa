"""Workers on PostgreSQL that are broken on purpose: each ignores one rule that keeps what was acknowledged.

Owns these lies; `lies` tells them. What brings each to light is the fault that its rule is there for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from store.postgresql.server import connecting, incarnation, leadership
from store.postgresql.server.writer import Writer

__all__ = ["LIES_OF_ENGINES", "TELLERS_OF_ENGINES", "Lie"]


class Lie(NamedTuple):
    """How a lie comes to light."""

    fault: str
    """What shows it."""
    kinds: set[str]
    """The kinds of violations of which one has to be found."""
    workers: int = 1
    """More than one lose the lead without a quorum, before they could believe anything."""
    noticed: str = ""
    """What a worker says that finds it out by itself, and ends."""


LIES_OF_ENGINES: dict[str, Lie] = {
    "local_commits": Lie("quorum lost", {"unsafe", "lost"}),
    "believed_at_once": Lie("quorum lost, primary restarted and killed", {"lost"}),
    "no_fence": Lie(
        "worker declared dead",
        {"lost", "duplicated", "out_of_order", "redelivered", "not_drained"},
        workers=2,
        noticed="the log grows at its end",
    ),
}


def _local_commits() -> None:
    """Answer what is on the primary's disk alone: `synchronous_commit = local`, which the start refuses."""
    connecting._SETTINGS["synchronous_commit"] = "local"
    connecting.refusals = lambda server: []  # type: ignore[attr-defined]


def _believed_at_once() -> None:
    """Believe what a new session shows, without a commit that waits."""
    connecting._EMPTY_COMMIT = "SELECT 1"
    incarnation._LOOK = "SELECT batch FROM workers WHERE id = $1 AND fence = $2"


def _no_fence() -> None:
    """Go on writing whoever leads by now, at the end that the log has."""

    async def attempt_alone(writer: Writer, pending: object) -> bool:
        return False  # it would notice that the log has another end

    anybodys = "mine AS (SELECT 1 AS id WHERE ($1::text, $2::bigint, $3::bigint) IS NOT NULL)"
    incarnation._BEGIN = incarnation._BEGIN.replace(incarnation._MINE, anybodys)
    Writer._attempt_alone = attempt_alone  # type: ignore[assignment, method-assign]
    leadership._RENEW = f"WITH renewed AS ({leadership._RENEW}) SELECT $1::bigint"


TELLERS_OF_ENGINES: dict[str, Callable[[], None]] = {
    "local_commits": _local_commits,
    "believed_at_once": _believed_at_once,
    "no_fence": _no_fence,
}
