"""Budgets of threads in a log in memory: what is known of the messages that are answered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from bus.errors import BudgetSpent
from bus.model.budgeting import AnsweredBudgets, first_spent, in_parts
from bus.model.budgets import budget_of
from bus.model.repository import Added, CommitWork, LogMessage, Lot, NewMessage, lots_of

if TYPE_CHECKING:
    from .fake_log import FakeLog

__all__ = ["answered", "counted", "erased", "spent"]


def answered(log: FakeLog, message: NewMessage) -> list[NewMessage]:
    """Return the messages that a message may answer: those in the log first."""
    if message.reply_to is None:
        return []
    waiting = sorted(log.scheduled.values(), key=lambda each: each.due_at or "")
    return [each for each in chain(log.by_id.values(), waiting) if each.id == message.reply_to]


def counted(log: FakeLog, message: NewMessage, at: str) -> NewMessage:
    """Return a message with what is left of the budget of its thread."""
    [[part]] = _counted(log, lots_of([message]), at)
    return next(part.messages())


def spent(log: FakeLog, work: CommitWork) -> BudgetSpent | None:
    """Return why a message of a commit must not be stored, if nothing is left for it."""
    parts = list(chain.from_iterable(_counted(log, work.lots, work.timestamp)))
    return first_spent(
        parts,
        [
            [Added(None, duplicate=(id, part.sender_bot_id) in log.by_id, budget=part.budget) for id in part.ids]
            for part in parts
        ],
    )


def erased(message: LogMessage) -> LogMessage:
    """Return a message without its contents, but for what its answers inherit."""
    headers = {name: value for name, value in json.loads(message.headers).items() if name.startswith("posthouse-")}
    return replace(message, body=b"", headers=msgspec.json.encode(headers))


def _counted(log: FakeLog, lots: Sequence[Lot], at: str) -> list[list[Lot]]:
    log.is_any_budget = log.is_any_budget or any(lot.budget is not None for lot in lots)
    if not log.is_any_budget:
        return [[lot] for lot in lots]
    known = AnsweredBudgets()
    for message in (message for lot in lots for message in lot.messages()):
        for each in answered(log, message):
            known.note(each.id, each.sender_bot_id, budget_of(each.headers))
    return in_parts(lots, known, at)
