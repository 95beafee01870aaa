"""What a simulated world expects of the budgets of threads: what each message has left, and what is refused.

Owns a model of its own: what each bot asked for. What a message leaves is read in the log, where it is stored.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from bus.model.repository import (
    AddMessages,
    Change,
    Committed,
    CommitWork,
    LogMessage,
    NewMessage,
    RemoveMessages,
    each,
)
from bus.wire.frames import Publication, Published

from .fake_log import FakeLog

__all__ = ["BudgetPromises"]


def _hops(message: NewMessage) -> int | None:
    hops = json.loads(message.headers).get("posthouse-hops")
    return None if hops is None else int(hops)


def _deadline(message: NewMessage) -> str | None:
    deadline: str | None = json.loads(message.headers).get("posthouse-deadline")
    return deadline


def _least(*values: Any) -> Any:
    return min((value for value in values if value is not None), default=None)


class BudgetPromises:
    """See the module."""

    def __init__(self, log: FakeLog) -> None:
        self._log = log
        self._known = 0
        """The seq up to which the log was before this transaction."""
        self._asked: defaultdict[tuple[str, str], list[Publication]] = defaultdict(list)
        """What a bot sent with an id, each time: the first that was stored counts."""
        self.refused = 0

    def note_sent(self, bot_id: str, publications: Sequence[Publication]) -> None:
        """A bot sends messages."""
        for publication in publications:
            self._asked[publication.id, bot_id].append(publication)

    def refusals(self, messages: Sequence[Publication], published: Published) -> Iterator[str]:
        """Yield what is wrong with the answer to messages."""
        codes = {error.index: error.code for error in published.errors}
        for index, (message, seq) in enumerate(zip(messages, published.seqs, strict=True)):
            if (seq is None) != (index in codes or index in published.scheduled):
                yield f"{message.id} was neither stored nor refused"
            self.refused += codes.get(index) == "budget_spent"

    def faults(self, changes: Sequence[Change], answers: Sequence[Any]) -> Iterator[str]:
        """Yield what is wrong with messages of a transaction that was carried out."""
        known, self._known = self._known, self._log.last_seq
        if any(isinstance(change, RemoveMessages) for change in changes):
            return  # it is unknown which came first
        for change, answer in zip(changes, answers, strict=True):
            outcomes = answer.added if isinstance(answer, Committed) else answer
            if isinstance(change, AddMessages | CommitWork) and isinstance(outcomes, list):
                for lot, outcome in zip(change.lots, outcomes, strict=True):
                    for message, added in zip(lot.messages(), each(lot, outcome), strict=True):
                        if added.seq is not None and not added.duplicate:
                            yield from self._stored(self._log.messages[added.seq])
                        elif added.budget is not None and added.budget.is_spent and not added.duplicate:
                            yield from self._refused(message, known)

    def _stored(self, message: LogMessage) -> Iterator[str]:
        asked = self._asked.get((message.id, message.sender_bot_id), [])
        if not asked:
            return  # the worker's own
        answered = self._answered(message, message.seq - 1)
        hops, ends = (None, None) if answered is None else (_hops(answered), _deadline(answered))
        left = None if hops is None else hops - 1
        if (left is not None and left < 0) or (ends is not None and message.timestamp >= ends):
            yield f"{message.seq} answers what has nothing left"
        if _hops(message) not in {_least(left, one.hops) for one in asked}:
            yield f"{message.seq} has {_hops(message)} hops, of {left} that were left"
        deadline = _deadline(message)
        if ends is not None and (deadline is None or deadline > ends):
            yield f"{message.seq} ends at {deadline}, and its thread at {ends}"
        if ends is None and (deadline is None) not in {one.deadline is None for one in asked}:
            yield f"{message.seq} ends at {deadline}, which nobody asked for"
        if deadline is not None and (message.expires_at is None or message.expires_at > deadline):
            yield f"{message.seq} outlives its thread"

    def _refused(self, message: NewMessage, known: int) -> Iterator[str]:
        if self._answered(message, known) is not self._answered(message, self._log.last_seq):
            return  # it is unknown which came first
        answered = self._answered(message, known)
        if answered is None or (_hops(answered) != 0 and _deadline(answered) is None):
            yield f"{message.id} was refused, and what it answers has something left"

    def _answered(self, message: NewMessage, through_seq: int) -> NewMessage | None:
        """Return what a message answers: what the bot sent that it is sent to, or else the first with the id."""
        stored = [one for one in self._log.messages.values() if one.seq <= through_seq]
        known = [one for one in [*stored, *self._log.scheduled.values()] if one.id == message.reply_to]
        own = [one for one in known if one.sender_bot_id == message.recipient_bot_id]
        return next(iter([*own, *known]), None)
