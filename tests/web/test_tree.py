"""A thread as a tree, and the steps of a run on a line."""

from __future__ import annotations

from datetime import UTC, datetime

from bus.model.records import StepStatus, WorkflowStepLog
from bus.web.timeline import timeline
from bus.web.tree import tree
from bus.wire.frames import StoredMessage


def message(seq: int, reply_to: str | None = None, id: str | None = None) -> StoredMessage:
    return StoredMessage(
        seq=seq,
        id=id or f"m{seq}",
        sender_bot_id="b",
        sender_bot_name="b",
        recipient={"type": "channel", "name": "c"},
        message_type="message",
        body=None,
        reply_to=reply_to,
        headers={},
        timestamp="2026-11-30T18:00:00.000000Z",
    )


def drawn(*messages: StoredMessage) -> list[tuple[int, int]]:
    return [(branch.depth, branch.message.seq) for branch in tree(messages)]


def test_answers_are_below_what_they_answer() -> None:
    found = drawn(message(5, "m1"), message(4, "m2"), message(3, "gone"), message(2, "m1"), message(1))
    assert found == [(0, 1), (1, 2), (2, 4), (1, 5), (0, 3)]


def test_messages_that_answer_each_other_are_all_drawn_once() -> None:
    assert drawn(message(1, "m2"), message(2, "m1"), message(3, "m3")) == [(0, 1), (1, 2), (0, 3)]
    copies = [message(1, id="x"), message(2, "x", id="x"), message(3, "x", id="x"), message(4, "x")]
    assert sorted(seq for _, seq in drawn(*copies)) == [1, 2, 3, 4]


def test_a_long_thread_is_drawn_without_recursion() -> None:
    found = drawn(message(1), *(message(seq, f"m{seq - 1}") for seq in range(2, 5000)))
    assert len(found) == 4999
    assert max(depth for depth, _ in found) == 12


def step(name: str, started: str | None, completed: str | None) -> WorkflowStepLog:
    return WorkflowStepLog(
        id=name,
        run_id="r",
        step_id=name,
        step_name=name,
        status=StepStatus.COMPLETED if completed else StepStatus.RUNNING,
        started_at=started,
        completed_at=completed,
    )


def at(seconds: int) -> str:
    return f"2026-11-30T18:00:{seconds:02}.000000Z"


def test_steps_are_placed_between_the_ends_of_their_run() -> None:
    now = datetime(2026, 11, 30, 18, 0, 20, tzinfo=UTC)
    steps = [step("a", at(0), at(5)), step("b", at(5), None), step("c", None, None), step("d", "soon", None)]
    places = [(bar.left, bar.width, bar.seconds) for bar in timeline(steps, at(0), None, now)]
    assert places == [(0, 25, 5), (25, 75, 15), (0, 0, None), (0, 0, None)]
    ended = timeline([step("a", at(0), at(0)), step("b", at(10), at(10))], at(0), at(10), now)
    assert [round(bar.left + bar.width, 1) for bar in ended] == [0.6, 100]
    assert timeline([step("a", at(0), at(0))], at(0), at(0), now)[0].width == 0
