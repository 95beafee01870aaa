"""The simulation is tested by breaking the core: each fault here must be found.

A fault is put in with monkeypatch, in one method, as a careless change would; then worlds are played until one
breaks a promise. One that no world finds would mean that the simulation does not look there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from bus.batch import Batches, Job
from bus.mailbox import Mailbox
from bus.protocol import Published
from bus.publishing import Publishing
from bus.sessions import Session
from store.repository import MailboxState

from .simulation import Violation, play

WORLDS = 150
STEPS = 1000

Fault = Callable[[pytest.MonkeyPatch], None]


def forgets_what_is_unsettled(patch: pytest.MonkeyPatch) -> None:
    """A position that is saved without what lies unsettled below it."""
    state = Mailbox.state

    def broken(self: Mailbox) -> MailboxState:
        return msgspec.structs.replace(state(self), unsettled=())

    patch.setattr(Mailbox, "state", broken)


def drops_what_arrives_while_reading(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that takes the page for everything."""
    page_read = Mailbox.page_read

    def broken(self: Mailbox, *arguments: Any, **options: Any) -> tuple[int, ...]:
        self._arrived.clear()
        return page_read(self, *arguments, **options)

    patch.setattr(Mailbox, "page_read", broken)


def is_level_after_an_overflow(patch: pytest.MonkeyPatch) -> None:
    """A mailbox that overflowed, and does not know that it has to read."""
    arrive = Mailbox.arrive

    def broken(self: Mailbox, envelope: Any) -> bool:
        level = self.level
        taken = arrive(self, envelope)
        self.level = level
        return taken

    patch.setattr(Mailbox, "arrive", broken)


def loses_what_a_dead_session_had(patch: pytest.MonkeyPatch) -> None:
    """A session that ends, and takes its messages along."""
    detach = Mailbox.detach

    def broken(self: Mailbox, session: Session, now: float, **options: Any) -> Any:
        for seq in list(session.in_flight):
            self.settle(session, seq)
        return detach(self, session, now, **options)

    patch.setattr(Mailbox, "detach", broken)


def ignores_credit(patch: pytest.MonkeyPatch) -> None:
    """A session that is given one message too many."""
    patch.setattr(Session, "free", property(lambda self: self.credit - len(self.in_flight) + 1))


def does_not_go_back(patch: pytest.MonkeyPatch) -> None:
    """A subscription in the past whose position, on disk, stays where it was."""
    patch.setattr(Mailbox, "prepare", lambda self, channel, start_seq: None)


def repeats_the_other_sources(patch: pytest.MonkeyPatch) -> None:
    """A position that goes back for one channel, and for all others with it."""
    patch.setattr(Mailbox, "_raised_floors", lambda self: {})


def confirms_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    """A confirmed ack that is answered although its state was not saved with it."""
    add = Batches.add

    def broken(self: Batches, job: Job) -> None:
        job.mailboxes = ()
        add(self, job)

    patch.setattr(Batches, "add", broken)


def acknowledges_before_the_disk(patch: pytest.MonkeyPatch) -> None:
    """A publish that is acknowledged when it is taken, with the seq that it will probably get."""

    def broken(self: Publishing, session: Session, publish: Any) -> None:
        first = self._dispatch.last_seq + 1
        seqs: list[int | None] = list(range(first, first + len(publish.messages)))
        self._turn.send(session.address, Published(request=publish.request, seqs=seqs))

    patch.setattr(Publishing, "request", broken)


def delivers_after_leaving(patch: pytest.MonkeyPatch) -> None:
    """A channel that was left, and whose waiting messages still come."""

    def broken(self: Mailbox, channel: str) -> None:
        self.interests.pop(channel, None)

    patch.setattr(Mailbox, "unsubscribe", broken)


def repeats_replies_that_came_early(patch: pytest.MonkeyPatch) -> None:
    """A reply that was handed out before its turn, and comes again with it."""
    patch.setattr(Mailbox, "_drop", lambda self, seq: self._unsettled.pop(seq))


FAULTS: list[Fault] = [
    repeats_replies_that_came_early,
    forgets_what_is_unsettled,
    drops_what_arrives_while_reading,
    is_level_after_an_overflow,
    loses_what_a_dead_session_had,
    ignores_credit,
    does_not_go_back,
    repeats_the_other_sources,
    confirms_before_the_disk,
    acknowledges_before_the_disk,
    delivers_after_leaving,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_core_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    for seed in range(WORLDS):
        try:
            play(seed, STEPS)
        except (Violation, AssertionError, LookupError):
            return  # a promise, or an assertion of the core itself
    pytest.fail(f"{WORLDS} worlds did not notice: {fault.__doc__}")
