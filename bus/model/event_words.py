"""Events of the worker in words, for people: what happened, in a line without its time.

Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors.words import amount
from .events import (
    ApprovalWaiting,
    DeadLettersAdded,
    MailboxDrained,
    MailboxFilling,
    MessagesRemoved,
    PresenceConnected,
    PresenceEnded,
    PresenceVanished,
    RunsCrashed,
    SessionEnded,
    SessionOpened,
    SessionVanished,
    StorageDrained,
    StorageFilled,
    StorageFilling,
    ThreadEnded,
    WillDropped,
    WillSent,
    WorkerEvent,
    WorkerServing,
    read_event,
)

__all__ = ["COMES_AND_GOES", "event_in_words", "words_of"]

COMES_AND_GOES = frozenset({"session.opened", "session.ended"})
"""The types of events that happen all the time, and need nobody."""

_MANY = "many bots"


def words_of(message_type: str, body: Any) -> str:
    """Return what a message of the worker's channel tells; of one that is not known, its type."""
    try:
        event = read_event(message_type, body)
    except msgspec.ValidationError:  # a later version's
        event = None
    return message_type if event is None else event_in_words(event)


def event_in_words(event: WorkerEvent) -> str:
    """Return what an event tells."""
    match event:
        case SessionOpened(bot=bot) | PresenceConnected(bot=bot):
            return f"{bot or _MANY} opened a session"
        case SessionEnded(bot=bot) | PresenceEnded(bot=bot):
            return f"{bot or _MANY} ended a session"
        case SessionVanished(bot=bot) | PresenceVanished(bot=bot):
            return f"a session of {bot or _MANY} vanished: its connection broke, or was silent"
        case MailboxFilling(bot=bot, waiting=waiting, messages_max=most):
            return f"the mailbox of {bot or _MANY} was nearly full: {waiting:,} of {amount(most, 'message')} waited"
        case MailboxDrained(bot=bot):
            return f"the mailbox of {bot or _MANY} had room again"
        case WillSent(bot=bot):
            return f"the last will of {bot or _MANY} was sent"
        case WillDropped(bot=bot, code=code):
            return f"the last will of {bot or _MANY} was deleted, and not sent: {code}"
        case ThreadEnded(bot=bot):
            return f"an answer of {bot or _MANY} was refused: nothing was left of the budget of its thread"
        case DeadLettersAdded(mailbox=mailbox, dead_letters=count, listed=listed):
            reason = f": {listed[0].reason}" if listed else ""
            return f"{amount(count, 'dead letter')} in {mailbox or 'many mailboxes'}{reason}"
        case RunsCrashed(runs=count, listed=listed):
            first = listed[0] if listed else None
            what = f", of workflow {first.workflow_name}: {first.run_id}" if first is not None else ""
            return f"{amount(count, 'run')} crashed{what}"
        case _:
            return _of_house(event)


def _of_house(
    event: ApprovalWaiting | MessagesRemoved | StorageDrained | StorageFilled | StorageFilling | WorkerServing,
) -> str:
    match event:
        case ApprovalWaiting(run_id=run, step_name=step):
            return f"run {run} waits for an approval: {step}"
        case MessagesRemoved(messages=count):
            return f"retention removed {amount(count, 'message')}"
        case StorageFilled():
            return "storage was full, and messages were refused"
        case StorageFilling(storage=level):
            return f"room for the database was {level.in_words}"
        case StorageDrained(storage=level):
            return f"room for the database was {level.in_words} again"
        case WorkerServing(version=version, command=command):
            return f"the worker began to serve at {command} ({version})"
