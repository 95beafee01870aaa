"""What the checker answers, and what it has to be told: the kinds of broken promises, rules and verdicts.

Pure.
"""

from __future__ import annotations

import msgspec

__all__ = ["KINDS", "Fault", "Rules", "Verdict", "Violation"]

Fault = tuple[str, str]
"""A kind, and a sentence with the evidence."""

KINDS = (
    "lost",
    "unsafe",
    "never_sent",
    "refused_yet_there",
    "duplicated",
    "two_bodies",
    "out_of_order",
    "redelivered",
    "dead_letters",
    "credit",
    "early",
    "late",
    "misdirected",
    "budgets",
    "gaps",
    "expelled",
    "not_subscribed",
    "subscriptions",
    "checkpoints",
    "torn",
    "not_drained",
    "presence",
    "damage",
)
"""What can go wrong; each is explained beside its check."""


class Rules(msgspec.Struct, frozen=True):
    """What the checker has to know of the worker and its settings.

    An ack that was answered within `sure_seconds` of the delivery came in time: that is below the worker's
    `ack_wait` by what a message may have lain in a socket. What changed in a mailbox is on disk with the first
    batch that is taken `flush_seconds` later. After `max_deliver` failures a message is a dead letter. `retained`
    has the channels of which only the newest messages are kept, and how many.
    """

    sure_seconds: float = 10.0
    flush_seconds: float = 0.2
    max_deliver: int = 5
    retained: dict[str, int] = {}


class Violation(msgspec.Struct, frozen=True):
    """One broken promise, in a sentence with its evidence."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Verdict(msgspec.Struct, frozen=True):
    """What was counted, and what was found wrong: at most some of each kind, all of them counted."""

    counts: dict[str, int]
    violations: list[Violation]

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return not self.violations

    @property
    def kinds(self) -> set[str]:
        """The kinds that were found."""
        return {violation.kind for violation in self.violations}

    def __str__(self) -> str:
        counted = ", ".join(f"{name} {number}" for name, number in self.counts.items())
        return "\n".join([counted, *map(str, self.violations)])
