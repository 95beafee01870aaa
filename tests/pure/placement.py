"""Where a mailbox may have each message: the table in `bus.mailbox.mailbox`, as a check of one mailbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

from bus.mailbox.mailbox import Mailbox

__all__ = ["placement_faults"]


def placement_faults(mailbox: Mailbox) -> list[str]:
    """Name every message that is where it may not be, or nowhere."""
    return [
        *_faults_of_unsettled(mailbox),
        *_faults_of_sessions(mailbox),
        *_faults_of_memory(mailbox),
        *_faults_of_the_rest(mailbox),
    ]


def _waiting(mailbox: Mailbox) -> dict[str, set[int]]:
    """Return the places where a message waits that was handed out, or came back, and that no session has."""
    return {
        "returned": set(mailbox._returned),
        "delayed": {seq for _, seq in mailbox._delayed},
        "resting": set(mailbox._resting),
        "suspended": set(mailbox._absent._suspended),
        "withheld": set(mailbox.losses._withheld),
        "settling": set().union(*mailbox.settling.values()),
    }


def _faults_of_unsettled(mailbox: Mailbox) -> Iterator[str]:
    places = _waiting(mailbox)
    losing = mailbox.losses.losing
    for seq, item in mailbox._unsettled.items():
        waits = {name for name, seqs in places.items() if seq in seqs}
        if item.session is None:
            if len(waits) != 1:
                yield f"{seq} is not in flight, and waits not in one place: {sorted(waits)}"
        else:
            if waits - {"settling"}:
                yield f"{seq} is in flight, and waits: {sorted(waits)}"
            if item.session not in mailbox.sessions or item.session.in_flight.get(seq) != mailbox.id:
                yield f"{seq} is in flight for a session that does not have it"
            if seq in losing:
                yield f"{seq} is in flight while it is being removed"
        if seq in mailbox._ahead and not item.retried:
            yield f"{seq} is unsettled, and counts as settled ahead of its turn"
    yield from _named("suspended and not unsettled", places["suspended"] - mailbox._unsettled.keys())


def _faults_of_sessions(mailbox: Mailbox) -> Iterator[str]:
    for session in mailbox.sessions:
        theirs = [seq for seq, mailbox_id in session.in_flight.items() if mailbox_id == mailbox.id]
        lost = [
            seq for seq in theirs if seq not in mailbox._unsettled or mailbox._unsettled[seq].session is not session
        ]
        yield from _named(f"in flight for {session} alone", lost)


def _faults_of_memory(mailbox: Mailbox) -> Iterator[str]:
    intake = mailbox.intake
    ready = [envelope.seq for envelope in intake._ready]
    aside = [envelope.seq for envelope in intake._aside]
    if any(later <= earlier for earlier, later in pairwise([*ready, *aside])):
        yield f"in memory out of order: {ready} {aside}"
    if aside and (intake.level or intake.reading is None or intake.overflowed):
        yield f"kept aside while no page is being read: {aside}"
    if (ready or aside) and not mailbox.sessions:
        yield f"in memory while nobody is there: {ready} {aside}"
    yield from _named(
        "in memory at or below the position", [seq for seq in [*ready, *aside] if seq <= mailbox.position]
    )
    yield from _named("in memory and settled ahead", mailbox._ahead.intersection(ready, aside))
    early = [seq for seq in [*ready, *aside] if seq in mailbox._unsettled and not mailbox._unsettled[seq].retried]
    yield from _named("in memory and unsettled", early)


def _faults_of_the_rest(mailbox: Mailbox) -> Iterator[str]:
    losing, dead, reviving = mailbox.losses.losing.keys(), mailbox.dead, mailbox._reviving
    settling = set().union(*mailbox.settling.values())
    yield from _named("dead and reviving", dead & reviving)
    yield from _named("dead while it is being removed", losing & dead)
    yield from _named("reviving while it is being removed", losing & reviving)
    yield from _named("suspended while it is being removed", losing & mailbox._absent._suspended.keys())
    yield from _named("settling while it is being removed", losing & settling)
    yield from _named("withheld, and not being removed", set(mailbox.losses._withheld) - losing)
    yield from _named("a direct message that is dead and in another place", _direct(mailbox) & (dead | reviving))
    if mailbox.losses.gone and mailbox.intake.reading is None:
        yield f"gone while no page is being read: {mailbox.losses.gone}"


def _direct(mailbox: Mailbox) -> set[int]:
    """Return the direct messages that are unsettled: no channel that is asked for again brings them again."""
    return {
        seq
        for seq, item in mailbox._unsettled.items()
        if item.envelope is not None and item.envelope.channel is None
    }


def _named(what: str, seqs: Iterable[int]) -> Iterator[str]:
    found = sorted(seqs)
    if found:
        yield f"{what}: {found}"
