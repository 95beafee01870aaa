"""Questions that wait for their turn: which one is answered next.

Owns the order. Its rules:

- Bots take turns, so a bot that asks a lot makes the others wait for one of its questions, and not for all.
- A session whose answers are still on their way is passed over until it has read some of them.
- A bot may have so many questions open, and all bots together so many; more are `busy`.
- If those of all bots are too many, a question whose session does not read makes room, or else the newest one
  of the bot that has most. So nobody keeps the others out.

Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ..settings import Limits
from ..wire.frames import Code, Refusal
from .effects import Ask, FindStart
from .shares import Share

__all__ = ["Question", "Questions"]

Question = Ask | FindStart


class Questions:
    """See the module. A question is open from `add` to `done`."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: dict[str, deque[Question]] = {}
        """By bot; the first bot's turn is next."""
        self._open: dict[str, int] = {}
        self._count = 0

    def __repr__(self) -> str:
        return f"<Questions open={self._count} bots={len(self._open)}>"

    def __len__(self) -> int:
        return self._count

    def add(
        self, question: Question, may_send: Callable[[bytes], bool], share: Share | None = None
    ) -> Question | None:
        """Let a question wait for its turn, and return one that made room for it and is `busy`, or None.

        `may_send` says whether a connection has room for an answer, and `share` how many questions its bot may have
        open, if that is not what every bot may. Raise Refusal if too many are.
        """
        own = self._open.get(question.bot_id, 0)
        if own >= (self._limits.queries_per_bot_max if share is None else share.questions):
            text = f"{own} queries of this bot are in progress, the maximum; try again later"
            raise Refusal(Code.BUSY, text) if share is None else share.refusal("questions", text)
        displaced = None
        if self._count >= self._limits.queries_max:
            displaced = self._least_urgent(own + 1, may_send)
            if displaced is None:
                raise Refusal(Code.BUSY, f"{self._count} queries are in progress, the maximum; try again later")
            self._remove(displaced)
            self.done(displaced)
        self._count += 1
        self._open[question.bot_id] = own + 1
        self._waiting.setdefault(question.bot_id, deque()).append(question)
        return displaced

    def _least_urgent(self, most: int, may_send: Callable[[bytes], bool]) -> Question | None:
        """Return the waiting question that makes room; None if no bot has more than `most` open."""
        for questions in self._waiting.values():
            for question in questions:
                if not may_send(question.address):
                    return question
        bot_id = max(self._waiting, key=lambda bot_id: self._open[bot_id], default=None)
        return None if bot_id is None or self._open[bot_id] <= most else self._waiting[bot_id][-1]

    def _remove(self, question: Question) -> None:
        questions = self._waiting[question.bot_id]
        questions.remove(question)
        if not questions:
            del self._waiting[question.bot_id]

    def take(self, may_send: Callable[[bytes], bool]) -> Question | None:
        """Return the next question; `may_send` says whether a connection has room for an answer."""
        for bot_id, questions in self._waiting.items():
            question = next((each for each in questions if may_send(each.address)), None)
            if question is not None:
                questions.remove(question)
                del self._waiting[bot_id]
                if questions:
                    self._waiting[bot_id] = questions  # behind the others
                return question
        return None

    def done(self, question: Question) -> None:
        """Note that a question was answered, or is not needed any more."""
        self._count -= 1
        self._open[question.bot_id] -= 1
        if not self._open[question.bot_id]:
            del self._open[question.bot_id]

    def discard(self, is_gone: Callable[[bytes], bool]) -> None:
        """Drop the questions of connections that will not read an answer."""
        for questions in list(self._waiting.values()):
            for question in [question for question in questions if is_gone(question.address)]:
                self._remove(question)
                self.done(question)
