"""Workers that are broken on purpose in what operators remove: what `removals` has to find.

Owns these lies; `lies` tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import aiosqlite

from bus.model.repository import DiscardDeadLetters, Remove, Removed
from store.sqlite.messages import removals

from .lies_of_mailboxes import replace

__all__ = ["LIES_OF_REMOVALS", "TELLERS_OF_REMOVALS"]

LIES_OF_REMOVALS = {
    "removal_not_recorded": "not recorded|answered again",
    "removal_of_one_too_many": "were discarded|or are missing",
}
"""Each with what is said of it when it is found."""


def _not_recorded() -> None:
    removals.ADD_REMOVAL = "SELECT ?, ?, ?, ?, ?, ?, ?, ?"


def _one_too_many() -> None:
    def make(honest: Any) -> Any:
        async def remove(connection: aiosqlite.Connection, change: Remove, nothing: Removed) -> Removed:
            removed: Removed = await honest(connection, change, nothing)
            if isinstance(change.what, DiscardDeadLetters) and removed.seqs and not change.dry_run:
                oldest = "SELECT mailbox_id, min(seq) FROM dead_letters WHERE mailbox_id = ? GROUP BY mailbox_id"
                await connection.execute(
                    f"DELETE FROM dead_letters WHERE (mailbox_id, seq) IN ({oldest})", (change.what.mailbox_id,)
                )
            return removed

        return remove

    replace(removals, "_remove", make)


TELLERS_OF_REMOVALS: dict[str, Callable[[], None]] = {
    "removal_not_recorded": _not_recorded,
    "removal_of_one_too_many": _one_too_many,
}
