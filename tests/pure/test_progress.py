"""A message whose work made progress: its failures before that are forgotten."""

from __future__ import annotations

from bus.model.repository import UnsettledState

from .test_mailbox import box, handed, letter, level


def test_progress_forgets_the_failures_of_a_message() -> None:
    mailbox = box()
    one = level(mailbox)
    mailbox.arrive(letter(1))
    for attempt in (1, 2, 3):
        assert handed(mailbox, now=10 * attempt) == [(1, attempt)]
        assert mailbox.outstanding.note_progress(1) == (attempt > 1)
        assert not mailbox.outstanding.note_progress(1)
        assert mailbox.state().unsettled == (UnsettledState(1, attempt, 0),)
        assert mailbox.fail(1, now=10 * attempt, delay=0.0) is None
    assert handed(mailbox, now=40) == [(1, 4)]
    assert mailbox.fail(1, now=40) is not None, "two failures without progress"
    assert not one.in_flight
