"""What is left of the budgets of threads: counted in the transaction that stores a reply.

Owns the look-up of what replies answer, and the note that some message has a budget. While there is none, nothing
is looked up. What a reply inherits is decided in `bus.model.budgeting`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

import asyncpg

from bus.model.arriving import written
from bus.model.budgeting import in_parts
from bus.model.budgets import NO_BUDGET, Budget, budget_of
from bus.model.repository import Change, Lot

from ..server.reader import Reader

__all__ = ["Budgets", "is_any_budget"]

_NOTE = "UPDATE log SET budgets = true WHERE NOT budgets"

_FIND = """
    SELECT id, headers FROM bot_messages WHERE id = ANY($1::text[]) AND NOT copied
    UNION ALL SELECT id, headers FROM bot_messages WHERE id = ANY($1::text[]) AND copied
    UNION ALL SELECT id, headers FROM scheduled_messages WHERE id = ANY($1::text[])"""


async def is_any_budget(reader: Reader) -> bool:
    """Return True if a message has, or had, a budget."""
    [[found]] = await reader.fetch("SELECT budgets FROM log")
    return bool(found)


class Budgets:
    """See the module. `noted` is True if the database says that there may be a message with a budget."""

    def __init__(self, *, noted: bool) -> None:
        self.present = self.noted = noted

    def __repr__(self) -> str:
        return f"<Budgets present={self.present}>"

    def are_counted(self, lots: Sequence[Lot]) -> bool:
        """Return True if nothing is to be looked up or noted for lots; note whether one has a budget."""
        if any(lot.budget is not None and lot.budget.is_limited for lot in lots):
            self.present = True
        return not self.present or (self.noted and all(lot.reply_tos is None for lot in lots))

    async def count(self, connection: asyncpg.Connection, parts: list[list[Lot]], at: str) -> list[list[Lot]]:
        """Return lots, each in parts, in smaller parts whose budgets are counted."""
        lots = list(chain.from_iterable(parts))
        if self.are_counted(lots):
            return parts
        if not self.noted:
            await connection.execute(_NOTE)
        parents = {reply_to for lot in lots for reply_to in lot.reply_tos or ()}
        known: dict[str, Budget] = {}
        if parents:
            for id, headers in await connection.fetch(_FIND, [*parents]):
                known[id] = known.get(id, NO_BUDGET).stricter(budget_of(headers.encode()))
        counted = iter(in_parts(lots, known, at))
        return [list(chain.from_iterable(islice(counted, len(each)))) for each in parts]

    def remember(self, changes: Iterable[Change], answers: Iterable[Any]) -> None:
        """Note what changes that are on disk now have noted there."""
        if self.present and not self.noted:
            lots = chain.from_iterable(map(written, changes, answers))
            self.noted = any(lot.budget is not None and lot.budget.is_limited for lot in lots)
