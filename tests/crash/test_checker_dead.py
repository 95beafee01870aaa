"""The checker on dead letters, failures and times: broken promises are seen, and what only looks so is not."""

from __future__ import annotations

import pytest

from .history import Mark
from .story import Story
from .verdict import Rules


@pytest.fixture
def story() -> Story:
    """Bob has a direct message, and a worker gives up after three failures."""
    story = Story(Rules(max_deliver=3))
    story.hello("bob", "bob/1")
    story.publish("ann", "a", seqs=(1,), to="bob")
    story.keep((1, "a"))
    story.dead_letters = {"bob": {}}
    return story


# ── Kept ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("outcome", ["ok", "unknown"])
def test_what_was_given_up_is_a_dead_letter_or_comes_again(story: Story, outcome: str) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="term", outcome=outcome)
    assert story.verdict().kinds == {"lost"}
    story.dead_letters = {"bob": {1: "on purpose"}}
    assert story.verdict().ok


def test_a_dead_letter_that_was_retried_comes_again(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="term")
    story.retry("bob", 1)
    assert story.verdict().kinds == {"lost"}
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1)
    assert story.verdict().ok


def test_a_dead_letter_that_nobody_retried_does_not_come_again(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="term")
    story.deliver("bob/1", 1, "a", 2)
    story.ack("bob/1", 1)
    assert "redelivered" in story.verdict().kinds


def test_what_was_settled_is_no_dead_letter(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1)
    story.dead_letters = {"bob": {1: "its session vanished; failed 3 times"}}
    assert story.verdict().kinds == {"dead_letters"}


