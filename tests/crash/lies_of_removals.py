"""Workers that are broken on purpose in what operators remove: what `removals` has to find.

Owns these lies; `lies` tells them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import structs

from bus.model.repository import DiscardDeadLetters, Erase, Erased, Remove, Removed, What
from store import removals
from store.removing import Tables

from .lies_of_mailboxes import replace

__all__ = ["LIES_OF_REMOVALS", "TELLERS_OF_REMOVALS"]

LIES_OF_REMOVALS = {
    "removal_not_recorded": "not recorded|answered again|was removed with {}",
    "removal_of_one_too_many": "were discarded|or are missing",
    "removal_without_its_command": "do not add up",
}
"""Each with what is said of it when it is found."""


def _not_recorded() -> None:
    removals._RECORD = "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8"


def _one_too_many() -> None:
    def make(honest: Any) -> Any:
        async def delete(tables: Tables, what: What | None) -> None:
            await honest(tables, what)
            if isinstance(what, DiscardDeadLetters):
                others = await tables.find("dead letters of mailboxes", "seq", [what.mailbox_id])
                await tables.delete("dead letters", what.mailbox_id, others[:1])

        return delete

    replace(removals, "delete", make)


def _without_its_command() -> None:
    def make(honest: Any) -> Any:
        def removal_row(change: Erase | Remove, what: Erased | Removed) -> Any:
            return honest(structs.replace(change, part_of=None) if isinstance(change, Erase) else change, what)

        return removal_row

    replace(removals, "removal_row", make)


TELLERS_OF_REMOVALS: dict[str, Callable[[], None]] = {
    "removal_not_recorded": _not_recorded,
    "removal_of_one_too_many": _one_too_many,
    "removal_without_its_command": _without_its_command,
}
