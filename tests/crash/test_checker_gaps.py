"""The checker on retention and its gaps, and on clients that return."""

from __future__ import annotations

import pytest

from .history import Mark
from .story import Story
from .verdict import Rules


@pytest.fixture
def story() -> Story:
    """Bob is subscribed to news, of which one message is kept, and two are acknowledged."""
    story = Story(Rules(retained={"news": 1}))
    story.subscribe("bob")
    story.hello("bob", "bob/1")
    story.publish("ann", "a", "b", seqs=(1, 2))
    story.subscriptions = {"bob": ("news",)}
    return story


def test_what_was_settled_may_go(story: Story) -> None:
    story.take("bob/1", (1, "a"), (2, "b"))
    story.keep((2, "b"))
    assert story.verdict().ok


def test_the_newest_stay(story: Story) -> None:
    story.take("bob/1", (1, "a"), (2, "b"))
    assert story.verdict().kinds == {"gaps"}


def test_what_was_lost_is_told(story: Story) -> None:
    story.take("bob/1", (2, "b"))
    story.keep((2, "b"))
    assert story.verdict().kinds == {"gaps"}
    story.gap("bob/1", 1, 1)
    assert story.verdict().ok


def test_what_was_handed_out_and_lost_is_told_too(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.take("bob/1", (2, "b"))
    story.keep((2, "b"))
    assert story.verdict().kinds == {"gaps"}


@pytest.mark.parametrize("why", ["kept", "settled", "at work"])
def test_what_was_not_lost_is_not_told(story: Story, why: str) -> None:
    if why == "settled":
        story.take("bob/1", (1, "a"))
    elif why == "at work":
        story.deliver("bob/1", 1, "a")
    story.gap("bob/1", *((2, 2) if why == "kept" else (1, 1)))
    if why == "at work":
        story.ack("bob/1", 1)
    else:
        story.gap("bob/1", 1, 1)
    story.take("bob/1", (2, "b"))
    story.keep((2, "b"))
    assert story.verdict().kinds == {"gaps"}


def test_a_dead_letter_stays(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="term")
    story.take("bob/1", (2, "b"))
    story.keep((2, "b"))
    story.dead_letters = {"bob": {1: "on purpose"}}
    assert "lost" in story.verdict().kinds


# ── Clients that return ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("not_held", "kinds"), [((), {"redelivered"}), ((1,), set())])
def test_what_a_client_holds_it_can_settle_for_good(
    story: Story, not_held: tuple[int, ...], kinds: set[str]
) -> None:
    story.deliver("bob/1", 1, "a")
    story.come_back("bob", "bob/2", 1, not_held=not_held)
    story.ack("bob/2", 1)
    story.hello("bob/other", "bob/3")
    story.deliver("bob/3", 1, "a", 2)
    story.ack("bob/3", 1)
    story.take("bob/2", (2, "b"))
    story.keep((1, "a"), (2, "b"))
    assert story.verdict().kinds == kinds


@pytest.mark.parametrize(
    ("marks", "kinds"),
    [
        (["paused"], {"expelled"}),
        (["paused", "continued"], {"expelled"}),
        (["pulled"], set()),
        (["paused", "killed", "started"], set()),  # the next worker does not know the session
        (["paused", "killed", "started", "paused"], set()),
    ],
)
def test_nobody_is_silent_because_the_worker_was(story: Story, marks: list[str], kinds: set[str]) -> None:
    story.take("bob/1", (1, "a"), (2, "b"))
    story.keep((1, "a"), (2, "b"))
    for what in (*marks, "expelled"):
        note = "bob/1" if what == "expelled" else ""
        story.events.append(Mark(what=what, note=note, at=9.0, process="bob", incarnation=1))
    assert story.verdict().kinds == kinds
