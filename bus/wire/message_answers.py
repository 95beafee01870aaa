"""Answers about messages: what is stored, what became of it, and what a mailbox has.

Owns the structure that all values of answers have in common. `answers` has all of them.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from ..model.budgets import Budget, budget_in
from ..model.priorities import Priority

__all__ = [
    "AnswerValue",
    "DeadLetterAnswer",
    "DeadLetterList",
    "DelayedAnswer",
    "DelayedList",
    "Fate",
    "FoundMessage",
    "HistoryPage",
    "KeptMessage",
    "ListedDeadLetter",
    "ListedDelayed",
    "ListedWill",
    "MailboxAnswer",
    "MailboxContents",
    "MessageAnswer",
    "MessageState",
    "Retried",
    "WaitingIn",
    "WaitingMessage",
]

M = TypeVar("M")
"""A message: JSON when the worker writes it, a struct when a client reads it."""
D = TypeVar("D")
"""A dead letter, likewise."""


class AnswerValue(msgspec.Struct, frozen=True):
    """What all answers have in common: a field can also be read by its name, as in `status["last_seq"]`."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__struct_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__struct_fields__)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the field of that name, or the default if there is no such field."""
        return self[name] if name in self.__struct_fields__ else default

    def keys(self) -> tuple[str, ...]:
        """Return the names of all fields, so that `dict(answer)` works."""
        return self.__struct_fields__


class KeptMessage(AnswerValue, frozen=True, kw_only=True, omit_defaults=True):
    """A message as the worker stores it. A delayed one that is not due yet has neither seq nor timestamp."""

    seq: int | None
    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient: dict[str, str]
    message_type: str
    body: Any
    reply_to: str | None
    headers: dict[str, str]
    timestamp: str | None
    tainted: bool = False
    """Whether it comes from outside, or answers a message that does."""
    priority: Priority = "normal"
    erased: bool = False
    """Whether its body and headers were erased: they are null, and empty but for the budget of its thread."""

    @property
    def budget(self) -> Budget:
        """What is left of its thread after it."""
        return budget_in(self.headers)


class HistoryPage(AnswerValue, Generic[M], frozen=True):
    """Part of a conversation, newest first; `more` says that there are older messages."""

    messages: list[M]
    more: bool


class MessageState(AnswerValue, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a message in one mailbox.

    `state` is "waiting", "in_flight", "returned", "settled", "dead" or "expired".
    """

    state: str
    attempts: int = 0
    """How often it was delivered, as far as the mailbox still knows: not once it is settled."""
    failures: int = 0
    """How many of its deliveries failed."""
    session: str | None = None
    """The session that has it in flight; `held_by` is that session's bot, and `since` when it got the message."""
    held_by: str | None = None
    since: str | None = None
    deadline: str | None = None
    """When its `ack_wait` is over; None if it is parked."""
    parked: bool = False
    due_at: str | None = None
    """When it is returned, after a delay."""


class Fate(MessageState, frozen=True, kw_only=True, omit_defaults=True):
    """The state of a message in one mailbox: a bot's, or a group's, which has no `bot`."""

    bot_id: str | None
    bot: str | None
    group: str | None = None
    channel: str | None = None
    """The channel of that group."""
    reason: str | None = None
    """Why it is a dead letter, and since when."""
    given_up_at: str | None = None

    @property
    def mailbox(self) -> str:
        """The name of the mailbox: its bot's, or CHANNEL/GROUP."""
        return self.bot or f"{self.channel}/{self.group}"


class ListedWill(AnswerValue, frozen=True):
    """A last will: the id of its message, and its recipient: a channel's `name`, or the name of a `bot`.

    It is sent if its bot is away for `delay` seconds: at `due_at`, if it is away now.
    """

    id: str
    recipient: dict[str, str]
    delay: float
    due_at: str | None = None


class MessageAnswer(AnswerValue, Generic[M], frozen=True, omit_defaults=True):
    """A message, its state in each mailbox it went to, and when it is due if it is delayed, or when it expires."""

    message: M
    mailboxes: list[Fate]
    due_at: str | None = None
    expires_at: str | None = None
    will: ListedWill | None = None
    """If it is the last will of its sender, which was not sent yet."""


class FoundMessage(MessageAnswer[KeptMessage], frozen=True, omit_defaults=True):
    """A requested message, as a client reads it."""


class DeadLetterAnswer(AnswerValue, Generic[M], frozen=True):
    """A message that a mailbox gave up on; `message` is None if it is no longer in the log."""

    seq: int
    reason: str
    attempts: int
    at: str
    message: M | None


class ListedDeadLetter(DeadLetterAnswer[KeptMessage], frozen=True):
    """A dead letter as a client reads it."""


class DeadLetterList(AnswerValue, Generic[D], frozen=True, omit_defaults=True):
    """Dead letters of a mailbox, newest first; `more` says that there are older ones."""

    dead_letters: list[D]
    more: bool = False


class DelayedAnswer(AnswerValue, Generic[M], frozen=True):
    """A message that is not due yet, and when it is."""

    message: M
    due_at: str


class ListedDelayed(DelayedAnswer[KeptMessage], frozen=True):
    """A delayed message as a client reads it."""


class DelayedList(AnswerValue, Generic[D], frozen=True, omit_defaults=True):
    """Delayed messages, by when they are due; `more` says that there are later ones."""

    messages: list[D]
    more: bool = False


class Retried(AnswerValue, frozen=True):
    """How many dead letters were put back into the mailbox."""

    retried: int


class WaitingMessage(MessageState, Generic[M], frozen=True, kw_only=True, omit_defaults=True):
    """A message that a mailbox has not settled, and its state there."""

    message: M
    expires_at: str | None = None


class WaitingIn(AnswerValue, frozen=True):
    """How many messages of a mailbox are in each state."""

    waiting: int
    in_flight: int
    parked: int
    """Those in flight that are parked."""
    returned: int
    """Those to be redelivered."""
    delayed: int
    """Those of them that are not due yet."""
    dead: int


class MailboxAnswer(AnswerValue, Generic[M], frozen=True, kw_only=True, omit_defaults=True):
    """What a mailbox has not settled, oldest first; `more` says that there are later messages.

    It is the mailbox of a bot, or of a channel's group.
    """

    name: str
    bot_id: str | None
    channel: str | None
    group: str | None
    position: int
    """The highest seq that was delivered in order."""
    sessions: int
    """How many sessions take messages from it."""
    free: int
    """How many more messages their credit allows."""
    paused: list[str] = []
    """Channels of which nothing is delivered, because the bot may not have them."""
    counts: WaitingIn
    oldest_at: str | None = None
    """When the oldest message that is not settled entered the log."""
    messages: list[WaitingMessage[M]]
    more: bool = False


class MailboxContents(MailboxAnswer[KeptMessage], frozen=True, kw_only=True, omit_defaults=True):
    """A mailbox as a client reads it."""
