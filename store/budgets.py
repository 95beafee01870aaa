"""What is left of the budgets of threads: counted in the transaction that stores a reply.

Owns the look-up of what replies answer, in every backend, and the note that some message has a budget. While there
is none, nothing is looked up. What a reply inherits is decided in `bus.model.budgeting`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any

from bus.model.arriving import written
from bus.model.budgeting import AnsweredBudgets, in_parts
from bus.model.budgets import budget_of
from bus.model.repository import Change, Lot

from .statements import Statements

__all__ = ["Budgets", "is_any_budget"]

_NOTE = "UPDATE log SET budgets = TRUE WHERE budgets = FALSE"

# The first with an id in the log, the others, and what waits, as it becomes due.
_FIND = """
    SELECT id, sender_bot_id, headers, 0 AS place, '' AS due_at FROM bot_messages
        WHERE id IN [?1] AND copied = FALSE
    UNION ALL SELECT id, sender_bot_id, headers, 1, '' FROM bot_messages WHERE id IN [?1] AND copied = TRUE
    UNION ALL SELECT id, sender_bot_id, headers, 2, due_at FROM scheduled_messages WHERE id IN [?1]
    ORDER BY place, due_at"""


async def is_any_budget(run: Statements) -> bool:
    """Return True if a message has, or had, a budget."""
    [[found]] = await run("SELECT budgets FROM log")
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

    async def count(self, run: Statements, parts: list[list[Lot]], at: str) -> list[list[Lot]]:
        """Return lots, each in parts, in smaller parts whose budgets are counted."""
        lots = list(chain.from_iterable(parts))
        if self.are_counted(lots):
            return parts
        if not self.noted:
            await run(_NOTE)
        parents = {reply_to for lot in lots for reply_to in lot.reply_tos or ()}
        known = AnsweredBudgets()
        for id, sender_bot_id, headers, *_ in await run(_FIND, [*parents]) if parents else ():
            known.note(id, sender_bot_id, budget_of(headers.encode()))
        counted = iter(in_parts(lots, known, at))
        return [list(chain.from_iterable(islice(counted, len(each)))) for each in parts]

    def remember(self, changes: Iterable[Change], answers: Iterable[Any]) -> None:
        """Note what changes that are on disk now have noted there."""
        if self.present and not self.noted:
            lots = chain.from_iterable(map(written, changes, answers))
            self.noted = any(lot.budget is not None and lot.budget.is_limited for lot in lots)
