"""The checker on the log: each broken promise is seen, and what only looks like one is not."""

from __future__ import annotations

import pytest

from .story import Story


@pytest.fixture
def story() -> Story:
    return Story()


# ── Lost ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_acknowledged_message_that_is_not_in_the_log_is_lost(story: Story) -> None:
    story.publish("ann", "a", "b", seqs=(1, 2))
    story.keep((1, "a"))
    verdict = story.verdict()
    assert verdict.kinds == {"lost"}
    assert (
        verdict.violations[0].text == "message b of ann on 'news' was acknowledged as seq 2, and is not in the log"
    )
    assert (verdict.counts["acknowledged"], verdict.counts["lost"]) == (2, 1)


def test_the_same_id_of_two_senders_is_two_messages(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.publish("bob", "a", seqs=(2,))
    story.keep((1, "a"), sender="ann")
    assert [violation.text for violation in story.verdict().violations] == [
        "message a of bob on 'news' was acknowledged as seq 2, and is not in the log"
    ]
    story.keep((2, "a"), sender="bob")
    assert story.verdict().ok
    assert story.verdict().counts["same_ids"] == 1


def test_an_answer_about_another_senders_message_with_that_id_is_seen(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.answer(story.send("bob", "a"), seqs=(1,), duplicates=(0,))
    story.keep((1, "a"), sender="ann")
    assert {"lost", "two_bodies"} <= story.verdict().kinds


@pytest.mark.parametrize("outcome", ["unknown", "fail", None])
def test_a_message_that_was_not_acknowledged_may_be_gone(story: Story, outcome: str | None) -> None:
    call = story.send("ann", "a")
    if outcome is not None:
        story.answer(call, outcome)
    assert story.verdict().ok


def test_a_message_that_is_refused_in_an_answered_frame_may_be_gone(story: Story) -> None:
    story.publish("ann", "a", "b", seqs=(1, None))
    story.keep((1, "a"))
    assert story.verdict().ok


def test_a_message_that_waits_until_it_is_due_is_owed_to_the_log(story: Story) -> None:
    story.answer(story.send("ann", "a"), seqs=(None,), scheduled=(0,))
    [violation] = story.verdict().violations
    assert violation.text == (
        "message a of ann on 'news' was acknowledged as waiting until it is due, and is not in the log"
    )
    story.answer(story.send("ann", "a"), seqs=(4,), duplicates=(0,))
    story.keep((4, "a"))
    assert story.verdict().ok


def test_a_log_that_ends_before_what_was_acknowledged_is_seen_at_the_hello(story: Story) -> None:
    story.publish("ann", "a", seqs=(7,))
    story.keep((7, "a"))
    story.hello("bob", "bob/1", last_seq=6)
    assert [violation.kind for violation in story.verdict().violations] == ["lost"]


def test_a_hello_beside_a_publish_need_not_know_it(story: Story) -> None:
    call = story.send("ann", "a")
    story.hello("bob", "bob/1", last_seq=6)
    story.answer(call, seqs=(7,))
    story.keep((7, "a"))
    assert story.verdict().ok


# ── Never sent ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_that_nobody_sent_is_seen(story: Story) -> None:
    story.keep((1, "a"))
    assert story.verdict().kinds == {"never_sent"}


def test_a_delivery_before_the_sending_is_seen(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.publish("ann", "a", seqs=(1,), to="bob")
    story.keep((1, "a"), to="bob")
    assert "never_sent" in story.verdict().kinds


def test_a_message_under_another_name_is_seen(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"), sender="eve")
    assert story.verdict().kinds == {"never_sent", "lost", "two_bodies"}


@pytest.mark.parametrize("outcome", ["unknown", None])
def test_what_nobody_knew_of_and_is_there_was_recovered(story: Story, outcome: str | None) -> None:
    call = story.send("ann", "a")
    if outcome is not None:
        story.answer(call, outcome)
    story.keep((1, "a"))
    verdict = story.verdict()
    assert verdict.ok
    assert (verdict.counts["unknown"], verdict.counts["recovered"]) == (1, 1)


def test_a_repeat_that_is_called_one_was_recovered(story: Story) -> None:
    story.answer(story.send("ann", "a"), "unknown")
    story.answer(story.send("ann", "a"), seqs=(1,), duplicates=(0,))
    story.keep((1, "a"))
    verdict = story.verdict()
    assert verdict.ok
    assert verdict.counts["recovered"] == 1


def test_the_workers_own_messages_are_nobodys(story: Story) -> None:
    story.keep((1, "notice"), sender="posthouse")
    assert story.verdict().ok


def test_what_was_refused_and_is_there_is_seen(story: Story) -> None:
    story.answer(story.send("ann", "a"), "fail")
    story.keep((1, "a"))
    assert story.verdict().kinds == {"refused_yet_there"}


def test_what_was_refused_and_sent_again_may_be_there(story: Story) -> None:
    story.answer(story.send("ann", "a"), "fail")
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"))
    assert story.verdict().ok


# ── Twice ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_message_with_two_places_is_seen(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.publish("ann", "a", seqs=(2,))
    story.keep((1, "a"))
    assert story.verdict().kinds == {"duplicated"}


def test_a_message_that_is_stored_twice_is_seen(story: Story) -> None:
    story.answer(story.send("ann", "a"), "unknown")
    story.keep((1, "a"), (2, "a"))
    assert story.verdict().kinds == {"duplicated"}


def test_a_repeat_has_the_first_place(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.publish("ann", "b", seqs=(2,))
    story.answer(story.send("ann", "a"), seqs=(1,), duplicates=(0,))
    story.keep((1, "a"), (2, "b"))
    assert story.verdict().ok


def test_a_place_with_two_messages_is_seen(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.answer(story.send("ann", "b"), "unknown")
    story.keep((1, "a"), (1, "b"))
    assert story.verdict().kinds == {"two_bodies"}


def test_another_body_is_seen(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"), body="changed")
    assert story.verdict().kinds == {"two_bodies"}


# ── Order ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_later_message_before_an_acknowledged_one_is_seen(story: Story) -> None:
    story.publish("ann", "a", seqs=(2,))
    story.publish("bob", "b", seqs=(1,))
    story.keep((1, "b"), (2, "a"))
    assert story.verdict().kinds == {"out_of_order"}


def test_messages_beside_each_other_come_in_any_order(story: Story) -> None:
    first, second = story.send("ann", "a"), story.send("bob", "b")
    story.answer(first, seqs=(2,))
    story.answer(second, seqs=(1,))
    story.keep((1, "b"), (2, "a"))
    assert story.verdict().ok


def test_a_repeat_keeps_an_earlier_place(story: Story) -> None:
    story.answer(story.send("ann", "a"), "unknown")
    story.publish("bob", "b", seqs=(2,))
    story.answer(story.send("ann", "a"), seqs=(1,), duplicates=(0,))
    story.keep((1, "a"), (2, "b"))
    assert story.verdict().ok


def test_a_frame_in_another_order_is_seen(story: Story) -> None:
    story.publish("ann", "a", "b", seqs=(2, 1))
    story.keep((1, "b"), (2, "a"))
    assert story.verdict().kinds == {"out_of_order"}


def test_a_frame_with_a_repeat_among_new_ones_is_in_order(story: Story) -> None:
    story.publish("ann", "a", seqs=(1,))
    story.answer(story.send("ann", "b", "a"), seqs=(2, 1), duplicates=(1,))
    story.keep((1, "a"), (2, "b"))
    assert story.verdict().ok
