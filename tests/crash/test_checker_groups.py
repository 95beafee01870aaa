"""The checker on groups: one mailbox for all members, which outlives them."""

from __future__ import annotations

from typing import Any

import pytest

from .story import Story

CREW: dict[str, Any] = {"group": "crew"}


@pytest.fixture
def story() -> Story:
    """Bob and Cid are a group on news, and one message on it is acknowledged."""
    story = Story()
    story.subscribe("bob", **CREW)
    story.subscribe("cid", **CREW)
    story.hello("bob", "bob/1")
    story.hello("cid", "cid/1")
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"))
    story.subscriptions = {"bob": ("news",), "cid": ("news",)}
    return story


@pytest.mark.parametrize("member", ["bob", "cid"])
def test_one_member_is_enough(story: Story, member: str) -> None:
    story.deliver(f"{member}/1", 1, "a", **CREW)
    story.ack(f"{member}/1", 1)
    assert story.verdict().ok


def test_what_no_member_was_handed_is_lost(story: Story) -> None:
    [violation] = story.verdict().violations
    assert violation.kind == "lost"
    assert "never delivered to news/crew" in violation.text


def test_the_group_is_owed_what_comes_when_all_have_left(story: Story) -> None:
    story.deliver("bob/1", 1, "a", **CREW)
    story.ack("bob/1", 1)
    story.unsubscribe("bob")
    story.unsubscribe("cid")
    story.subscriptions = {}
    assert story.verdict().ok
    story.publish("ann", "b", seqs=(2,))
    story.keep((2, "b"))
    assert story.verdict().kinds == {"lost"}


def test_a_group_that_nobody_knows_of_is_owed_nothing() -> None:
    story = Story()
    story.subscribe("bob", "unknown", **CREW)
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"))
    assert story.verdict().ok


def test_what_one_member_acked_does_not_come_to_another(story: Story) -> None:
    story.deliver("bob/1", 1, "a", **CREW)
    story.ack("bob/1", 1)
    story.deliver("cid/1", 1, "a", attempt=2, **CREW)
    assert story.verdict().kinds == {"redelivered"}


def test_an_earlier_attempt_may_come_late_to_another_member(story: Story) -> None:
    """It was sent before its cable was pulled, and comes when that is put in again."""
    story.deliver("bob/1", 1, "a", attempt=2, **CREW)
    story.ack("bob/1", 1)
    story.deliver("cid/1", 1, "a", **CREW)
    assert story.verdict().ok


def test_an_earlier_attempt_does_not_come_in_a_session_that_began_after_the_ack(story: Story) -> None:
    story.deliver("bob/1", 1, "a", attempt=2, **CREW)
    story.ack("bob/1", 1)
    story.hello("cid", "cid/2")
    story.deliver("cid/2", 1, "a", **CREW)
    assert "redelivered" in story.verdict().kinds


def test_what_one_member_failed_at_comes_to_another(story: Story) -> None:
    story.deliver("bob/1", 1, "a", **CREW)
    story.ack("bob/1", 1, how="nak")
    story.deliver("cid/1", 1, "a", attempt=2, **CREW)
    story.ack("cid/1", 1)
    assert story.verdict().ok


def test_whoever_left_has_given_back_what_it_acks(story: Story) -> None:
    story.deliver("bob/1", 1, "a", **CREW)
    story.unsubscribe("bob")
    story.subscriptions = {"cid": ("news",)}
    story.ack("bob/1", 1)
    story.deliver("cid/1", 1, "a", attempt=2, **CREW)
    story.ack("cid/1", 1)
    assert story.verdict().ok


def test_what_came_from_a_dead_worker_may_be_written_down_late(story: Story) -> None:
    story.kill()
    story.hello("cid", "cid/2", last_seq=1)
    story.deliver("cid/2", 1, "a", attempt=2, **CREW)
    story.ack("cid/2", 1)
    story.deliver("bob/1", 1, "a", **CREW)
    assert story.verdict().ok


def test_a_delivery_to_somebody_who_is_no_member_is_seen(story: Story) -> None:
    story.deliver("eve/1", 1, "a", **CREW)
    story.ack("eve/1", 1)
    assert story.verdict().kinds == {"not_subscribed"}


def test_a_delivery_by_a_group_that_there_is_not_is_seen(story: Story) -> None:
    story.deliver("bob/1", 1, "a", group="others")
    story.ack("bob/1", 1)
    assert "not_subscribed" in story.verdict().kinds


def test_a_group_begins_once(story: Story) -> None:
    story.deliver("bob/1", 1, "a", **CREW)
    story.ack("bob/1", 1)
    story.subscribe("dan", start_seq=1, **CREW)
    story.subscriptions["dan"] = ("news",)
    [violation] = story.verdict().violations
    assert str(violation) == "subscriptions: group news/crew started after seq 0, and later after 1"


def test_a_member_has_two_mailboxes_and_no_order_between_them(story: Story) -> None:
    story.publish("ann", "d", seqs=(2,), to="bob")
    story.keep((2, "d"), to="bob")
    story.deliver("bob/1", 2, "d")
    story.deliver("bob/1", 1, "a", **CREW)
    story.ack("bob/1", 1, 2)
    assert story.verdict().ok
