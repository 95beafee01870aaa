"""The budget of a thread: how many more messages may answer each other, and until when.

Owns how a message says what is left of it: in two of its headers, which only the worker writes. So it is stored,
checked, exported, moved and delivered as the headers are.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = [
    "DEADLINE_HEADER",
    "HOPS_HEADER",
    "NO_BUDGET",
    "RESERVED_HEADERS",
    "Budget",
    "budget_in",
    "budget_of",
    "write_budget",
]

HOPS_HEADER, DEADLINE_HEADER = "posthouse-hops", "posthouse-deadline"

RESERVED_HEADERS = frozenset({HOPS_HEADER, DEADLINE_HEADER})
"""The headers that only the worker writes."""

_MARK = b'"posthouse-'
"""Occurs in all headers with a budget."""

_headers = msgspec.json.Decoder(dict[str, str])


class Budget(msgspec.Struct, frozen=True, gc=False):
    """What is left of the budget of a thread after a message of it. None means no limit."""

    hops: int | None = None
    """How many messages may follow, each an answer to the one before; below 0, the message is one too many."""
    deadline: str | None = None
    """From this time of the log on, no answer is accepted."""
    late: bool = False
    """Whether the message itself would enter the log too late."""
    kept: bool = False
    """Whether it is that of its message whatever that answers: it was counted when the message was sent."""

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.hops is not None or self.deadline is not None

    @property
    def is_spent(self) -> bool:
        """Whether the message must not be stored."""
        return self.late or (self.hops is not None and self.hops < 0)

    def stricter(self, other: Budget) -> Budget:
        """Return the smaller of both limits."""
        hops = min((each.hops for each in (self, other) if each.hops is not None), default=None)
        deadline = min((each.deadline for each in (self, other) if each.deadline is not None), default=None)
        return Budget(hops, deadline)

    def of_reply(self) -> Budget:
        """Return what an answer to the message may have at most."""
        return Budget(None if self.hops is None else self.hops - 1, self.deadline)


NO_BUDGET = Budget()


def budget_of(headers: bytes) -> Budget:
    """Return the budget that the headers of a stored message say."""
    if _MARK not in headers:
        return NO_BUDGET
    try:
        return budget_in(_headers.decode(headers))
    except ValueError:  # it is damaged, which is told where the message is read
        return NO_BUDGET


def budget_in(headers: Mapping[str, str]) -> Budget:
    """Return the budget that headers say, as they are delivered."""
    hops = headers.get(HOPS_HEADER, "")
    return Budget(int(hops) if hops.isdecimal() else None, headers.get(DEADLINE_HEADER))


def write_budget(headers: bytes, budget: Budget) -> bytes:
    """Return headers that say this budget, and no other."""
    if not budget.is_limited and _MARK not in headers:
        return headers
    written = {name: value for name, value in _headers.decode(headers).items() if name not in RESERVED_HEADERS}
    if budget.hops is not None:
        written[HOPS_HEADER] = str(budget.hops)
    if budget.deadline is not None:
        written[DEADLINE_HEADER] = budget.deadline
    return msgspec.json.encode(written)
