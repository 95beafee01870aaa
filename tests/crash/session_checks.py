"""What the checker expects of sessions: none is handed more than its credit, and replies come to who asked.

Pure.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator

from .history import Commit, Final, Hello, Settle, Unsubscribe
from .ledger import Handed, Ledger, Letter, key_of
from .subscriptions import Call
from .verdict import Fault

__all__ = ["credit", "expelled", "replies"]


def credit(ledger: Ledger) -> Iterator[Fault]:
    """A session never has more in flight than it asked for; what it has said it settled does not count."""
    told: set[str] = set()
    left: dict[tuple[str, str], int] = {}
    flights: defaultdict[str, dict[int, Handed]] = defaultdict(dict)
    calls: Iterator[Call | Handed] = ledger.of(Settle, Unsubscribe)
    committed = {(commit.bot, seq) for commit in _commits(ledger) for seq in commit.acks}
    for event in heapq.merge(ledger.handed, calls, key=lambda event: event.index):
        if isinstance(event, Call):
            _free(event, flights)
            if isinstance(event.invoke.action, Unsubscribe):
                leaves = event.ends if event.ok is not None else event.over
                place = event.invoke.action.bot, event.invoke.action.channel
                left[place] = max(leaves, left.get(place, leaves))
            continue
        flight, most = flights[event.session], _credit(ledger, event.session)
        if event.message.reply_to in ledger.asked:
            continue  # outside of the credit
        if (event.bot, event.message.seq) in committed:
            continue  # a commit settles it whoever has it by then
        opened = ledger.sessions.get(event.session)
        if opened is None or left.get((event.bot, event.message.channel or ""), -1) > opened.index:
            continue  # in this session it may leave, or have left, the group that this came from
        flight[event.message.seq] = event
        if most is None or len(flight) <= most or event.session in told:
            continue
        recent = [each for each in flight.values() if event.at - each.at <= ledger.rules.sure_seconds]
        if len(recent) > most:
            told.add(event.session)
            yield (
                "credit",
                f"{event.bot} has {len(recent)} messages in flight at {event.at} s, and asked for {most}",
            )


def _commits(ledger: Ledger) -> Iterator[Commit]:
    for call in ledger.of(Commit):
        assert isinstance(call.invoke.action, Commit)
        yield call.invoke.action


def _credit(ledger: Ledger, session: str) -> int | None:
    hello = ledger.sessions.get(session)
    action = hello.invoke.action if hello is not None else None
    return action.credit if isinstance(action, Hello) else None


def _free(call: Call, flights: dict[str, dict[int, Handed]]) -> None:
    action = call.invoke.action
    if isinstance(action, Unsubscribe):
        for flight in flights.values():
            for seq, handed in list(flight.items()):
                if handed.bot == action.bot and handed.message.channel == action.channel:
                    del flight[seq]
    elif isinstance(action, Settle):
        for seq in action.seqs:
            flights[action.session].pop(seq, None)


def replies(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """The first reply comes to the session that asked, ahead of everything, as long as that lives."""
    answered = ledger.answered()
    for letter, seq in _first_replies(ledger, final):
        question = ledger.asked[letter.sent.reply_to or ""]
        bot, session = question.invoke.process, question.session
        deliveries = ledger.deliveries[letter.sent.to or "", seq]
        what = f"the reply {letter.sent.id} (seq {seq}) to {bot}"
        lived_until = max((index for index, _ in answered[session]), default=0)
        # Only the very first time: it may have been given up since, and put back.
        elsewhere = [each for each in deliveries[:1] if each.message.attempt == 1 and each.session != session]
        if elsewhere and elsewhere[0].index < lived_until:
            yield (
                "misdirected",
                f"{what} came to another session at {elsewhere[0].at} s, and the one that asked lived",
            )
            continue
        opened = ledger.sessions.get(session)
        if letter.acked_at is None or opened is None:
            continue
        if letter.acked_in != (opened.invoke.incarnation, ledger.fence(session)):
            continue
        by = [end for index, end in answered[session] if index > letter.acked_at]
        if by and not any(handed.session == session and handed.index < min(by) for handed in deliveries):
            yield "late", f"{what} was acknowledged, and had not come to the session when that was answered"


def expelled(ledger: Ledger) -> Iterator[Fault]:
    """A worker that was paused does not take its own silence for that of its clients.

    The next worker after it knows none of its sessions.
    """
    last = {"started": -1, "paused": -1}
    for index, mark in ledger.marks:
        if mark.what in last:
            last[mark.what] = index
        hello = ledger.sessions.get(mark.note)
        if mark.what == "expelled" and hello is not None and last["started"] < hello.ends < last["paused"]:
            yield (
                "expelled",
                f"{mark.process} was not silent, and its session did not outlive a pause, at {mark.at} s",
            )


def _first_replies(ledger: Ledger, final: Final) -> Iterator[tuple[Letter, int]]:
    """Return the first reply to each question, with its seq."""
    first: dict[str, tuple[Letter, int]] = {}
    for message in final.messages:
        letter = ledger.letters.get(key_of(message))
        if letter is None or letter.sent.reply_to not in ledger.asked:
            continue
        question = ledger.asked[letter.sent.reply_to or ""]
        if getattr(question.invoke.action, "bot", None) == letter.sent.to:
            first.setdefault(letter.sent.reply_to or "", (letter, message.seq))
    yield from first.values()
