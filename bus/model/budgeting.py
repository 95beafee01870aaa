"""What replies inherit of the budgets of the messages that they answer, and which are refused for it.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import msgspec

from ..errors import BudgetSpent
from .budgets import NO_BUDGET, Budget, write_budget
from .lots import Added, Appended, Lot, NewMessage, Outcome

__all__ = ["AnsweredBudgets", "budgeted", "first_spent", "in_parts", "spent"]

_M = TypeVar("_M", NewMessage, Lot)


class AnsweredBudgets:
    """The budgets of messages that may be answered, noted in the order in which they are in the log.

    Several bots may have sent a message with one id. A reply to a bot answers that bot's message if there is one,
    so nobody else has a say in it; any other reply answers the first, which was there before its id was seen.
    """

    def __init__(self) -> None:
        self._first: dict[str, Budget] = {}
        self._of: dict[tuple[str, str], Budget] = {}

    def note(self, id: str, sender_bot_id: str, budget: Budget) -> None:
        """Note what a message leaves. The first one of its sender with its id counts."""
        self._first.setdefault(id, budget)
        self._of.setdefault((id, sender_bot_id), budget)

    def left(self, id: str, recipient_bot_id: str | None) -> Budget | None:
        """Return what the message leaves that a reply to a bot, or on a channel, answers; None if it is unknown."""
        own = None if recipient_bot_id is None else self._of.get((id, recipient_bot_id))
        return self._first.get(id) if own is None else own


def in_parts(lots: Sequence[Lot], known: AnsweredBudgets, at: str) -> list[list[Lot]]:
    """Return each lot in parts, in the order of its messages, whose budgets are counted at a time of the log.

    `known` has what is answered, and gets what is sent here. A reply to what is not known begins a thread. A
    message for which nothing is left is only looked up: its sender may have sent it when there was.
    """
    return [_parts(lot, [_counted(lot, *ids, known, at) for ids in _ids(lot)]) for lot in lots]


def _ids(lot: Lot) -> zip[tuple[str, str | None]]:
    return zip(lot.ids, lot.replies(), strict=True)


def _counted(lot: Lot, id: str, reply_to: str | None, answered: AnsweredBudgets, at: str) -> Budget | None:
    """Return the budget of a message, and note it for those that answer it."""
    budget = lot.budget or NO_BUDGET
    parent = None if reply_to is None or budget.kept else answered.left(reply_to, lot.recipient_bot_id)
    if parent is not None:
        budget = parent.of_reply().stricter(budget)
        if parent.deadline is not None and max(at, lot.due_at or "") >= parent.deadline:
            budget = msgspec.structs.replace(budget, late=True)
    if not lot.known_only and not budget.is_spent:
        answered.note(id, lot.sender_bot_id, budget)
    return budget if budget.is_limited else None


def _parts(lot: Lot, budgets: Sequence[Budget | None]) -> list[Lot]:
    """Return neighbours with the same budget as one lot each."""
    found: list[Lot] = []
    for _, alike in groupby(enumerate(budgets), itemgetter(1)):
        indexes = [at for at, _ in alike]
        part, budget = lot.part(indexes[0], indexes[-1] + 1), budgets[indexes[0]]
        found.append(part if budget is None or budget == lot.budget else budgeted(part, budget))
    return found


def budgeted(message: _M, budget: Budget | None) -> _M:
    """Return a message, or a lot, with a budget that it did not have; it expires when its thread does."""
    if budget is None or budget == message.budget:
        return message
    if budget.is_spent:
        return msgspec.structs.replace(message, budget=budget, known_only=True)
    ends = [end for end in (message.expires_at, budget.deadline) if end is not None]
    return msgspec.structs.replace(
        message,
        budget=budget,
        headers=write_budget(message.headers, budget),
        expires_at=min(ends, default=None),
    )


def spent(added: Added, reply_to: str | None) -> BudgetSpent | None:
    """Return why a message that answers another one was not stored, if nothing was left for it."""
    budget = added.budget
    if budget is None or not budget.is_spent or added.duplicate or reply_to is None:
        return None
    return BudgetSpent(reply_to, budget.deadline if budget.late else None)


def first_spent(lots: Sequence[Lot], outcomes: Sequence[Outcome]) -> BudgetSpent | None:
    """Return why the first of these messages was not stored for which nothing was left; None if there is none."""
    for lot, outcome in zip(lots, outcomes, strict=True):
        if not isinstance(outcome, Appended):
            errors = (spent(added, reply_to) for added, reply_to in zip(outcome, lot.replies(), strict=True))
            if (error := next(filter(None, errors), None)) is not None:
                return error
    return None
