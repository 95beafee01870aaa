"""Signals to runs: kept until they are taken, each once, and what waits for them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest

import bus
from bus.errors import (
    Conflict,
    Fenced,
    InvalidTransition,
    InvalidValue,
    NotFound,
    RunEnded,
    TooLarge,
    TooManySignals,
)
from bus.model.records import RunStatus, Signal, StepStatus, WorkflowDefinition, WorkflowRun, timestamp
from bus.model.repository import WorkflowRepository
from bus.model.values import SIGNAL_BYTES_MAX
from bus.model.workflows import WorkflowRules
from bus.runs.replay import LEFT
from bus.runs.run import Run

from .conftest import Clock, Place
from .executing import BOUND_SECONDS, Mortal, Programs, Seen, mortal
from .samples import ANN, run, step

pytestmark = pytest.mark.anyio


@pytest.fixture
def programs(place: Place) -> Programs:
    return Programs(place)


# ── Sending ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_signal_is_kept_and_may_be_sent_again(
    workflows: WorkflowRepository, pending: WorkflowRun, clock: Clock
) -> None:
    sent = await workflows.send_signal("r", "paid", {"amount": 3}, id="s1")
    assert (sent.id, sent.run_id, sent.name, sent.payload) == ("s1", "r", "paid", {"amount": 3})
    assert sent.sent_at == timestamp(clock.now)
    clock.advance(1)
    assert await workflows.send_signal("r", "paid", {"amount": 3}, id="s1") == sent
    with pytest.raises(Conflict, match="another signal"):
        await workflows.send_signal("r", "paid", {"amount": 4}, id="s1")
    other = await workflows.send_signal("r", "paid", {"amount": 3})
    assert other.id != sent.id
    assert await workflows.list_signals("r") == [sent, other]
    assert await workflows.list_signals("r", limit=1, offset=1) == [other]
    assert await workflows.list_signals("r", ["refused"]) == []


async def test_an_id_belongs_to_one_run(workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    await workflows.create_run(run("q"))
    one = await workflows.send_signal("r", "paid", id="s")
    two = await workflows.send_signal("q", "refused", id="s")
    assert (await workflows.list_signals("r"), await workflows.list_signals("q")) == ([one], [two])


async def test_a_run_that_has_ended_takes_none(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    sent = await workflows.send_signal("r", "paid", id="s1")
    await workflows.update_run_status("r", RunStatus.COMPLETED)
    with pytest.raises(RunEnded, match="run 'r' is completed: it has ended, and takes no signals") as refused:
        await workflows.send_signal("r", "paid", id="s2")
    assert (refused.value.run_id, refused.value.status) == ("r", "completed")
    assert await workflows.send_signal("r", "paid", id="s1") == sent, "the answer may have been lost"
    with pytest.raises(NotFound, match="no run 'never'"):
        await workflows.send_signal("never", "paid")


async def test_what_cannot_be_a_signal_is_refused(workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    for name, id in (("", "s"), ("x" * 129, "s"), ("paid", "x" * 129)):
        with pytest.raises(InvalidValue, match="of a signal"):
            await workflows.send_signal("r", name, id=id)
    with pytest.raises(InvalidValue):
        await workflows.send_signal("r", "paid", object())
    await workflows.send_signal("r", "paid", "x" * (SIGNAL_BYTES_MAX - 2))
    with pytest.raises(TooLarge):
        await workflows.send_signal("r", "paid", "x" * (SIGNAL_BYTES_MAX - 1))


async def test_so_many_may_wait_and_no_more(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    most = WorkflowRules().signals_max
    for first in range(0, most, 50):
        async with anyio.create_task_group() as tasks:
            for number in range(first, min(first + 50, most)):
                tasks.start_soon(partial(workflows.send_signal, "r", "paid", id=f"s{number}"))
    with pytest.raises(TooManySignals, match=f"{most:,} waiting signals") as refused:
        await workflows.send_signal("r", "paid")
    assert refused.value.retry
    assert (await workflows.send_signal("r", "paid", id="s0")).id == "s0"
    await workflows.take_signal(step("t"), ["paid"])
    await workflows.send_signal("r", "paid")


# ── Taking ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_signal_is_taken_by_one_step(workflows: WorkflowRepository, pending: WorkflowRun) -> None:
    fence = (await workflows.claim_run("r", ANN)).fence
    waiting = await workflows.take_signal(step("t1"), ["paid", "refused"], fence=fence)
    assert (waiting.status, waiting.output) == (StepStatus.PENDING, None)
    signals = [await workflows.send_signal("r", name) for name in ("other", "refused", "paid", "paid")]
    for _ in range(2):  # the first answer may be lost
        taken = await workflows.take_signal(step("t1"), ["paid", "refused"], fence=fence)
        assert (taken.status, taken.output["id"]) == (StepStatus.COMPLETED, signals[1].id)
    assert await workflows.get_step_log("t1") == taken
    second = await workflows.take_signal(step("t2"), ["paid", "refused"], fence=fence)
    assert second.output["id"] == signals[2].id
    assert await workflows.list_signals("r") == [signals[0], signals[3]]
    with pytest.raises(Fenced):
        await workflows.take_signal(step("t3"), ["paid"], fence=fence + 1)
    assert await workflows.get_step_log("t3") is None
    assert len(await workflows.list_signals("r")) == 2


async def test_what_was_sent_too_late_is_not_taken(
    workflows: WorkflowRepository, running: WorkflowRun, clock: Clock
) -> None:
    until = timestamp(clock.now)
    clock.advance(1)
    late = await workflows.send_signal("r", "paid")
    assert (await workflows.take_signal(step("t"), ["paid"], until)).status == StepStatus.PENDING
    assert (await workflows.take_signal(step("t"), ["paid"], late.sent_at)).status == StepStatus.COMPLETED
    with pytest.raises(InvalidValue, match="until"):
        await workflows.take_signal(step("u"), ["paid"], "soon")


async def test_a_step_of_another_run_takes_nothing(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.create_run(run("q"))
    await workflows.create_step_log(step("t", "q"))
    await workflows.send_signal("r", "paid")
    with pytest.raises(Conflict):
        await workflows.take_signal(step("t"), ["paid"])
    with pytest.raises(NotFound):
        await workflows.take_signal(step("u", "never"), ["paid"])
    assert len(await workflows.list_signals("r")) == 1


async def test_a_wait_that_is_set_aside_returns_its_signal(
    workflows: WorkflowRepository, running: WorkflowRun
) -> None:
    sent = await workflows.send_signal("r", "paid")
    await workflows.take_signal(step("t"), ["paid"])
    await workflows.update_run_status("r", RunStatus.FAILED)
    assert await workflows.list_signals("r") == []
    await workflows.retry_run("r", "t")
    assert await workflows.list_signals("r") == [sent]


async def test_signals_go_with_their_run(workflows: WorkflowRepository, running: WorkflowRun) -> None:
    await workflows.send_signal("r", "paid", id="s")
    await workflows.update_run_status("r", RunStatus.COMPLETED)
    assert await workflows.delete_run("r")
    await workflows.create_run(run("r"))
    assert await workflows.list_signals("r") == []


# ── Waiting ──────────────────────────────────────────────────────────────────────────────────────────────


async def waiting(
    programs: Programs, body: Callable[[Run], Awaitable[Any]], send: Callable[[], Awaitable[Any]]
) -> Any:
    """Execute a run that waits, send something once it rests, and return what its body returned."""
    results = list[Any]()

    async def execute() -> None:
        async with programs.open() as opened:
            results.append(await body(opened))

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await programs.until_status(RunStatus.PAUSED)
            await send()
    return results[0]


async def test_a_run_waits_for_a_signal(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def send() -> None:
        await programs.place.others.send_signal("r", "other", 0)
        assert await programs.workflows.get_lease("r") is None
        programs.clock.advance(1000)
        assert await programs.place.recover_runs() == []
        await programs.place.others.send_signal("r", "refused", {"why": "too dear"})

    found: Signal = await waiting(programs, lambda opened: opened.wait("paid", "refused"), send)
    assert (found.name, found.payload) == ("refused", {"why": "too dear"})
    [row] = await programs.rows()
    assert (row.step_id, row.status) == ("paid or refused", StepStatus.COMPLETED)
    assert await programs.status() == RunStatus.COMPLETED
    async with programs.open() as again:
        assert await again.wait("paid", "refused") == found
    assert [each.name for each in await programs.workflows.list_signals("r")] == ["other"]


async def test_signals_that_came_early_are_taken_in_their_order(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    await programs.leave_undone(lambda opened: opened.step("begin", Seen().double, 1))
    for number in range(3):
        await programs.workflows.send_signal("r", "paid", number)
    async with programs.open() as opened:
        fence = opened.fence
        assert [(await opened.wait("paid")).payload for _ in range(3)] == [0, 1, 2]
        assert opened.fence == fence, "nothing was waited for"
    assert [row.step_id for row in await programs.rows()] == ["begin", "paid", "paid#2", "paid#3"]


async def test_tasks_that_wait_for_one_name_take_a_signal_each(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    payloads = list[Any]()

    async def body(opened: Run) -> None:
        async def wait(name: str) -> None:
            payloads.append((await opened.wait("paid", name=name)).payload)

        async with anyio.create_task_group() as tasks:
            for name in ("a", "b", "c"):
                tasks.start_soon(wait, name)

    async def send() -> None:
        for number in range(3):
            await programs.place.others.send_signal("r", "paid", number)

    await waiting(programs, body, send)
    assert sorted(payloads) == [0, 1, 2]
    assert await programs.workflows.list_signals("r") == []


async def test_a_wait_ends_with_its_time(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def body(opened: Run) -> str:
        try:
            await opened.wait("paid", timeout=60)
        except bus.WaitTimedOut:
            return "late"
        return "paid"

    async def pass_time() -> None:
        programs.clock.advance(60)

    assert await waiting(programs, body, pass_time) == "late"
    [row] = await programs.rows()
    assert (row.status, row.error) == (StepStatus.FAILED, "timed out")
    async with programs.open() as again:
        assert await body(again) == "late"


async def test_after_a_restart_only_the_rest_is_waited_for(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def wait() -> None:
        async with programs.open() as opened:
            with pytest.raises(bus.WaitTimedOut):
                await opened.wait("paid", timeout=60)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await programs.until_status(RunStatus.PAUSED)
            programs.clock.advance(40)
            tasks.cancel_scope.cancel()
        programs.clock.advance(21)
        await programs.workflows.send_signal("r", "paid", "too late")
        await wait()
    [late] = await programs.workflows.list_signals("r")
    assert late.payload == "too late", "it is kept for the next wait"


async def test_a_signal_in_time_counts_whenever_it_is_seen(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    payloads = list[Any]()

    async def wait() -> None:
        async with programs.open() as opened:
            payloads.append((await opened.wait("paid", timeout=60)).payload)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await programs.until_status(RunStatus.PAUSED)
            tasks.cancel_scope.cancel()
        await programs.workflows.send_signal("r", "paid", "in time")
        programs.clock.advance(1000)
        await wait()
    assert payloads == ["in time"]


async def test_a_wait_that_times_out_fails_a_run_that_does_not_expect_it(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def execute() -> None:
        with pytest.raises(bus.WaitTimedOut, match="no signal came in time for 'paid'"):
            async with programs.open() as opened:
                await opened.wait("paid", timeout=60)

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await programs.until_status(RunStatus.PAUSED)
            programs.clock.advance(60)
    assert await programs.status() == RunStatus.FAILED


async def test_a_wait_that_a_scope_ended_is_recorded_and_its_signal_kept(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def body(opened: Run) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(opened.wait, "paid")
                await programs.until_status(RunStatus.PAUSED)
                scope.cancel()
        await opened.step("after", Seen().double, 1)
        await programs.workflows.send_signal("r", "paid", "kept")
        assert (await opened.wait("paid", name="again")).payload == "kept"

    with anyio.fail_after(BOUND_SECONDS):
        async with programs.open() as opened:
            await body(opened)
    [left] = await programs.rows("paid")
    assert (left.status, left.error) == (StepStatus.FAILED, LEFT)


async def test_a_program_that_changed_is_noticed(programs: Programs, workflow: WorkflowDefinition) -> None:
    async def wait_for_paid(opened: Run) -> Signal:
        await programs.workflows.send_signal("r", "paid")
        return await opened.wait("paid")

    await programs.leave_undone(wait_for_paid)
    async with programs.open() as opened:
        with pytest.raises(bus.StepChanged, match="refused"):
            await opened.wait("refused", name="paid")
    async with programs.open("q") as opened:
        with pytest.raises(TypeError, match=r"run\.wait"):
            await opened.wait()
        with pytest.raises(ValueError, match="timeout"):
            await opened.wait("paid", timeout=0)


async def test_a_run_that_is_cancelled_while_it_waits_ends(
    programs: Programs, workflow: WorkflowDefinition
) -> None:
    async def execute() -> None:
        with pytest.raises(bus.RunCancelled):
            async with programs.open() as opened:
                await opened.wait("paid")

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute)
            await programs.until_status(RunStatus.PAUSED)
            await programs.workflows.update_run_status("r", RunStatus.CANCELLED)
    with pytest.raises(InvalidTransition):
        await programs.workflows.claim_run("r", ANN)


# ── Dying anywhere ───────────────────────────────────────────────────────────────────────────────────────

CALLS = 9
"""More than a run makes that takes two signals."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dies_at", range(1, CALLS + 1))
async def test_a_program_that_dies_anywhere_takes_each_signal_once(
    programs: Programs, workflow: WorkflowDefinition, dies_at: int, after: bool
) -> None:
    seen = list[list[Any]]()

    async def execute(through: Mortal | None) -> None:
        async with programs.open(through=through) as opened:
            seen.append([])
            for _ in range(2):
                seen[-1].append((await opened.wait("paid")).payload)

    await programs.workflows.create_run(run("r"))
    for number in range(3):
        await programs.workflows.send_signal("r", "paid", number)
    with anyio.fail_after(BOUND_SECONDS):
        dying = mortal(programs.workflows, dies_at, after=after)
        try:
            await execute(dying)
        except bus.ClosedError:
            await programs.lapse(1000)
            await execute(None)
    assert all(payloads == [0, 1][: len(payloads)] for payloads in seen)
    assert seen[-1] == [0, 1]
    assert [each.payload for each in await programs.workflows.list_signals("r")] == [2]
    assert await programs.status() == RunStatus.COMPLETED
