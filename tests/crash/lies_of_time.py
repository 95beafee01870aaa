"""Workers that are broken on purpose in what lasts: retention, clients that return, pauses, commits on their way.

Owns the lies, as `lies_of_mailboxes` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from bus.core.core import Core
from bus.core.dispatch import Dispatch
from bus.core.effects import Moment
from bus.core.retention import Retention
from bus.core.returning import Returning
from bus.core.settling import Settling
from bus.mailbox.leaving import Leaving
from bus.mailbox.losses import Losses
from bus.mailbox.mailbox import Mailbox
from bus.mailbox.outstanding import Outstanding
from bus.mailbox.sessions import Session
from bus.model.repository import MailboxState

from .lies_of_mailboxes import changed_state, replace

__all__ = ["LIES_OF_TIME", "TELLERS_OF_TIME"]

LIES_OF_TIME: dict[str, set[str]] = {
    "gap_forgotten": {"gaps"},
    "gap_not_told": {"gaps"},
    "dead_letters_removed": {"lost"},
    "removed_too_early": {"gaps"},
    "goodbyes_are_failures": {"dead_letters"},
    "pauses_expel": {"expelled"},
    "not_held_unsaid": {"redelivered"},
    "nak_delay_forgotten": {"early"},
}
"""Each with the kinds of violations of which one has to be found."""

_PAUSE_SECONDS = 2.0
"""A worker that stood still for so long was paused, and not merely slow."""


# ── Retention ────────────────────────────────────────────────────────────────────────────────────────────


def _gap_forgotten() -> None:
    replace(Losses, "saved", lambda _: lambda losses: None)


def _gap_not_told() -> None:
    replace(Dispatch, "send_gap", lambda _: lambda dispatch, mailbox, sessions: None)


def _can_lose(also: Callable[[Leaving, int], bool]) -> None:
    def make(honest: Any) -> Any:
        def can_lose(leaving: Leaving, seq: int) -> bool:
            return bool(honest(leaving, seq)) or also(leaving, seq)

        return can_lose

    replace(Leaving, "can_lose", make)


def _dead_letters_removed() -> None:
    _can_lose(lambda leaving, seq: seq in leaving._dead_letters.dead)


def _removed_too_early() -> None:
    def make(honest: Any) -> Any:
        def begin(retention: Retention, settings: Any, *others: Any, **named: Any) -> None:
            channels = {
                name: msgspec.structs.replace(keep, messages_max=keep.messages_max // 2)
                for name, keep in settings.channels.items()
            }
            honest(retention, msgspec.structs.replace(settings, channels=channels), *others, **named)

        return begin

    replace(Retention, "__init__", make)


# ── Clients that return, and naks ────────────────────────────────────────────────────────────────────────


def _goodbyes_are_failures() -> None:
    def make(honest: Any) -> Any:
        def detach(mailbox: Mailbox, *moment: Any, vanished: bool, **named: Any) -> Any:
            return honest(mailbox, *moment, vanished=True, **named)

        return detach

    replace(Mailbox, "detach", make)


def _pauses_expel() -> None:
    def make(honest: Any) -> Any:
        def tick(core: Core, moment: Moment) -> Any:
            if 0 < core._hearing.ticked_at < moment.now - _PAUSE_SECONDS:
                core._hearing.ticked(moment.now)
                for session in core.sessions:
                    session.last_heard = -1e9
            return honest(core, moment)

        return tick

    replace(Core, "tick", make)


def _not_held_unsaid() -> None:
    replace(Outstanding, "keep", lambda _: lambda outstanding, session, seqs, now, *, earlier: [])
    replace(Returning, "keep", lambda _: lambda returning, *hello: [])

    def answer(settling: Settling, session: Session, request: Any, *_: Any) -> None:
        mailboxes = settling._directory.mailboxes_lent_to(session)
        settling.confirm(session, request.request, mailboxes)

    replace(Settling, "answer", lambda _: answer)


def _nak_delay_forgotten() -> None:
    def change(state: MailboxState) -> MailboxState:
        unsettled = tuple(msgspec.structs.replace(item, due_at=None) for item in state.unsettled)
        return msgspec.structs.replace(state, unsettled=unsettled)

    changed_state(change)


TELLERS_OF_TIME: dict[str, Callable[[], None]] = {
    "gap_forgotten": _gap_forgotten,
    "gap_not_told": _gap_not_told,
    "dead_letters_removed": _dead_letters_removed,
    "removed_too_early": _removed_too_early,
    "goodbyes_are_failures": _goodbyes_are_failures,
    "pauses_expel": _pauses_expel,
    "not_held_unsaid": _not_held_unsaid,
    "nak_delay_forgotten": _nak_delay_forgotten,
}
