"""The checker on sessions: credit, replies, and where subscriptions start."""

from __future__ import annotations

import pytest

from .history import Unsubscribe
from .story import Story

# ── Credit ───────────────────────────────────────────────────────────────────────────────────────────────


def handed(story: Story, credit: int) -> None:
    """Hand three messages to bob."""
    story.hello("bob", "bob/1", credit=credit)
    story.publish("ann", "a", "b", "c", seqs=(1, 2, 3), to="bob")
    story.keep((1, "a"), (2, "b"), (3, "c"))
    for seq, id in enumerate("abc", 1):
        story.deliver("bob/1", seq, id)


@pytest.mark.parametrize(("credit", "kinds"), [(3, set()), (2, {"credit"})])
def test_nobody_is_handed_more_than_its_credit(credit: int, kinds: set[str]) -> None:
    story = Story()
    handed(story, credit)
    story.ack("bob/1", 1, 2, 3)
    assert story.verdict().kinds == kinds


def test_what_was_settled_makes_room() -> None:
    story = Story()
    story.hello("bob", "bob/1", credit=1)
    story.publish("ann", "a", "b", seqs=(1, 2), to="bob")
    story.keep((1, "a"), (2, "b"))
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, outcome=None)
    story.take("bob/1", (2, "b"))
    assert story.verdict().ok


@pytest.mark.parametrize(("leaves_late", "kinds"), [(True, set()), (False, {"credit", "not_subscribed"})])
def test_leaving_a_group_makes_room_when_it_is_carried_out(leaves_late: bool, kinds: set[str]) -> None:
    """A session that is opened meanwhile may still have been handed what the group's mailbox had."""
    story = Story()
    story.subscribe("bob", group="crew")
    leaving = story.invoke("bob", Unsubscribe("bob", "news"))
    if not leaves_late:
        story.answer(leaving, removed=True)
    story.hello("bob", "bob/1", credit=1)
    story.publish("ann", "a", seqs=(1,))
    story.publish("ann", "b", "c", seqs=(2, 3), to="bob")
    story.keep((1, "a"), (2, "b"), (3, "c"))
    story.deliver("bob/1", 1, "a", group="crew")
    if leaves_late:
        story.answer(leaving, removed=True)
    story.deliver("bob/1", 2, "b")
    story.ack("bob/1", 2, 1)
    story.take("bob/1", (3, "c"))
    assert story.verdict().kinds == kinds


# ── Replies ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def story() -> Story:
    """Bob has two sessions, asks in the first one, and is answered."""
    story = Story()
    story.hello("bob", "bob/1", credit=1)
    story.hello("bob/2", "bob/2")
    story.answer(story.send("bob", "q", to="ann", asks=True), seqs=(1,))
    story.hello("ann", "ann/1")
    story.take("ann/1", (1, "q"))
    story.publish("ann", "r", seqs=(2,), to="bob", reply_to="q")
    story.keep((1, "q"), (2, "r"))
    return story


def test_a_reply_comes_to_the_session_that_asked(story: Story) -> None:
    story.deliver("bob/1", 2, "r", reply_to="q")
    story.ack("bob/1", 2)
    assert story.verdict().ok


def test_a_reply_that_comes_to_another_session_is_seen(story: Story) -> None:
    story.deliver("bob/2", 2, "r", reply_to="q")
    story.ack("bob/2", 2)
    assert story.verdict().ok, "the one that asked may be gone"
    story.publish("bob", "x", seqs=(3,), to="ann")
    story.keep((3, "x"))
    story.take("ann/1", (3, "x"))
    assert story.verdict().kinds == {"misdirected"}


def test_a_reply_that_does_not_come_at_once_is_seen(story: Story) -> None:
    story.publish("bob", "x", seqs=(3,), to="ann")
    story.keep((3, "x"))
    story.take("ann/1", (3, "x"))
    story.deliver("bob/1", 2, "r", reply_to="q")
    story.ack("bob/1", 2)
    assert story.verdict().kinds == {"late"}


def test_a_reply_comes_ahead_and_outside_of_the_credit(story: Story) -> None:
    story.publish("ann", "b", seqs=(3,), to="bob")
    story.keep((3, "b"))
    story.deliver("bob/1", 3, "b")
    story.deliver("bob/1", 2, "r", reply_to="q")
    story.ack("bob/1", 2, 3)
    assert story.verdict().ok


# ── Starts ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_subscription_that_starts_late_is_seen() -> None:
    story = Story()
    story.subscribe("bob", start_seq=1)
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"))
    story.subscriptions = {"bob": ("news",)}
    assert story.verdict().kinds == {"subscriptions"}


@pytest.mark.parametrize(("start", "start_seq"), [("all", 1), (2, 2), (3, 1), ("new", 1)])
def test_a_subscription_that_starts_elsewhere_is_seen(start: str | int, start_seq: int) -> None:
    story = Story()
    story.publish("ann", "a", "b", seqs=(1, 2))
    story.keep((1, "a"), (2, "b"))
    story.subscribe("bob", start=start, start_seq=start_seq)
    story.hello("bob", "bob/1")
    story.take("bob/1", *[(seq, id) for seq, id in ((1, "a"), (2, "b")) if seq > start_seq])
    story.subscriptions = {"bob": ("news",)}
    assert story.verdict().kinds == {"subscriptions"}
