"""A thread as a tree: each message below the one that it answers.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..wire.frames import StoredMessage

__all__ = ["Branch", "tree"]

_DEPTH_MAX = 12
"""A deeper answer is drawn no further to the right."""


class Branch(NamedTuple):
    """A message, and how far to the right it is drawn."""

    depth: int
    message: StoredMessage


def tree(messages: Sequence[StoredMessage]) -> list[Branch]:
    """Return messages in the order in which a tree is read; an answer to one that is not there is a root."""
    ordered = sorted(messages, key=lambda message: message.seq)
    first = {message.id: message.seq for message in reversed(ordered)}
    answers: dict[str, list[StoredMessage]] = {}
    roots: list[StoredMessage] = []
    for message in ordered:
        # Only to an earlier one, so that ids which name each other make no circle.
        if message.reply_to is not None and first.get(message.reply_to, message.seq) < message.seq:
            answers.setdefault(message.reply_to, []).append(message)
        else:
            roots.append(message)
    found: list[Branch] = []
    waiting = [Branch(0, root) for root in reversed(roots)]
    while waiting:
        branch = waiting.pop()
        found.append(branch)
        deeper = min(branch.depth + 1, _DEPTH_MAX)
        waiting += [Branch(deeper, each) for each in reversed(answers.pop(branch.message.id, ()))]
    return found
