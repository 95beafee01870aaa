"""Where a mailbox may have each message: the tables of `bus.mailbox.mailbox` and `outstanding`, as a check."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Set
from itertools import pairwise

from bus.mailbox.intake import Intake
from bus.mailbox.mailbox import Mailbox
from bus.mailbox.unsettled import MessagePlace

__all__ = ["placement_faults"]


def placement_faults(mailbox: Mailbox) -> list[str]:
    """Name every message that is where it may not be, or nowhere."""
    return [
        *_faults_of_unsettled(mailbox),
        *_faults_of_sessions(mailbox),
        *_faults_of_memory(mailbox),
        *_faults_of_the_rest(mailbox),
    ]


def _containers(mailbox: Mailbox) -> dict[MessagePlace, list[int]]:
    """Return what each place's container has, of what no session has."""
    outstanding = mailbox.outstanding
    return {
        MessagePlace.RETURNED: list(outstanding.returned),
        MessagePlace.DELAYED: [seq for _, seq in outstanding._delayed],
        MessagePlace.RESTING: outstanding._resting,
        MessagePlace.SUSPENDED: list(outstanding._absent._suspended),
        MessagePlace.WITHHELD: outstanding._withheld,
    }


def _faults_of_unsettled(mailbox: Mailbox) -> Iterator[str]:
    outstanding, losing = mailbox.outstanding, mailbox.losses.losing
    containers = _containers(mailbox)
    for place, seqs in containers.items():
        there = sorted(seq for seq, item in outstanding.items() if item.place is place)
        if sorted(seqs) != there:
            yield f"{place}: {there}, and its container has {sorted(seqs)}"
    for seq, item in outstanding.items():
        if item.place is None:
            yield f"{seq} is unsettled, and in no place"
        if item.place is MessagePlace.SETTLING and not outstanding.is_settling(seq):
            yield f"{seq} waits for a commit, and none settles it"
        if outstanding.is_settling(seq) and item.place not in (MessagePlace.SETTLING, MessagePlace.IN_FLIGHT):
            yield f"{seq} is {item.place}, and a commit settles it"
        if (item.session is not None) != (item.place is MessagePlace.IN_FLIGHT):
            yield f"{seq} is {item.place}, and {item.session} has it"
        if item.session is not None:
            if item.session not in mailbox.sessions or item.session.in_flight.get(seq) != mailbox.id:
                yield f"{seq} is in flight for a session that does not have it"
            if seq in losing:
                yield f"{seq} is in flight while it is being removed"
        if seq in mailbox.sources.ahead and not item.retried:
            yield f"{seq} is unsettled, and counts as settled ahead of its turn"


def _faults_of_sessions(mailbox: Mailbox) -> Iterator[str]:
    timed = {seq for _, seqs in mailbox.outstanding._deadlines._heap for seq in seqs}
    for session in mailbox.sessions:
        theirs = [seq for seq, mailbox_id in session.in_flight.items() if mailbox_id == mailbox.id]
        items = {seq: mailbox.outstanding.get(seq) for seq in theirs}
        lost = [seq for seq, item in items.items() if item is None or item.session is not session]
        yield from _named(f"in flight for {session} alone", lost)
        parked = {seq: items[seq] for seq in theirs if seq in session.parked}
        kept = [seq for seq, item in parked.items() if item is None or item.envelope or item.deadline < math.inf]
        yield from _named("parked with its text or a deadline", kept)
        yield from _named("parked outside of what is in flight", session.parked - session.in_flight.keys())
        yield from _named("parked as a reply that is waited for", session.parked & session.express)
        timeless = [seq for seq in theirs if seq not in session.parked and seq not in timed]
        yield from _named("in flight without a deadline", timeless)


def _faults_of_memory(mailbox: Mailbox) -> Iterator[str]:
    lanes = mailbox.sources.lanes
    yield from _faults_of_intake(mailbox, mailbox.intake, mailbox.position, mailbox.sources.ahead)
    for lane in lanes:
        yield from _faults_of_intake(mailbox, lane.intake, lane.through, lanes.early)
        of_others = [p for p in lane.intake._ready.parcels() if p.envelope.priority != lane.priority]
        yield from _named(f"of another priority in {lane}", [seq for parcel in of_others for seq in parcel.seqs])


def _faults_of_intake(mailbox: Mailbox, intake: Intake, through: int, ahead: Set[int]) -> Iterator[str]:
    ready = [seq for parcel in intake._ready.parcels() for seq in parcel.seqs]
    aside = [seq for parcel in intake._aside.parcels() for seq in parcel.seqs]
    if any(later <= earlier for earlier, later in pairwise([*ready, *aside])):
        yield f"in memory out of order: {ready} {aside}"
    if aside and (intake.level or intake.reading is None or intake.overflowed):
        yield f"kept aside while no page is being read: {aside}"
    if (ready or aside) and not mailbox.sessions:
        yield f"in memory while nobody is there: {ready} {aside}"
    yield from _named("in memory at or below the position", [seq for seq in [*ready, *aside] if seq <= through])
    yield from _named("in memory and settled ahead", ahead & {*ready, *aside})
    items = ((seq, mailbox.outstanding.get(seq)) for seq in [*ready, *aside])
    yield from _named("in memory and unsettled", [seq for seq, item in items if item and not item.retried])


def _faults_of_the_rest(mailbox: Mailbox) -> Iterator[str]:
    losing, outstanding = mailbox.losses.losing.keys(), mailbox.outstanding
    dead, reviving = mailbox.dead_letters.dead, mailbox.dead_letters.reviving
    settling = set().union(*outstanding.settling.values())
    yield from _named("dead and reviving", dead & reviving)
    yield from _named("dead while it is being removed", losing & dead)
    yield from _named("reviving while it is being removed", losing & reviving)
    yield from _named("suspended while it is being removed", losing & outstanding._absent._suspended.keys())
    yield from _named("settling while it is being removed", losing & settling)
    yield from _named("withheld, and not being removed", set(outstanding._withheld) - losing)
    yield from _named("a direct message that is dead and in another place", _direct(mailbox) & (dead | reviving))
    if mailbox.losses.gone and mailbox.reading.request is None:
        yield f"gone while no page is being read: {mailbox.losses.gone}"


def _direct(mailbox: Mailbox) -> set[int]:
    """Return the direct messages that are unsettled: no channel that is subscribed to again brings them again."""
    return {
        seq
        for seq, item in mailbox.outstanding.items()
        if item.envelope is not None and item.envelope.channel is None
    }


def _named(what: str, seqs: Iterable[int]) -> Iterator[str]:
    found = sorted(seqs)
    if found:
        yield f"{what}: {found}"
