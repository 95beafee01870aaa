"""Workers that are broken on purpose in what they do with mailboxes: see `lies`, which has the others.

Owns the lies about credit, replies, dead letters, failures, times and flushes. Each replaces a piece of the
product's inside in a process that becomes a worker.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from inspect import Parameter, isfunction, signature
from typing import Any

import msgspec

from bus.core.dispatch import Dispatch
from bus.core.settling import Settling
from bus.mailbox.dead_letters import DeadLetterBox
from bus.mailbox.lanes import Lanes
from bus.mailbox.mailbox import Mailbox
from bus.mailbox.parcel import Envelope
from bus.mailbox.sessions import Session
from bus.model.priorities import PRIORITIZED
from bus.model.repository import AddDeadLetters, MailboxState, ReleaseDue, Subscribed, UnsettledState
from bus.wire.frames import Ack
from store import budgets
from store.budgets import Budgets
from store.sqlite import log as sqlite_log
from store.sqlite.file.writer import Transaction
from store.sqlite.log import SqliteLog
from store.statements import Statements

__all__ = ["LIES_OF_MAILBOXES", "TELLERS", "changed_state", "replace"]

LIES_OF_MAILBOXES: dict[str, set[str]] = {
    "dead_letters_not_kept": {"lost"},
    "dead_letters_a_batch_late": {"lost"},
    "failures_forgotten": {"dead_letters"},
    "restarts_are_failures": {"dead_letters"},
    "one_failure_more": {"dead_letters"},
    "retries_forgotten": {"lost"},
    "acks_never_flushed": {"redelivered"},
    "double_credit": {"credit"},
    "subscription_one_message_late": {"lost"},
    "start_one_message_late": {"subscriptions"},
    "ttl_ignored": {"late"},
    "released_early": {"early"},
    "nak_delay_ignored": {"early"},
    "replies_in_their_turn": {"late", "misdirected"},
    "goodbye_settles": {"lost"},
    "newest_of_a_priority_first": {"out_of_order"},
    "priorities_forgotten": {"lost", "redelivered"},
    "members_take_it_with_them": {"lost"},
    "budgets_of_this_start_alone": {"budgets"},
}
"""Each with the kinds of violations of which one has to be found."""


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace a piece by what is made of it, and what takes the same arguments."""
    honest = getattr(owner, name)
    told = make(honest)
    if isfunction(honest):
        _check_arguments(honest, told)
        told.__wrapped__ = honest
    setattr(owner, name, told)


def _check_arguments(honest: Callable[..., Any], told: Callable[..., Any]) -> None:
    """Raise TypeError if a call with all arguments of one function is no call of the other."""
    parameters = signature(honest).parameters.values()
    places = [None for each in parameters if each.kind is Parameter.POSITIONAL_OR_KEYWORD]
    names = [each.name for each in parameters if each.kind is Parameter.KEYWORD_ONLY]
    signature(told, follow_wrapped=False).bind(*places, **dict.fromkeys(names))


# ── Dead letters and failures ────────────────────────────────────────────────────────────────────────────


def _dead_letters_not_kept() -> None:
    def make(honest: Any) -> Any:
        async def change_log(log: SqliteLog, transaction: Transaction, change: Any) -> Any:
            return None if isinstance(change, AddDeadLetters) else await honest(log, transaction, change)

        return change_log

    replace(SqliteLog, "_change", make)


def _dead_letters_a_batch_late() -> None:
    before: defaultdict[DeadLetterBox, list[Any]] = defaultdict(list)

    def make(honest: Any) -> Any:
        def take_unsaved(box: DeadLetterBox) -> list[Any]:
            late, before[box] = before[box], honest(box)
            return late

        return take_unsaved

    replace(DeadLetterBox, "take_unsaved", make)


def changed_state(change: Callable[[MailboxState], MailboxState]) -> None:
    """Save mailboxes otherwise than they are."""

    def make(honest: Any) -> Any:
        def state(mailbox: Mailbox) -> MailboxState:
            return change(honest(mailbox))

        return state

    replace(Mailbox, "state", make)


