"""Decides whether a history keeps the delivery contract: what was acknowledged is there, once, and in order.

Owns the judgement, in the manner of Jepsen's queue and kafka checkers: `check` takes what clients saw and what the
worker shows at the end, and gives a verdict. It assumes of the history that a session's frames are written down in
their order, that one session at a time changes a bot's subscriptions, and that a repeated message keeps its id and
its body.

Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from .budget_checks import budgets
from .dead_checks import dead_letters, failures
from .gap_checks import gaps, removals
from .history import Event, Final, Hello, Retry, Unsubscribe
from .ledger import Ledger, key_of
from .log_checks import log_order, lost_from_log, never_sent, one_seq_one_message, unsafe
from .mailbox_checks import (
    delivered_twice,
    delivery_order,
    not_drained,
    outside,
    redelivered,
    subscriptions,
    undelivered,
)
from .presence_checks import presence
from .run_checks import run_faults
from .session_checks import credit, expelled, replies
from .subscriptions import Call
from .time_checks import early, late, starts
from .verdict import KINDS, Fault, Rules, Verdict, Violation

__all__ = ["KINDS", "Rules", "Verdict", "Violation", "check"]

_SHOWN_MAX = 20
"""Violations of one kind in a verdict: the first ones say what the others say."""


def check(history: Sequence[Event], final: Final, rules: Rules | None = None) -> Verdict:
    """Judge a history by what the worker shows at its end, when every mailbox was read until it was empty."""
    ledger = Ledger(history, rules)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for kind, text in _faults(ledger, final):
        assert kind in KINDS, kind
        found[kind].append(text)
    counts = _counts(ledger, final) | {kind: len(found[kind]) for kind in KINDS}
    violations = [Violation(kind, text) for kind in KINDS for text in found[kind][:_SHOWN_MAX]]
    return Verdict(counts, violations)


def _faults(ledger: Ledger, final: Final) -> Iterator[Fault]:
    yield from lost_from_log(ledger, final)
    yield from unsafe(ledger)
    yield from removals(ledger, final)
    yield from gaps(ledger, final)
    yield from never_sent(ledger, final)
    yield from one_seq_one_message(ledger, final)
    yield from log_order(ledger)
    yield from undelivered(ledger, final)
    yield from delivery_order(ledger)
    yield from redelivered(ledger)
    yield from delivered_twice(ledger)
    yield from dead_letters(ledger, final)
    yield from failures(ledger, final)
    yield from credit(ledger)
    yield from expelled(ledger)
    yield from early(ledger)
    yield from late(ledger)
    yield from replies(ledger, final)
    yield from budgets(ledger, final)
    yield from starts(ledger, final)
    yield from outside(ledger)
    yield from subscriptions(ledger, final)
    yield from not_drained(final)
    yield from presence(ledger, final)
    yield from run_faults(ledger, final)


def _held(call: Call) -> tuple[int, ...]:
    """Return what the client of a hello holds."""
    action = call.invoke.action
    return action.holds if isinstance(action, Hello) else ()


def _counts(ledger: Ledger, final: Final) -> dict[str, int]:
    letters = ledger.letters.values()
    stored = {key_of(message) for message in final.messages}
    unknown = [letter for letter in letters if "unknown" in letter.outcomes]
    recovered = [letter for letter in unknown if letter.known or (letter.acked_at is None and letter.key in stored)]
    firsts = {(handed.bot, handed.message.seq) for handed in ledger.handed}
    confirmed = sum(one.confirmed for settled in ledger.settled.values() for one in settled)
    marks = Counter(mark.what for _, mark in ledger.marks)
    return {
        "events": ledger.length,
        "kills": marks["killed"],
        "stops": marks["stopped"],
        "sent": len(ledger.letters),
        "acknowledged": sum(letter.acked_at is not None for letter in letters),
        "refused": sum(letter.certainly_refused for letter in letters),
        "unknown": len(unknown),
        "recovered": len(recovered),
        "delivered": len(ledger.handed),
        "returned": sum(bool(call.ok and _held(call)) for call in ledger.of(Hello)),
        "dead": sum(len(dead) for dead in final.dead_letters.values()),
        "retried": sum(call.ok.retried or 0 for call in ledger.of(Retry) if call.ok is not None),
        "same_ids": len(ledger.letters) - len({id for id, _ in ledger.letters}),
        "spent": sum(letter.spent for letter in letters),
        "replied": sum(letter.sent.reply_to is not None for letter in letters),
        "gaps_told": len(ledger.gaps),
        "presence_told": len(ledger.presence),
        "repeated": len(ledger.handed) - len(firsts),
        "confirmed": confirmed,
        "subscribed": sum(bool(timeline.episodes) for timeline in ledger.timelines.values()),
        "unsubscribed": sum(call.ok is not None for call in ledger.of(Unsubscribe)),
        "checkpointed": sum(call.ok is not None for call, _ in ledger.checkpoints()),
    }
