"""The rules of a lease, by the clock of its holder, and who may take over."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bus.model.leadership import USABLE_FRACTION, Candidate, Leader, LeaderLease, Sighting

ANN = Candidate(worker_id="ann", url="tcp://10.0.0.1:7710", lease_seconds=10.0, renew_seconds=2.0)
HERE, THERE = "0123456789ab", "ba9876543210"
LEADER = Leader(f"bob-{HERE}", 7, "tcp://10.0.0.2:7710", "tcp://10.0.0.2:7711", "2026-11-30T12:00:00.000000Z")
RESTARTED = Candidate(worker_id=f"new-{HERE}", url=LEADER.url, is_bound=True, is_new=True)
"""A worker that has just bound the leader's address on the leader's machine."""


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
        # The address of the leader can be had on its machine only when its process has ended.
        (Sighting(LEADER), RESTARTED, True),
        # But others may have the same one: all of 127.0.0.1, and those that share an advertised address.
        (Sighting(LEADER), replace(RESTARTED, worker_id=f"new-{THERE}"), False),
        (Sighting(LEADER), replace(RESTARTED, is_bound=False), False),
        (Sighting(LEADER), replace(RESTARTED, is_new=False), False),
        (Sighting(LEADER._replace(url=None)), replace(RESTARTED, url=None), False),
        # It lost its lease, and nobody has taken over.
        (Sighting(LEADER), replace(ANN, worker_id=LEADER.worker_id), True),
    ],
)
def test_who_may_take_over(sighting: Sighting, candidate: Candidate, free: bool) -> None:
    assert sighting.is_free_for(candidate) is free