def _failures_forgotten() -> None:
    def change(state: MailboxState) -> MailboxState:
        unsettled = tuple(msgspec.structs.replace(item, failures=0) for item in state.unsettled)
        return msgspec.structs.replace(state, unsettled=unsettled)

    changed_state(change)


def _restarts_are_failures() -> None:
    def change(state: MailboxState) -> MailboxState:
        unsettled = tuple(msgspec.structs.replace(item, failures=item.failures + 1) for item in state.unsettled)
        return msgspec.structs.replace(state, unsettled=unsettled)

    changed_state(change)


def _one_failure_more() -> None:
    def make(honest: Any) -> Any:
        def begin(mailbox: Mailbox, state: Any, delivery: Any, *others: Any, **named: Any) -> None:
            generous = msgspec.structs.replace(delivery, max_deliver=delivery.max_deliver + 1)
            honest(mailbox, state, generous, *others, **named)

        return begin

    replace(Mailbox, "__init__", make)


def _retries_forgotten() -> None:
    def change(state: MailboxState) -> MailboxState:
        unsettled = tuple(item for item in state.unsettled if item.attempt)
        return msgspec.structs.replace(state, unsettled=unsettled)

    changed_state(change)


# ── Acks, credit and subscriptions ───────────────────────────────────────────────────────────────────────


def _acks_never_flushed() -> None:
    unflushed: defaultdict[Mailbox, dict[int, UnsettledState]] = defaultdict(dict)

    def make_settle(honest: Any) -> Any:
        def settle(settling: Settling, session: Session, request: Any) -> None:
            for seq in request.seqs:
                mailbox = settling._directory.mailbox_in_flight(session, seq)
                if mailbox is None or not isinstance(request, Ack):
                    continue
                if request.request is None:
                    item = mailbox.outstanding._items[seq]
                    unflushed[mailbox][seq] = UnsettledState(seq, item.attempt, item.failures)
                else:
                    unflushed[mailbox].clear()
            honest(settling, session, request)

        return settle

    def make_state(honest: Any) -> Any:
        def state(mailbox: Mailbox) -> MailboxState:
            saved: MailboxState = honest(mailbox)
            items = {seq: item for seq, item in unflushed[mailbox].items() if seq <= saved.position}
            items |= {item.seq: item for item in saved.unsettled}
            return msgspec.structs.replace(saved, unsettled=tuple(items[seq] for seq in sorted(items)))

        return state

    replace(Settling, "_settle", make_settle)
    replace(Mailbox, "state", make_state)


def _double_credit() -> None:
    honest: Any = Session.free.fget  # type: ignore[attr-defined]

    def free(session: Session) -> int:
        left: int = honest(session)
        return left + session.credit

    Session.free = property(free)  # type: ignore[method-assign,assignment]


def _subscription_one_message_late() -> None:
    def make(honest: Any) -> Any:
        def subscribe(mailbox: Mailbox, channel: str, interest: Any, last_seq: int) -> None:
            honest(mailbox, channel, msgspec.structs.replace(interest, start_seq=interest.start_seq + 1), last_seq)

        return subscribe

    replace(Mailbox, "subscribe", make)


def _start_one_message_late() -> None:
    def make(honest: Any) -> Any:
        async def subscribe(run: Any, change: Any, *, last_seq: int) -> Subscribed:
            if change.start_seq is None:
                change = msgspec.structs.replace(change, start_seq=last_seq + 1)
            answer: Subscribed = await honest(run, change, last_seq=last_seq)
            return answer

        return subscribe

    replace(sqlite_log, "subscribe", make)


# ── Budgets ──────────────────────────────────────────────────────────────────────────────────────────────


def _budgets_of_this_start_alone() -> None:
    find = budgets._FIND

    def make(honest: Any) -> Any:
        async def count(counting: Budgets, run: Statements, *parts: Any) -> Any:
            if find is budgets._FIND:
                [[last_seq]] = await run("SELECT COALESCE(MAX(seq), 0) FROM bot_messages")
                budgets._FIND = find.replace("AND copied", f"AND seq > {last_seq} AND copied")
            return await honest(counting, run, *parts)

        return count

    replace(Budgets, "count", make)


