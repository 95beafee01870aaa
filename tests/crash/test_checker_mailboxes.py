"""The checker on mailboxes and subscriptions: each broken promise is seen, and what only looks like one is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .story import Story


@pytest.fixture
def story() -> Story:
    """Bob is subscribed to news, and one message on it is acknowledged."""
    story = Story()
    story.subscribe("bob")
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"))
    story.subscriptions = {"bob": ("news",)}
    return story


# ── Owed ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_all_is_well(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    verdict = story.verdict()
    assert verdict.ok
    assert str(verdict).startswith("events 7, kills 0, stops 0, sent 1, acknowledged 1")


def test_what_was_never_delivered_is_lost(story: Story) -> None:
    [violation] = story.verdict().violations
    assert str(violation) == (
        "lost: message a (seq 1, on 'news') is in the log, and was never delivered to bob, who is owed it"
    )


def test_what_was_recovered_is_owed_too(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.answer(story.send("ann", "b"), "unknown")
    story.keep((2, "b"))
    assert story.verdict().kinds == {"lost"}


def test_a_direct_message_is_owed_without_a_subscription(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.publish("ann", "d", seqs=(2,), to="cid")
    story.keep((2, "d"), to="cid")
    assert story.verdict().kinds == {"lost"}


def test_a_subscription_that_nobody_knows_of_owes_nothing(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.subscribe("cid", "unknown")
    story.publish("ann", "b", seqs=(2,))
    story.keep((2, "b"))
    story.take("bob/1", (2, "b"))
    assert story.verdict().ok


@pytest.mark.parametrize("outcome", ["ok", "unknown"])
def test_whoever_leaves_is_owed_nothing_more(story: Story, outcome: str) -> None:
    story.unsubscribe("bob", outcome)
    story.subscriptions = {}
    assert story.verdict().ok


def test_whoever_could_not_leave_is_owed_everything(story: Story) -> None:
    story.unsubscribe("bob", "fail")
    assert story.verdict().kinds == {"lost"}


def test_a_message_before_the_start_is_not_owed(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.subscribe("cid", start_seq=1)
    story.subscriptions["cid"] = ("news",)
    assert story.verdict().ok


def test_nobody_is_owed_its_own_without_an_echo(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.publish("bob", "b", seqs=(2,))
    story.keep((2, "b"))
    assert story.verdict().ok
    story.subscribe("eve", echo=True, start_seq=2)
    story.subscriptions["eve"] = ("news",)
    story.publish("eve", "e", seqs=(3,))
    story.keep((3, "e"))
    story.take("bob/1", (3, "e"))
    assert story.verdict().kinds == {"lost"}


def test_what_was_never_settled_has_to_come_again(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    assert story.verdict().kinds == {"lost"}


@pytest.mark.parametrize("outcome", ["ok", "unknown", None])
def test_what_was_perhaps_settled_need_not_come_again(story: Story, outcome: str | None) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, outcome=outcome)
    assert story.verdict().ok


@pytest.mark.parametrize(("how", "outcome"), [("ack", "fail"), ("nak", "ok")])
def test_what_was_not_settled_after_all_has_to_come_again(story: Story, how: str, outcome: str) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, outcome=outcome, how=how)
    assert story.verdict().kinds == {"lost"}


def test_a_dead_letter_is_kept_elsewhere(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="term")
    story.dead_letters = {"bob": {1: "not for me"}}
    assert story.verdict().ok


def test_a_mailbox_that_does_not_become_empty_is_seen(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.backlogs = {"bob": 3}
    assert story.verdict().kinds == {"not_drained"}


# ── Order ────────────────────────────────────────────────────────────────────────────────────────────────


def another(story: Story) -> None:
    story.publish("ann", "b", seqs=(2,))
    story.keep((2, "b"))


def test_first_deliveries_in_another_order_are_seen(story: Story) -> None:
    another(story)
    story.take("bob/1", (2, "b"), (1, "a"))
    assert story.verdict().kinds == {"out_of_order"}


def test_each_priority_has_an_order_of_its_own(story: Story) -> None:
    another(story)
    story.deliver("bob/1", 2, "b", priority="high")
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, 2)
    assert story.verdict().ok


def test_first_deliveries_of_one_priority_in_another_order_are_seen(story: Story) -> None:
    another(story)
    story.deliver("bob/1", 2, "b", priority="low")
    story.deliver("bob/1", 1, "a", priority="low")
    story.ack("bob/1", 1, 2)
    assert story.verdict().kinds == {"out_of_order"}


def test_what_comes_again_comes_in_any_order(story: Story) -> None:
    another(story)
    story.take("bob/1", (2, "b"))
    story.deliver("bob/1", 1, "a", attempt=2)
    story.ack("bob/1", 1)
    assert story.verdict().ok


def test_after_a_kill_first_deliveries_begin_where_the_disk_says(story: Story) -> None:
    another(story)
    story.deliver("bob/1", 1, "a")
    story.deliver("bob/1", 2, "b")
    story.kill()
    story.take("bob/2", (1, "a"), (2, "b"))
    verdict = story.verdict()
    assert verdict.ok
    assert (verdict.counts["kills"], verdict.counts["repeated"]) == (1, 2)


def test_a_subscription_from_the_past_goes_back(story: Story) -> None:
    another(story)
    story.take("bob/1", (2, "b"))
    story.unsubscribe("bob")
    story.subscribe("bob", start="all")
    story.take("bob/1", (1, "a"), (2, "b"))
    assert story.verdict().ok


# ── Again ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_after_a_confirmed_ack_is_seen(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.kill()
    story.deliver("bob/2", 1, "a", attempt=2)
    [violation] = story.verdict().violations
    assert violation.kind == "redelivered"
    assert violation.text == "bob was handed seq 1 again (attempt 2) at 1.0 s, after its ack was confirmed at 0.7 s"


@pytest.mark.parametrize("outcome", ["unknown", None])
def test_an_ack_that_nobody_knows_of_may_be_lost(story: Story, outcome: str | None) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, outcome=outcome)
    story.kill()
    story.deliver("bob/2", 1, "a", attempt=2)
    story.ack("bob/2", 1)
    assert story.verdict().ok


def test_what_a_session_acked_does_not_come_again_in_it(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, outcome=None)
    story.deliver("bob/1", 1, "a", attempt=2)
    assert story.verdict().kinds == {"redelivered"}


@pytest.mark.parametrize(
    ("session", "attempt", "fault"), [("bob/1", 1, True), ("bob/1", 2, False), ("bob/2", 1, False)]
)
def test_the_same_attempt_twice_in_one_session_is_seen(
    story: Story, session: str, attempt: int, fault: bool
) -> None:
    story.deliver("bob/1", 1, "a")
    story.deliver(session, 1, "a", attempt)
    story.ack(session, 1)
    assert story.verdict().kinds == ({"redelivered"} if fault else set())


def test_an_ack_in_another_session_is_ignored(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.kill()
    story.ack("bob/2", 1)
    story.deliver("bob/2", 1, "a", attempt=2)
    story.ack("bob/2", 1)
    assert story.verdict().ok


def test_an_ack_that_came_late_may_be_ignored(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.wait(40)
    story.ack("bob/1", 1)
    story.deliver("bob/1", 1, "a", attempt=2)
    story.ack("bob/1", 1)
    assert story.verdict().ok


def test_a_nak_brings_a_message_again(story: Story) -> None:
    story.deliver("bob/1", 1, "a")
    story.ack("bob/1", 1, how="nak")
    story.deliver("bob/1", 1, "a", attempt=2)
    story.ack("bob/1", 1)
    assert story.verdict().ok


# ── Subscriptions ────────────────────────────────────────────────────────────────────────────────────────


def test_a_delivery_to_somebody_who_never_subscribed_is_seen(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.take("cid/1", (1, "a"))
    assert story.verdict().kinds == {"not_subscribed"}


def test_a_direct_message_to_somebody_else_is_seen(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.publish("ann", "d", seqs=(2,), to="cid")
    story.keep((2, "d"), to="cid")
    story.take("cid/1", (2, "d"))
    assert story.verdict().ok
    story.take("bob/1", (2, "d"))
    assert story.verdict().kinds == {"not_subscribed"}


def test_a_delivery_after_the_end_of_a_subscription_is_seen(story: Story) -> None:
    story.unsubscribe("bob")
    story.subscriptions = {}
    story.take("bob/1", (1, "a"))
    assert story.verdict().kinds == {"not_subscribed"}


@pytest.mark.parametrize(("open_before", "kinds"), [(True, set()), (False, {"not_subscribed"})])
def test_another_session_may_read_late_what_was_sent_before_the_end(open_before: bool, kinds: set[str]) -> None:
    story = Story()
    story.hello("bob", "bob/1")
    if open_before:
        story.hello("bob/1", "bob/2")
    story.subscribe("bob")
    story.publish("ann", "a", seqs=(1,))
    story.keep((1, "a"))
    story.unsubscribe("bob")
    if not open_before:
        story.hello("bob/1", "bob/2")
    story.take("bob/2", (1, "a"))
    assert story.verdict().kinds == kinds


def test_a_delivery_from_before_a_subscription_is_seen(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.subscribe("cid", start_seq=1)
    story.subscriptions["cid"] = ("news",)
    story.take("cid/1", (1, "a"))
    assert story.verdict().kinds == {"not_subscribed"}


def test_ones_own_message_without_an_echo_is_seen(story: Story) -> None:
    story.take("bob/1", (1, "a"))
    story.publish("bob", "b", seqs=(2,))
    story.keep((2, "b"))
    story.take("bob/1", (2, "b"))
    assert story.verdict().kinds == {"not_subscribed"}


@pytest.mark.parametrize("outcome", ["unknown", "ok"])
def test_a_subscription_that_may_stand_may_deliver(story: Story, outcome: str) -> None:
    story.take("bob/1", (1, "a"))
    story.subscribe("cid", outcome, **({"start_seq": 1} if outcome == "ok" else {}))
    another(story)
    story.take("cid/1", (2, "b"))
    story.take("bob/1", (2, "b"))
    story.subscriptions["cid"] = ("news",)
    assert story.verdict().ok


def test_a_subscription_that_may_have_ended_may_deliver_or_not(story: Story) -> None:
    story.unsubscribe("bob", "unknown")
    another(story)
    story.take("bob/1", (2, "b"))
    assert story.verdict().ok
    story.subscriptions = {}
    assert story.verdict().ok


def test_an_unknown_end_may_come_late_but_not_after_a_kill(story: Story) -> None:
    story.unsubscribe("bob", "unknown")
    story.subscribe("bob", created=False)
    story.subscriptions = {}
    assert story.verdict().ok, "the unknown one came after"
    story.kill()
    story.subscribe("bob", created=False)
    story.take("bob/1", (1, "a"))
    assert story.verdict().kinds == {"subscriptions"}
    story.subscriptions = {"bob": ("news",)}
    assert story.verdict().ok


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (lambda story: story.subscriptions.clear(), "is gone at the end"),
        (lambda story: story.subscribe("bob", created=True), "it was created anew"),
        (
            lambda story: story.subscribe("bob", created=False, start_seq=4),
            "started after seq 0, and later after 4",
        ),
        (lambda story: story.unsubscribe("bob", removed=False), "the worker knew nothing of it"),
        (lambda story: story.unsubscribe("bob"), "was acknowledged as ended, and stands at the end"),
        (lambda story: story.subscriptions.update(eve=("news",)), "never asked for it"),
        (lambda story: story.subscribe("cid", created=False), "the worker said that it did"),
        (lambda story: story.unsubscribe("cid"), "cannot have stood"),
    ],
)
def test_other_subscriptions_than_the_acknowledged_are_seen(
    story: Story, does: Callable[[Story], object], says: str
) -> None:
    story.take("bob/1", (1, "a"))
    assert story.verdict().ok
    does(story)
    verdict = story.verdict()
    assert "subscriptions" in verdict.kinds
    assert says in str(verdict)
