"""A place in the queue for a slot: it is written when it has to be prolonged, and not with each claim."""

from __future__ import annotations

from bus.model.leases import Claimant, HeldRun, HoldState, Slots, claim
from bus.model.records import WorkflowRun

RUN = WorkflowRun(
    id="r", workflow_id="w", workflow_name="w", trigger_type="manual", started_at="2026-01-01T00:00:00Z"
)

TAKEN = Slots(concurrency=1, running=1, ahead=0, next_place=3)


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02}.000000Z"


def claimed(held: HeldRun, second: int) -> HeldRun:
    """Claim a run for a lease of ten seconds, and a place of twenty."""
    claimant = Claimant(
        "ann", at(second), at(second + 10), place_until=at(second + 20), place_enough=at(second + 10)
    )
    return claim(held, claimant, TAKEN, recoveries_max=5)


def test_the_first_claim_that_is_refused_takes_a_place() -> None:
    waiting = claimed(HeldRun(RUN, HoldState()), 0)
    assert (waiting.hold.queue_place, waiting.hold.queued_at, waiting.hold.queued_until) == (3, at(0), at(20))
    assert waiting.run == RUN


def test_a_place_that_lasts_is_not_written_again() -> None:
    waiting = claimed(HeldRun(RUN, HoldState()), 0)
    assert claimed(waiting, 9) is waiting
    prolonged = claimed(waiting, 10)
    assert (prolonged.hold.queue_place, prolonged.hold.queued_at, prolonged.hold.queued_until) == (3, at(0), at(30))


def test_a_place_that_ended_is_the_old_one_when_its_run_comes_back() -> None:
    waiting = claimed(HeldRun(RUN, HoldState()), 0)
    assert claimed(waiting, 35).hold.queue_place == 3
