"""What the checker expects of budgets of threads: an answer has what was left, and none is accepted beyond that.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from .history import Final
from .ledger import Ledger, Letter, key_of
from .verdict import Fault

__all__ = ["budgets"]


class _Unknown(Exception):
    """What a message answers is not in the log at the end, so it is unknown what was left."""


def budgets(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """No answer beyond a budget is accepted, and none within it refused, whatever happened to the worker meanwhile.

    Others use the same ids, with no hops: what counts is the message of the bot that is answered.
    """
    stored = {key_of(message) for message in final.messages}
    delivered = {(handed.message.id, handed.message.sender): handed.message.hops for handed in ledger.handed}
    for letter in ledger.letters.values():
        try:
            left = _left(ledger, stored, letter)
        except _Unknown:
            continue
        what = f"message {letter.sent.id} of {letter.sender}, an answer to {letter.sent.reply_to},"
        if left is not None and left < 0:
            if letter.acked_at is not None or letter.key in stored:
                yield "budgets", f"{what} was accepted, and nothing was left of its thread"
        elif letter.spent:
            yield "budgets", f"{what} was refused, and {left} hops were left after it"
        elif letter.key in delivered and delivered[letter.key] != left:
            yield "budgets", f"{what} was delivered with {delivered[letter.key]} hops, and {left} are left"


def _left(ledger: Ledger, stored: set[tuple[str, str]], letter: Letter) -> int | None:
    """Return how many messages may follow a message; -1 if it must not be accepted, None without a limit."""
    own, answered = letter.sent.hops, letter.sent.reply_to
    if answered is None:
        return own
    parent = ledger.letters.get((answered, letter.sent.to or ""))
    if parent is None or parent.key not in stored:
        raise _Unknown
    left = _left(ledger, stored, parent)
    return own if left is None else min(left - 1, left - 1 if own is None else own)
