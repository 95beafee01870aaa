"""What the checker expects of presence: what is told of sessions happened, and whoever watches ends up right.

A picture of who is there begins with what its bot was told when it asked, in each session anew. A kill ends all
sessions without a word.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from .history import Final, Hello, Presence, Present
from .ledger import Ledger
from .verdict import Fault

__all__ = ["presence"]

_CAME = "presence.connected"


def presence(ledger: Ledger, final: Final) -> Iterator[Fault]:
    """Each change is one of a session that was opened, and told once, in order; the last picture is right."""
    yield from _told(ledger)
    pictures: dict[str, set[str]] = {}
    for _, event in ledger.presence:
        if isinstance(event, Present):
            pictures[event.bot] = set(event.bots)
        elif event.sessions:
            pictures.setdefault(event.bot, set()).add(event.about)
        else:
            pictures.setdefault(event.bot, set()).discard(event.about)
    for bot, picture in pictures.items():
        if final.present and picture != set(final.present):
            text = f"{bot} was told in the end that {sorted(picture)} are there, and there are {final.present}"
            yield "presence", text


def _told(ledger: Ledger) -> Iterator[Fault]:
    unanswered = [
        (call.index, call.invoke.action.bot)
        for call in ledger.of(Hello)
        if isinstance(call.invoke.action, Hello) and (call.ok is None or call.ends > call.over)
    ]
    seqs: dict[tuple[str, str, str], int] = {}
    gone: dict[tuple[str, str], int] = {}
    for index, event in ledger.presence:
        if not isinstance(event, Presence):
            continue
        what = f"{event.bot} was told by seq {event.seq} at {event.at} s: {event.what} of {event.about}"
        hello = ledger.sessions.get(event.of)
        action = None if hello is None else hello.invoke.action
        if action is None:
            known = any(at < index and bot == event.about for at, bot in unanswered)
        else:
            known = isinstance(action, Hello) and action.bot == event.about
        if not known:
            yield "presence", f"{what}, and it opened no session {event.of}"
        if seqs.setdefault((event.bot, event.of, event.what), event.seq) != event.seq:
            yield "presence", f"{what}, which seq {seqs[event.bot, event.of, event.what]} told before"
        if event.what != _CAME:
            gone.setdefault((event.bot, event.of), event.seq)
        elif gone.get((event.bot, event.of), event.seq) < event.seq:
            yield "presence", f"{what}, after it had gone"