def test_a_dead_letter_may_come_again_to_whoever_asks_for_the_past(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.subscribe("bob", start_seq=1)
    story.publish("ann", "b", seqs=(2,))
    story.keep((2, "b"))
    story.deliver("bob/1", 2, "b")
    story.ack("bob/1", 2, how="term")
    story.unsubscribe("bob")
    story.subscribe("bob", start="all")
    story.take("bob/1", (2, "b"))
    story.subscriptions, story.dead_letters = {"bob": ("news",)}, {"bob": {2: "on purpose"}}
    assert story.verdict().ok


def test_what_was_passed_over_is_not_settled(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="nak")
    story.ack("bob/1", 1, passed_over=(1,))
    assert story.verdict().kinds == {"lost"}
    story.deliver("bob/1", 1, "a", 2)
    story.ack("bob/1", 1)
    assert story.verdict().ok


# ── Failures ─────────────────────────────────────────────────────────────────────────────────────────────


def fail(story: Story, times: int, *, session: str = "bob/1", first: int = 1) -> None:
    for attempt in range(first, first + times):
        story.deliver(session, 1, "a", attempt)
        story.ack(session, 1, how="nak")


def test_failures_count_over_restarts(story: Story) -> None:
    fail(story, 2)
    story.kill()
    story.hello("bob", "bob/2")
    fail(story, 1, session="bob/2", first=3)
    story.deliver("bob/2", 1, "a", 4)
    story.ack("bob/2", 1)
    [violation] = story.verdict().violations
    assert violation.kind == "dead_letters"
    assert "after 3 failures" in violation.text


def test_after_a_retry_failures_count_from_the_beginning(story: Story) -> None:
    fail(story, 3)
    story.retry("bob", 1)
    fail(story, 1)
    story.deliver("bob/1", 1, "a", 2)
    story.ack("bob/1", 1)
    assert story.verdict().ok


def test_a_message_is_not_given_up_before_its_last_failure(story: Story) -> None:
    fail(story, 2)
    story.dead_letters = {"bob": {1: "its session vanished; failed 3 times"}}
    assert story.verdict().kinds == {"dead_letters"}
    story.events.append(Mark(what="vanished", at=9.0, process="bob", incarnation=1))
    assert story.verdict().ok


def test_a_break_is_no_failure() -> None:
    story = Story(Rules(max_deliver=3))
    story.hello("bob", "bob/1")
    story.publish("ann", "a", seqs=(1,), to="bob")
    story.keep((1, "a"))
    fail(story, 2)
    story.events.append(Mark(what="broke", at=9.0, process="bob", incarnation=1))
    story.dead_letters = {"bob": {1: "its session vanished; failed 3 times"}}
    assert story.verdict().kinds == {"dead_letters"}


@pytest.mark.parametrize(("pulled", "kinds"), [("far end, long", set()), ("far end, short", {"dead_letters"})])
@pytest.mark.parametrize("heard", ["expelled", "broke"])
def test_a_client_that_was_cut_off_for_long_has_vanished(
    story: Story, pulled: str, kinds: set[str], heard: str
) -> None:
    fail(story, 2)
    for what, note in (("pulled", pulled), (heard, "bob/1")):
        story.events.append(Mark(what=what, note=note, at=9.0, process="bob", incarnation=1))
    story.dead_letters = {"bob": {1: "its session vanished; failed 3 times"}}
    assert story.verdict().kinds == kinds


@pytest.mark.parametrize(("seconds", "kinds"), [(0.5, set()), (2.5, {"dead_letters"})])
def test_a_client_whose_cable_was_pulled_again_and_again_may_have_vanished(
    story: Story, seconds: float, kinds: set[str]
) -> None:
    fail(story, 2)
    for at in (9.0, 9.0 + seconds):
        story.events.append(Mark(what="pulled", note="far end, short", at=at, process="driver", incarnation=1))
    story.dead_letters = {"bob": {1: "its session vanished; failed 3 times"}}
    assert story.verdict().kinds == kinds


@pytest.mark.parametrize("reason", ["nak; failed 2 times", "expired", "because"])
def test_a_dead_letter_has_a_reason(story: Story, reason: str) -> None:
    fail(story, 2)
    story.dead_letters = {"bob": {1: reason}}
    assert story.verdict().kinds == {"dead_letters"}


# ── Times ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delayed_message_does_not_come_early(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.answer(story.send("ann", "b", to="bob", delay=5.0), seqs=(None,), scheduled=(0,))
    story.keep((2, "b"))
    story.take("bob/1", (2, "b"))
    assert story.verdict().kinds == {"early"}


def test_what_was_to_come_again_later_does_not_come_early(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="nak", delay=5.0)
    story.wait(4.0)
    story.deliver("bob/1", 1, "a", 2)
    story.ack("bob/1", 1)
    assert story.verdict().kinds == {"early"}


@pytest.mark.parametrize(("seconds", "kinds"), [(1.0, set()), (5.0, {"late"})])
def test_what_expired_does_not_come_any_more(story: Story, seconds: float, kinds: set[str]) -> None:
    story.take("bob/1", (1, "a"))
    story.publish("ann", "b", seqs=(2,), to="bob", ttl=3.0)
    story.keep((2, "b"))
    story.wait(seconds)
    story.hello("bob", "bob/2")
    story.take("bob/2", (2, "b"))
    assert story.verdict().kinds == kinds


def test_an_ack_that_was_flushed_holds_without_a_confirmation(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, outcome=None)
    story.publish("bob", "b", seqs=(2,), to="ann")
    story.hello("cid", "cid/1")
    story.wait(0.3)
    story.publish("cid", "c", seqs=(3,), to="ann")
    story.kill()
    story.hello("bob", "bob/2")
    story.deliver("bob/2", 1, "a")
    story.ack("bob/2", 1)
    assert "redelivered" in story.verdict().kinds


@pytest.mark.parametrize("then", ["nothing", "no answer to bob", "no write afterwards"])
def test_an_ack_that_may_not_have_been_flushed_does_not_hold(story: Story, then: str) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, outcome=None)
    if then == "no write afterwards":
        story.publish("bob", "b", seqs=(2,), to="bob")
        story.keep((2, "b"))
    elif then == "no answer to bob":
        story.hello("cid", "cid/1")
        story.wait(0.3)
        story.publish("cid", "c", seqs=(2,), to="bob")
        story.keep((2, "c"))
    story.kill()
    story.hello("bob", "bob/2")
    story.take("bob/2", (1, "a"), *[(message.seq, message.id) for message in story.stored[1:]])
    assert story.verdict().ok
