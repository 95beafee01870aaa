"""The checker on runs and commits: each broken promise is seen, and what only looks like one is not."""

from __future__ import annotations

import pytest

from .history import RunState
from .story import Story


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_run_that_is_older_than_acknowledged_is_seen(story: Story) -> None:
    story.checkpoint(1)
    story.checkpoint(2)
    story.runs = {"run": RunState(1)}
    [violation] = story.verdict().violations
    assert str(violation) == "checkpoints: run run at the end has version 1, and version 2 was acknowledged"


@pytest.mark.parametrize("version", [1, 2])
def test_an_unknown_checkpoint_is_there_or_not(story: Story, version: int) -> None:
    story.checkpoint(1)
    story.checkpoint(2, "unknown")
    story.runs = {"run": RunState(version)}
    assert story.verdict().ok


def test_a_checkpoint_that_was_refused_is_not_there(story: Story) -> None:
    story.checkpoint(1)
    story.checkpoint(2, "fail")
    story.runs = {"run": RunState(2)}
    assert story.verdict().kinds == {"checkpoints"}


def test_a_run_that_is_gone_is_seen(story: Story) -> None:
    story.checkpoint(1, "unknown")
    assert story.verdict().ok
    story.checkpoint(2)
    assert story.verdict().kinds == {"checkpoints"}


@pytest.mark.parametrize(
    ("steps", "fault"),
    [(("one",), True), (("one", "two"), False), (("one", "two", "three"), True), (("one", "two", "two"), True)],
)
def test_the_steps_are_those_that_were_acknowledged(story: Story, steps: tuple[str, ...], fault: bool) -> None:
    story.checkpoint(1, step="one")
    story.checkpoint(2, step="two")
    story.runs = {"run": RunState(2, steps)}
    assert story.verdict().kinds == ({"checkpoints"} if fault else set())


def test_a_run_that_is_read_is_no_older_than_acknowledged(story: Story) -> None:
    story.checkpoint(1)
    story.checkpoint(2, "unknown")
    story.runs = {"run": RunState(2)}
    story.read_run(2)
    assert story.verdict().ok
    story.read_run(0)
    assert story.verdict().kinds == {"checkpoints"}


# ── Commits ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def committed(story: Story) -> Story:
    """A commit of a message and a step for one that came, of which nobody knows, and a kill."""
    story.hello("worker", "worker/1")
    story.publish("ann", "a", seqs=(1,), to="worker")
    story.keep((1, "a"), to="worker")
    story.deliver("worker/1", 1, "a")
    story.answer(story.commit("b", acks=(1,), step="one"), "unknown")
    story.kill()
    story.hello("worker", "worker/2", last_seq=2)
    return story


def test_a_commit_that_happened_whole_is_whole(committed: Story) -> None:
    committed.keep((2, "b"))
    committed.runs = {"run": RunState(1, ("one",))}
    assert committed.verdict().ok


def test_a_commit_that_did_not_happen_did_not(committed: Story) -> None:
    committed.runs = {"run": RunState(0)}
    committed.take("worker/2", (1, "a"))
    assert committed.verdict().ok


@pytest.mark.parametrize("there", ["message", "step"])
def test_a_commit_of_which_a_part_is_there_is_seen(committed: Story, there: str) -> None:
    committed.runs = {"run": RunState(1, ("one",) if there == "step" else ())}
    if there == "message":
        committed.keep((2, "b"))
    assert committed.verdict().kinds == {"torn"}


def test_a_commit_that_was_refused_and_is_there_is_seen(story: Story) -> None:
    story.answer(story.commit("b", step="one"), "fail")
    story.keep((2, "b"))
    story.runs = {"run": RunState(1, ("one",))}
    assert {"torn", "refused_yet_there"} <= story.verdict().kinds


def test_what_a_commit_settled_does_not_come_again(committed: Story) -> None:
    committed.keep((2, "b"))
    committed.runs = {"run": RunState(1, ("one",))}
    committed.deliver("worker/2", 1, "a", attempt=2)
    [violation] = committed.verdict().violations
    assert violation.kind == "torn"
    assert "seq 1, which it settled, came again" in violation.text


def test_a_commit_that_is_repeated_after_a_kill_may_happen_then(committed: Story) -> None:
    del committed.events[-2:]
    committed.hello("worker", "worker/2", last_seq=1)
    committed.keep((2, "b"))
    committed.runs = {"run": RunState(1, ("one",))}
    committed.deliver("worker/2", 1, "a", attempt=2)
    committed.answer(committed.commit("b", acks=(1,), step="one"), seqs=(2,))
    assert committed.verdict().ok


def test_a_commit_whose_trace_was_seen_before_its_repeat_had_happened(committed: Story) -> None:
    committed.keep((2, "b"))
    committed.runs = {"run": RunState(1, ("one",))}
    committed.deliver("worker/2", 1, "a", attempt=2)
    committed.answer(committed.commit("b", acks=(1,), step="one"), seqs=(2,))
    assert committed.verdict().kinds == {"torn"}
