"""Workers that are broken on purpose in what operators remove: what `removals` has to find.

Owns these lies; `lies` tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bus.model.repository import DiscardDeadLetters, What
from store.removing import Tables
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
        async def delete(tables: Tables, what: What | None) -> None:
            await honest(tables, what)
            if isinstance(what, DiscardDeadLetters):
                others = await tables.find("dead letters of mailboxes", "seq", [what.mailbox_id])
                await tables.delete("dead letters", what.mailbox_id, others[:1])

        return delete

    replace(removals, "delete", make)


TELLERS_OF_REMOVALS: dict[str, Callable[[], None]] = {
    "removal_not_recorded": _not_recorded,
    "removal_of_one_too_many": _one_too_many,
}