# ── Priorities ───────────────────────────────────────────────────────────────────────────────────────────


def _newest_of_a_priority_first() -> None:
    def make(honest: Any) -> Any:
        def arrive(lanes: Lanes, parcel: Any, *, connected: bool) -> bool:
            answer: bool = honest(lanes, parcel, connected=connected)
            for lane in lanes:
                if not lane.intake._ready._taken:
                    lane.intake._ready._parcels.reverse()
            return answer

        return arrive

    replace(Lanes, "arrive", make)


def _priorities_forgotten() -> None:
    def change(state: MailboxState) -> MailboxState:
        floors = {source: seq for source, seq in state.floors.items() if source not in PRIORITIZED}
        return msgspec.structs.replace(state, floors=floors)

    changed_state(change)


# ── Times ────────────────────────────────────────────────────────────────────────────────────────────────


def _ttl_ignored() -> None:
    replace(Envelope, "is_expired", lambda _: lambda envelope, wall: False)


def _released_early() -> None:
    def make(honest: Any) -> Any:
        async def change_log(log: SqliteLog, transaction: Transaction, change: Any) -> Any:
            if isinstance(change, ReleaseDue):
                change = msgspec.structs.replace(change, until="9999")
            return await honest(log, transaction, change)

        return change_log

    replace(SqliteLog, "_change", make)


def _nak_delay_ignored() -> None:
    def make(honest: Any) -> Any:
        def fail(mailbox: Mailbox, *moment: Any, delay: float | None = None, **named: Any) -> Any:
            return honest(mailbox, *moment, delay=delay and 0.0, **named)

        return fail

    replace(Mailbox, "fail", make)


# ── Sessions ─────────────────────────────────────────────────────────────────────────────────────────────


def _replies_in_their_turn() -> None:
    replace(Dispatch, "_express", lambda _: lambda dispatch, mailbox, parcel, reply_tos, express: parcel)


def _swallowing(swallows: Callable[[Mailbox, bool], bool]) -> None:
    """Forget, now and then, one message that a session has in flight when it leaves a mailbox."""
    turn = itertools.count(1)

    def make(honest: Any) -> Any:
        def detach(mailbox: Mailbox, session: Session, now: float, *, vanished: bool, **named: Any) -> Any:
            mine = [seq for seq, other in session.in_flight.items() if other == mailbox.id]
            if mine and swallows(mailbox, vanished) and next(turn) % 2:
                mailbox.settle(session, mine[:1])
            return honest(mailbox, session, now, vanished=vanished, **named)

        return detach

    replace(Mailbox, "detach", make)


def _goodbye_settles() -> None:
    _swallowing(lambda mailbox, vanished: not vanished and mailbox.group is None)


def _members_take_it_with_them() -> None:
    _swallowing(lambda mailbox, vanished: mailbox.group is not None)


TELLERS: dict[str, Callable[[], None]] = {
    "dead_letters_not_kept": _dead_letters_not_kept,
    "dead_letters_a_batch_late": _dead_letters_a_batch_late,
    "failures_forgotten": _failures_forgotten,
    "restarts_are_failures": _restarts_are_failures,
    "one_failure_more": _one_failure_more,
    "retries_forgotten": _retries_forgotten,
    "acks_never_flushed": _acks_never_flushed,
    "double_credit": _double_credit,
    "subscription_one_message_late": _subscription_one_message_late,
    "start_one_message_late": _start_one_message_late,
    "ttl_ignored": _ttl_ignored,
    "released_early": _released_early,
    "nak_delay_ignored": _nak_delay_ignored,
    "replies_in_their_turn": _replies_in_their_turn,
    "goodbye_settles": _goodbye_settles,
    "newest_of_a_priority_first": _newest_of_a_priority_first,
    "priorities_forgotten": _priorities_forgotten,
    "budgets_of_this_start_alone": _budgets_of_this_start_alone,
    "members_take_it_with_them": _members_take_it_with_them,
}
