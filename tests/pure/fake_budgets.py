"""Budgets of threads in a log in memory: one message after another, by the headers of those that it answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from bus.errors import BudgetSpent
from bus.model.budgets import Budget
from bus.model.repository import CommitWork, LogMessage, NewMessage

if TYPE_CHECKING:
    from .fake_log import FakeLog

__all__ = ["answered", "counted", "erased", "spent"]


def answered(log: FakeLog, message: NewMessage) -> list[NewMessage]:
    """Return the messages that a message may answer."""
    if message.reply_to is None:
        return []
    known = chain(log.by_id.items(), log.scheduled.items())
    return [parent for (id, _), parent in known if id == message.reply_to]


def counted(log: FakeLog, message: NewMessage, at: str, before: Sequence[NewMessage] = ()) -> NewMessage:
    """Return a message with what is left of the budget of its thread; `before` will be stored before it."""
    log.is_any_budget = log.is_any_budget or message.budget is not None
    if not log.is_any_budget:
        return message
    parents = [*answered(log, message), *(each for each in before if each.id == message.reply_to)]
    return _budgeted(message, parents, at)


def spent(log: FakeLog, work: CommitWork) -> BudgetSpent | None:
    """Return why a message of a commit must not be stored, if nothing is left for it."""
    before: list[NewMessage] = []
    for message in (message for lot in work.lots for message in lot.messages()):
        before.append(counted(log, message, work.timestamp, before))
        budget = before[-1].budget
        is_known = (message.id, message.sender_bot_id) in log.by_id
        if budget is not None and budget.is_spent and message.reply_to is not None and not is_known:
            return BudgetSpent(message.reply_to, budget.deadline if budget.late else None)
    return None


def erased(message: LogMessage) -> LogMessage:
    """Return a message without its contents, but for what its answers inherit."""
    headers = {name: value for name, value in json.loads(message.headers).items() if name.startswith("posthouse-")}
    return replace(message, body=b"", headers=msgspec.json.encode(headers))


def _budgeted(message: NewMessage, answered: Iterable[NewMessage], at: str) -> NewMessage:
    """Return a message with what the messages that it answers leave for it."""
    own = message.budget or Budget()
    if own.kept:
        return message
    headers = [json.loads(each.headers) for each in answered]
    hops = [int(each["posthouse-hops"]) - 1 for each in headers if "posthouse-hops" in each]
    ends = [each["posthouse-deadline"] for each in headers if "posthouse-deadline" in each]
    late = any(max(at, message.due_at or "") >= end for end in ends)
    least = min([*hops, *([] if own.hops is None else [own.hops])], default=None)
    end = min([*ends, *([] if own.deadline is None else [own.deadline])], default=None)
    if least is None and end is None:
        return message
    budget = Budget(least, end, late)
    if budget.is_spent:
        return replace(message, budget=budget, known_only=True)
    written = json.loads(message.headers) | ({} if least is None else {"posthouse-hops": str(least)})
    written |= {} if end is None else {"posthouse-deadline": end}
    expires_at = min([each for each in (message.expires_at, end) if each is not None], default=None)
    return replace(message, budget=budget, headers=msgspec.json.encode(written), expires_at=expires_at)
