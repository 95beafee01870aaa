"""Faults in how budgets of threads are counted and told: see `test_mutations`, which puts them in."""

from __future__ import annotations

from functools import reduce

import msgspec
import pytest

from bus.core import admission, checking, publishing
from bus.model.budgeting import AnsweredBudgets
from bus.model.budgets import Budget
from bus.wire.frames import Publication

__all__ = [
    "delivers_what_was_left_before",
    "gives_hops_as_it_likes",
    "lets_others_end_a_thread",
    "lets_who_copies_an_id_have_a_say",
    "says_nothing_of_a_spent_answer",
]


def gives_hops_as_it_likes(patch: pytest.MonkeyPatch) -> None:
    """A lot whose threads have the hops of the first of its neighbours."""
    are_alike = checking._are_alike

    def broken(one: Publication, other: Publication) -> bool:
        return are_alike(one, msgspec.structs.replace(other, hops=one.hops))

    patch.setattr(checking, "_are_alike", broken)


def delivers_what_was_left_before(patch: pytest.MonkeyPatch) -> None:
    """An answer that is delivered from memory with what its sender asked for, and not with what is left."""
    patch.setattr(admission, "budgeted", lambda lot, budget: lot)


def lets_others_end_a_thread(patch: pytest.MonkeyPatch) -> None:
    """An answer that gets the least of what all messages with the id leave, whoever sent them."""
    left = AnsweredBudgets.left

    def broken(self: AnsweredBudgets, id: str, recipient_bot_id: str | None) -> Budget | None:
        of_all = [budget for (known, _), budget in self._of.items() if known == id]
        return left(self, id, None) and reduce(Budget.stricter, of_all)

    patch.setattr(AnsweredBudgets, "left", broken)


def lets_who_copies_an_id_have_a_say(patch: pytest.MonkeyPatch) -> None:
    """An answer to somebody else that gets what the newest message with the id leaves."""
    note = AnsweredBudgets.note

    def broken(self: AnsweredBudgets, id: str, sender_bot_id: str, budget: Budget) -> None:
        self._first.pop(id, None)
        note(self, id, sender_bot_id, budget)

    patch.setattr(AnsweredBudgets, "note", broken)


def says_nothing_of_a_spent_answer(patch: pytest.MonkeyPatch) -> None:
    """An answer that is not stored, and of which its sender is told nothing."""
    patch.setattr(publishing, "spent", lambda added, reply_to: None)
