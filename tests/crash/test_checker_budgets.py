"""The checker and the budgets of threads: answers beyond one, refusals within one, and what is left."""

from __future__ import annotations

import pytest

from .story import Story


@pytest.fixture
def story() -> Story:
    """A question with one hop, which `bob` got."""
    told = Story()
    told.publish("ann", "question", to="bob", seqs=(1,), hops=1)
    told.deliver("bob/1", 1, "question", hops=1)
    told.keep((1, "question"))
    return told


def answer(story: Story, id: str, reply_to: str, seq: int | None, *, to: str = "ann", by: str = "bob") -> None:
    spent = (0,) if seq is None else ()
    story.answer(story.send(by, id, to=to, reply_to=reply_to), seqs=(seq,), spent=spent)
    if seq is not None:
        story.keep((seq, id))


def kinds(story: Story) -> list[str]:
    return [fault.kind for fault in story.verdict().violations if fault.kind == "budgets"]


def test_a_thread_that_ends_where_it_may(story: Story) -> None:
    answer(story, "answer", "question", 2)
    story.kill()
    story.deliver("ann/1", 2, "answer", hops=0)
    answer(story, "spent", "answer", None, to="bob", by="ann")
    assert kinds(story) == []


def test_an_answer_beyond_the_budget_is_seen(story: Story) -> None:
    answer(story, "answer", "question", 2)
    answer(story, "beyond", "answer", 3, to="bob", by="ann")
    assert kinds(story) == ["budgets"]


def test_a_refusal_within_the_budget_is_seen(story: Story) -> None:
    answer(story, "refused", "question", None)
    assert kinds(story) == ["budgets"]


@pytest.mark.parametrize("hops", [None, 1])
def test_an_answer_with_more_than_is_left_is_seen(story: Story, hops: int | None) -> None:
    answer(story, "answer", "question", 2)
    story.deliver("ann/1", 2, "answer", hops=hops)
    assert kinds(story) == ["budgets"]


def test_another_bots_message_with_the_id_has_no_say(story: Story) -> None:
    story.publish("eve", "question", to="bob", seqs=(2,), hops=0)
    story.keep((2, "question"))
    answer(story, "refused", "question", None)
    assert kinds(story) == ["budgets"]


def test_what_left_the_log_is_not_judged(story: Story) -> None:
    story.stored.clear()
    answer(story, "answer", "question", 2)
    answer(story, "refused", "question", None)
    assert kinds(story) == []
