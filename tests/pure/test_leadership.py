"""The rules of a lease, by the clock of its holder, and who may take over."""

from __future__ import annotations

import pytest

from bus.model.leadership import USABLE_FRACTION, Candidate, Leader, LeaderLease, Sighting

ANN = Candidate(worker_id="ann", url="tcp://10.0.0.1:7710", lease_seconds=10.0, renew_seconds=2.0)
LEADER = Leader("bob", 7, "tcp://10.0.0.2:7710", "tcp://10.0.0.2:7711", "2026-11-30T12:00:00.000000Z")


def test_a_lease_is_over_before_it_expires_for_others() -> None:
    lease = LeaderLease(ANN, sent_at=100.0)
    assert not lease.is_over(107.9)
    assert lease.is_over(108.0)
    assert lease.over_at < 100.0 + ANN.lease_seconds
    assert lease.over_at == 100.0 + USABLE_FRACTION * ANN.lease_seconds


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    lease = LeaderLease(ANN, sent_at=100.0)
    assert lease.renew_at == 102.0
    lease.confirm(102.0)
    assert (lease.renew_at, lease.over_at) == (104.0, 110.0)


def test_a_renewal_that_is_confirmed_late_prolongs_nothing_that_a_later_one_did() -> None:
    lease = LeaderLease(ANN, sent_at=104.0)
    lease.confirm(102.0)
    assert lease.over_at == 112.0


def test_a_lease_that_is_over_may_be_renewed_unless_it_was_given_up() -> None:
    lease = LeaderLease(ANN, sent_at=100.0)
    assert lease.is_over(109.0)
    lease.confirm(108.5)
    assert not lease.is_over(109.0)
    lease.give_up()
    assert lease.is_over(109.0)
    lease.confirm(109.0)
    assert lease.is_over(109.0)


@pytest.mark.parametrize(
    ("sighting", "candidate", "free"),
    [
        (Sighting(None), ANN, True),
        (Sighting(None, LEADER, given_up=True), ANN, True),
        (Sighting(LEADER), ANN, False),
        # The address of the leader can be had only when its process has ended.
        (Sighting(LEADER), Candidate(worker_id="new", url=LEADER.url, is_new=True), True),
        # But two workers with the same one would take the lead from each other for ever.
        (Sighting(LEADER), Candidate(worker_id="old", url=LEADER.url), False),
        (Sighting(LEADER._replace(url=None)), Candidate(worker_id="new", is_new=True), False),
    ],
)
def test_who_may_take_over(sighting: Sighting, candidate: Candidate, free: bool) -> None:
    assert sighting.is_free_for(candidate) is free
