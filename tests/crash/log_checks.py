"""What the checker expects of the log: nothing acknowledged is missing, nothing else is there, each once, in order.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from .flushes import is_written
from .gap_checks import is_retained
from .history import QUORUM_BACK, QUORUM_LOST, Commit, Final, Hello, Publish, Stored
from .ledger import Ledger, Letter, key_of
from .verdict import Fault

__all__ = ["WORKER", "log_order", "lost_from_log", "never_sent", "one_seq_one_message", "unsafe"]

WORKER = "posthouse"
"""The sender of the worker's own messages, which nobody invoked."""


def _who(letter: Letter) -> str:
    target = f"to {letter.sent.to}" if letter.sent.channel is None else f"on {letter.sent.channel!r}"
    return f"message {letter.sent.id} of {letter.sender} {target}"


def lost_from_log(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """What was acknowledged is in the log, and a worker that is back knows the log's end."""
    stored = {key_of(message) for message in final.messages}
    for letter in ledger.letters.values():
        if letter.acked_at is not None and letter.key not in stored and not is_retained(ledger, letter):
            place = f"seq {letter.seq}" if letter.seq is not None else "waiting until it is due"
            yield "lost", f"{_who(letter)} was acknowledged as {place}, and is not in the log"
    for call in ledger.of(Hello):
        ok = call.ok
        if ok is None or ok.last_seq is None or ledger.is_of_replaced(ok.session):
            continue  # a worker that has yet to notice answers from its memory
        if ok.last_seq < call.floor:
            text = (
                f"seq {call.floor} was acknowledged, and at {ok.at} s the worker (start {ok.incarnation})"
                f" gave {ok.last_seq} as the end of its log"
            )
            yield "lost", text


def unsafe(ledger: Ledger) -> Iterator[Fault]:
    """Nothing is acknowledged that was sent while no commit could become safe, before one can again."""
    begins: int | None = None
    spans: list[tuple[int, int]] = []
    for index, mark in ledger.marks:
        if mark.what == QUORUM_LOST:
            begins = index
        elif mark.what == QUORUM_BACK and begins is not None:
            spans.append((begins, index))
            begins = None
    for call in ledger.calls:
        ok = call.ok
        if (
            ok is not None
            and is_written(call)
            and any(lost < call.index and call.ends < back for lost, back in spans)
        ):
            action = type(call.invoke.action).__name__.lower()
            yield "unsafe", f"a {action} of {call.invoke.process} was answered at {ok.at} s, and was on no standby"


class _Seen(msgspec.Struct, frozen=True):
    """One place where a message was seen: at a delivery, or in the log at the end."""

    seq: int
    id: str
    body: str
    sender: str
    to: str | None
    channel: str | None
    where: str


def _sightings(ledger: Ledger, final: Final) -> Iterator[tuple[int, _Seen]]:
    for handed in ledger.handed:
        m = handed.message
        where = f"delivered to {handed.bot} at {handed.at} s"
        to = handed.bot if m.channel is None else None
        yield handed.index, _Seen(m.seq, m.id, m.body, m.sender, to, m.channel, where)
    for message in final.messages:
        yield ledger.length, _seen_in_log(message)


def _seen_in_log(message: Stored) -> _Seen:
    m = message
    return _Seen(m.seq, m.id, m.body, m.sender, m.to, m.channel, "in the log at the end")


def never_sent(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """What is delivered or stored was sent by its sender, to that target, with that body, and was not refused."""
    told: set[tuple[str, str, str]] = set()
    for index, seen in _sightings(ledger, final):
        if seen.sender == WORKER:
            continue
        letter = ledger.letters.get((seen.id, seen.sender))
        if letter is None or letter.first > index:
            text = f"message {seen.id} of {seen.sender} (seq {seen.seq}) is {seen.where}, and was not sent before"
            fault = "never_sent", text
        elif seen.body != letter.sent.body:
            fault = "two_bodies", f"{_who(letter)} is {seen.where} with another body than it was sent with"
        elif seen.channel != letter.sent.channel:
            fault = "never_sent", f"{_who(letter)} is {seen.where} as one on {seen.channel!r}"
        elif seen.to not in (None, letter.sent.to):
            fault = "not_subscribed", f"{_who(letter)} is {seen.where}, as if it were for {seen.to}"
        elif letter.certainly_refused:
            fault = "refused_yet_there", f"{_who(letter)} was refused each time, and is {seen.where}"
        else:
            continue
        if (fault[0], seen.id, seen.sender) not in told:
            told.add((fault[0], seen.id, seen.sender))
            yield fault


def one_seq_one_message(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """A seq is the place of one message, and a message has one place, whoever asks."""
    by_seq: dict[int, tuple[tuple[str, str], str, str]] = {}
    by_key: dict[tuple[str, str], tuple[int, str]] = {}

    def note(seq: int, key: tuple[str, str], body: str, where: str) -> Iterator[Fault]:
        first_key, first_body, first_where = by_seq.setdefault(seq, (key, body, where))
        message = " of ".join(key)
        if (first_key, first_body) != (key, body):
            yield (
                "two_bodies",
                f"seq {seq} is message {' of '.join(first_key)}, {first_where}, and {message}, {where}",
            )
            by_seq[seq] = (key, body, where)
        if key in ledger.letters and is_retained(ledger, ledger.letters[key]):
            return  # whose id is forgotten when it is removed
        first_seq, first_where = by_key.setdefault(key, (seq, where))
        if first_seq != seq:
            yield "duplicated", f"message {message} is seq {first_seq}, {first_where}, and seq {seq}, {where}"
            by_key[key] = (seq, where)

    for call in ledger.of(Publish, Commit):
        action, ok = call.invoke.action, call.ok
        assert isinstance(action, Publish | Commit)
        for sent, seq in zip(action.messages, ok.seqs if ok else (), strict=False):
            if ok is not None and seq is not None:
                yield from note(seq, (sent.id, action.bot), sent.body, f"as acknowledged at {ok.at} s")
    for _, seen in _sightings(ledger, final):
        yield from note(seen.seq, (seen.id, seen.sender), seen.body, seen.where)


def log_order(ledger: Ledger) -> Iterator[Fault]:
    """What was sent after something else was acknowledged comes after it; and so do the parts of one frame."""
    for letter in ledger.letters.values():
        floor = letter.call.floor
        if letter.seq is not None and letter.seq <= floor:
            text = f"{_who(letter)} got seq {letter.seq}, and was first sent after {floor} was acknowledged"
            yield "out_of_order", text
    for call in ledger.of(Publish):
        action, ok = call.invoke.action, call.ok
        if ok is None or not isinstance(action, Publish):
            continue
        pairs = zip(action.messages, ok.seqs, strict=True)
        fresh = [seq for sent, seq in pairs if seq is not None and ledger.letters[sent.id, action.bot].call is call]
        if fresh != sorted(fresh):
            yield "out_of_order", f"one frame of {action.bot} was given the seqs {fresh} at {ok.at} s"
