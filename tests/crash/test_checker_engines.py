"""The checker on a house with several workers, and an engine without a quorum for a while."""

from __future__ import annotations

import pytest

from .history import QUORUM_BACK, QUORUM_LOST
from .story import Story


@pytest.fixture
def story() -> Story:
    return Story()


def test_an_answer_that_nothing_made_safe_is_seen(story: Story) -> None:
    before = story.send("ann", "a")
    story.mark(QUORUM_LOST)
    story.answer(before, seqs=(1,))  # it was on its way
    story.publish("ann", "b", seqs=(2,))
    story.publish("ann", "a", seqs=(1,), duplicates=(0,))
    after = story.send("ann", "c")
    story.mark(QUORUM_BACK)
    story.answer(after, seqs=(3,))
    story.publish("ann", "d", seqs=(4,))
    story.keep((1, "a"), (2, "b"), (3, "c"), (4, "d"))
    assert [violation.text for violation in story.verdict().violations] == [
        "a publish of ann was answered at 0.5 s, and was on no standby"
    ]


def test_a_worker_that_was_replaced_may_not_know_it_yet(story: Story) -> None:
    story.hello("eve", "eve/1", last_seq=0, fence=1)
    story.hello("bob", "bob/1", last_seq=0, fence=2)
    story.publish("bob", "a", seqs=(1,), to="eve")
    story.hello("eve/2", "eve/2", last_seq=1, fence=2)
    story.take("eve/2", (1, "a"))
    story.deliver("eve/1", 1, "a", channel=None)  # from its memory
    story.hello("dan", "dan/1", last_seq=0, fence=1)
    story.keep((1, "a"))
    assert story.verdict().ok, story.verdict()


def test_a_worker_that_replaced_another_knows_everything(story: Story) -> None:
    story.hello("ann", "ann/1", last_seq=0, fence=1)
    story.publish("ann", "a", seqs=(1,), to="eve")
    story.hello("eve", "eve/1", last_seq=1, fence=1)
    story.take("eve/1", (1, "a"))
    story.hello("eve/2", "eve/2", last_seq=0, fence=2)
    story.deliver("eve/2", 1, "a", channel=None)
    story.keep((1, "a"))
    assert story.verdict().kinds == {"lost", "redelivered"}


def test_an_ack_that_nobody_confirmed_is_not_on_disk_by_another_workers_answer(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,), to="eve")
    story.hello("eve", "eve/1", fence=1)
    story.deliver("eve/1", 1, "a", channel=None)
    story.ack("eve/1", 1, outcome=None)
    story.hello("bob", "bob/1", fence=2)
    story.publish("eve", "b", seqs=(2,), to="bob")
    story.wait(1)
    story.publish("bob", "c", seqs=(3,), to="bob")
    story.hello("eve/2", "eve/2", fence=2)
    story.deliver("eve/2", 1, "a", attempt=2, channel=None)
    story.take("bob/1", (2, "b"), (3, "c"))
    story.ack("eve/2", 1)
    story.keep((1, "a"), (2, "b"), (3, "c"))
    assert story.verdict().ok, story.verdict()
