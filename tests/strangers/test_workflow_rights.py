"""Workflows of others: fences that were read, runs that are not one's own, and approvals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from bus.core.effects import Ask
from bus.model.records import (
    BotOwner,
    GlobalOwner,
    RunStatus,
    StepStatus,
    WorkflowDefinition,
    WorkflowStepLog,
)
from bus.model.repository import AddDeadLetters, DeadLetter, RemoveDeadLetters
from bus.wire.frames import Commit, Workflow

from .house import NOW, House, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


async def test_a_fence_that_was_read_is_of_no_use(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    step = WorkflowStepLog(id="s", run_id="r", step_id="a", step_name="A", status=StepStatus.RUNNING)
    assert (await house.call("ann", "create_step_log", step=step, fence=fence))["id"] == "s"
    for thief in ("eve", "ops"):
        other = msgspec.structs.replace(step, id="t")
        assert await house.refused(thief, "create_step_log", step=other, fence=fence) == "fenced"
        assert (
            await house.refused(thief, "update_step_status", step_id="s", status="completed", fence=fence)
            == "fenced"
        )
        assert await house.refused(thief, "update_run_status", run_id="r", status="failed", fence=fence) == "fenced"
        assert await house.refused(thief, "renew_run", run_id="r", fence=fence) == "fenced"
        assert await house.refused(thief, "release_run", run_id="r", fence=fence) == "fenced"
        await house.say(
            thief, Commit(request=5, id=_id(thief), run_id="r", fence=fence, status=RunStatus.COMPLETED)
        )
    assert (await house.call("ann", "get_run", run_id="r"))["status"] == "running"
    assert (await house.call("ann", "renew_run", run_id="r", fence=fence))["fence"] == fence
    done = {"run_id": "r", "status": "completed", "fence": fence}
    assert (await house.call("ann", "update_run_status", **done))["status"] == "completed"
    assert (await house.call("ann", "update_run_status", **done))["status"] == "completed", "it may be repeated"


def _id(name: str) -> str:
    return f"00000000-0000-4000-8000-{name.encode().hex():0>12}"


async def test_a_commit_needs_the_holder(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    [refused] = await house.say(
        "eve", Commit(request=5, id=_id("e"), run_id="r", fence=fence, status=RunStatus.COMPLETED)
    )
    assert refused["code"] == "fenced"
    [done] = await house.say(
        "ann", Commit(request=5, id=_id("a"), run_id="r", fence=fence, status=RunStatus.COMPLETED)
    )
    assert done["op"] == "ok"


async def test_a_write_without_a_fence_needs_the_right_to_operate(house: House) -> None:
    await house.held("ann", "r", "digest")
    cancel = {"run_id": "r", "status": "cancelled"}
    assert await house.refused("eve", "update_run_status", **cancel) == "not_found"
    step = WorkflowStepLog(id="s", run_id="r", step_id="a", step_name="A", status=StepStatus.RUNNING)
    assert await house.refused("eve", "create_step_log", step=step) == "not_found"
    assert (await house.call("ops", "update_run_status", run_id="r", status="paused", error="wait"))[
        "status"
    ] == "paused"
    assert (await house.call("ann", "update_run_status", **cancel))["status"] == "cancelled", "it is its own"


async def test_runs_of_others_are_as_if_they_did_not_exist(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    await house.waiting("ann", "r", fence)
    for id in ("r", "never"):
        for name in ("get_run", "get_latest_run", "get_run_definition", "get_lease"):
            assert await house.call("eve", name, run_id=id) is None
        for name in ("list_step_logs", "get_completed_step_ids", "list_waiting_approvals"):
            assert await house.call("eve", name, run_id=id) == []
        assert await house.call("eve", "page_step_logs", run_id=id) == {"steps": [], "more": False}
        assert await house.refused("eve", "page_step_logs", run_id=id, after="s") == "not_found"
        assert await house.refused("eve", "retry_run", run_id=id) == "not_found"
        assert await house.refused("eve", "fork_run", run_id=id, new_id="f") == "not_found"
        assert await house.refused("eve", "claim_run", run_id=id) == "not_found"
        assert await house.refused("eve", "update_run_status", run_id=id, status="cancelled") == "not_found"
    for id in ("s", "never"):
        assert await house.refused("eve", "update_step_status", step_id=id, status="failed") == "not_found"
        assert await house.call("eve", "get_step_log", step_id=id) is None
    assert await house.call("eve", "list_all_runs") == []
    assert await house.call("eve", "list_runs", workflow_id="id-digest") == []
    assert await house.call("eve", "list_waiting_approvals") == []
    for reader in ("ann", "ops"):
        assert [run["id"] for run in await house.call(reader, "list_all_runs")] == ["r"]
        assert [step["id"] for step in await house.call(reader, "list_waiting_approvals")] == ["s"]
        assert (await house.call(reader, "get_run", run_id="r"))["id"] == "r"
        assert (await house.call(reader, "get_step_log", step_id="s"))["run_id"] == "r"
        assert [step["id"] for step in (await house.call(reader, "page_step_logs", run_id="r"))["steps"]] == ["s"]


async def test_nobody_is_told_of_runs_that_it_may_not_see(house: House) -> None:
    await house.call("ann", "create_run", run=house.run("r", "digest"))
    session = house.core.sessions.get(b"eve")
    assert session is not None
    assert await house.call("eve", "watch_run", run_id="r") is None
    assert await house.call("eve", "list_open_runs", workflow="digest") == []
    assert await house.refused("eve", "list_open_runs", workflow="digest", holder="ann") == "forbidden"
    assert await house.refused("eve", "leave_queue", run_id="r") == "not_found"
    waking = house.core.waking
    assert waking.sessions_of("r", ("digest",)) == []
    assert [run["id"] for run in await house.call("ann", "list_open_runs", workflow="digest")] == ["r"]
    assert (await house.call("ann", "watch_run", run_id="r"))["id"] == "r"
    assert await house.call("ann", "leave_queue", run_id="r") is None
    assert [each.bot_name for each in waking.sessions_of("r", ("digest",))] == ["ann"]
    await house.call("deployer", "list_open_runs", workflow="deploy-web")
    assert [each.bot_name for each in waking.sessions_of("none", ("deploy-web",))] == ["deployer"]
    secret = WorkflowDefinition(id="deploy-x", name="secret", owner=GlobalOwner())
    await house.store.workflows.save_definition(secret)
    assert await house.call("deployer", "list_open_runs", workflow="deploy-x") == []
    assert waking.sessions_of("none", ("deploy-x",)) == [], "its rights are those to the name"


async def test_limits_and_offsets_count_what_is_seen(house: House) -> None:
    for number in range(40):
        creator = "ann" if number % 4 == 0 else "ops"
        run = msgspec.structs.replace(
            house.run(f"r{number}", "digest"), started_at=f"2026-01-01T00:00:{number:02}.000000Z"
        )
        if creator == "ann":
            await house.call("ann", "create_run", run=run)
        else:
            await house.store.workflows.create_run(run)

    async def listed(**part: int) -> list[str]:
        return [run["id"] for run in await house.call("ann", "list_all_runs", **part)]

    every = [f"r{number}" for number in range(36, -1, -4)]
    assert await listed() == every
    assert await listed(limit=3) == every[:3]
    assert await listed(limit=3, offset=4) == every[4:7]
    assert await listed(offset=10) == []
    assert await listed(limit=0) == []


async def test_runs_are_found_and_counted_among_those_that_are_seen(house: House) -> None:
    for number in range(60):
        bot, workflow = ("deployer", "deploy-web") if number % 3 else ("ann", "digest")
        run = msgspec.structs.replace(house.run(f"{number:02}", workflow), attributes={"customer": "c"})
        await house.call(bot, "create_run", run=run)
    for where in (None, {"attributes": {"customer": "c"}}, {"id_prefix": "0"}):
        for bot, theirs in (("ann", "digest"), ("deployer", "deploy-web"), ("eve", ""), ("ops", "all")):
            found = await house.call(bot, "list_all_runs", where=where, limit=500)
            counted = await house.call(bot, "count_runs", where=where)
            assert sum(count["runs"] for count in counted["counts"]) == len(found)
            assert {run["workflow_name"] for run in found} <= {theirs} or theirs == "all"
            assert bool(found) is bool(theirs)
    assert await house.refused("eve", "list_all_runs", after="00") == "not_found"
    assert await house.refused("ann", "list_all_runs", after="01") == "not_found"
    assert len(await house.call("ann", "list_all_runs", after="57", limit=500)) == 19


async def test_a_bot_defines_and_runs_what_it_may(house: House) -> None:
    theirs = WorkflowDefinition(id="id-annals", name="annals", owner=BotOwner(bot_id=house.principal("ann").bot_id))
    assert await house.refused("eve", "save_definition", definition=theirs) == "forbidden"
    assert await house.refused("eve", "offer_definition", definition=theirs) == "forbidden"
    mine = WorkflowDefinition(id="id-annals", name="mine", owner=BotOwner(bot_id=house.principal("eve").bot_id))
    assert await house.refused("eve", "save_definition", definition=mine) == "conflict"
    assert await house.call("eve", "save_definition", definition=msgspec.structs.replace(mine, id="m")) is None
    everybodys = WorkflowDefinition(id="g", name="g", owner=GlobalOwner())
    assert await house.refused("eve", "save_definition", definition=everybodys) == "forbidden"
    assert await house.call("eve", "get_definition", definition_id="id-annals") is None
    assert await house.call("eve", "delete_definition", definition_id="id-annals") is False
    assert await house.refused("eve", "delete_definition", definition_id="id-digest") == "forbidden"
    assert await house.refused("eve", "create_run", run=house.run("r", "annals")) == "not_found"
    assert (await house.call("eve", "create_run", run=house.run("r", "digest")))["id"] == "r"
    listed = await house.call("eve", "list_definitions")
    assert [definition["name"] for definition in listed] == ["deploy-web", "digest", "mine"]
    assert await house.call("ann", "delete_definition", definition_id="id-annals") is True


async def test_of_two_bots_that_save_a_definition_at_once_one_has_its_id(house: House) -> None:
    answers = house.answers()
    frames: list[bytes] = []

    async def save(bot: str) -> None:
        principal = house.principal(bot)
        definition = WorkflowDefinition(id="d", name=f"of-{bot}", owner=BotOwner(bot_id=principal.bot_id))
        arguments = msgspec.Raw(msgspec.json.encode({"definition": definition}))
        request = Workflow(request=1, call="save_definition", arguments=arguments)
        ask = Ask(bot.encode(), principal.bot_id, request, principal)
        frames.append(await answers.answer(ask, request, answers.begin(ask, request), bot_name=bot))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(save, "ann")
        tasks.start_soon(save, "eve")
    assert sorted(msgspec.json.decode(frame)["op"] for frame in frames) == ["error", "ok"]


async def test_a_run_is_not_created_under_another_name(house: House) -> None:
    run = msgspec.structs.replace(house.run("r", "digest"), workflow_name="deploy-web")
    assert await house.refused("deployer", "create_run", run=run) == "not_found"
    run = msgspec.structs.replace(house.run("r", "deploy-web"), workflow_name="digest")
    assert await house.refused("deployer", "create_run", run=run) == "bad_request"


async def test_only_who_may_approve_answers_an_approval(house: House) -> None:
    fence = await house.held("deployer", "r", "deploy-web")
    await house.waiting("deployer", "r", fence)
    answer: dict[str, Any] = {"step_id": "s", "status": "completed", "output": {"approved": True, "by": "the-boss"}}
    assert await house.refused("deployer", "update_step_status", **answer, fence=fence) == "forbidden"
    assert (
        await house.refused("deployer", "update_step_status", **answer | {"status": "running"}, fence=fence)
        == "forbidden"
    )
    assert (
        await house.refused("deployer", "update_step_status", **answer | {"status": "failed"}, fence=fence)
        == "forbidden"
    )
    assert await house.refused("deployer", "update_step_status", **answer) == "forbidden"
    assert await house.refused("eve", "update_step_status", **answer) == "not_found"
    step = WorkflowStepLog(
        id="s",
        run_id="r",
        step_id="ask",
        step_name="Ask",
        status=StepStatus.COMPLETED,
        output={"approved": True, "by": "boss"},
    )
    [refused] = await house.say("deployer", Commit(request=5, id=_id("d"), run_id="r", fence=fence, steps=[step]))
    assert refused["code"] == "forbidden"
    answered = await house.call("approver", "update_step_status", **answer)
    assert answered["output"] == {"approved": True, "by": "approver"}, "the answer names who gave it"
    assert house.deeds == ["step_decided"]
    assert (await house.call("approver", "update_step_status", **answer))["status"] == "completed", "a repeat"
    assert await house.refused("approver", "update_run_status", run_id="r", status="cancelled") == "forbidden"


async def test_without_a_fence_no_answer_is_recorded_beside_the_step_that_waits(house: House) -> None:
    await house.call("operator", "create_run", run=house.run("r", "deploy-web"))
    answer: dict[str, Any] = {"status": StepStatus.COMPLETED, "output": {"approved": True, "by": "approver"}}
    early = WorkflowStepLog(
        id="e", run_id="r", step_id="ask", step_name="Ask", idempotency_key="approval", attempt=2, **answer
    )
    assert await house.refused("operator", "create_step_log", step=early) == "forbidden"
    begun = msgspec.structs.replace(early, status=StepStatus.RUNNING, output=None)
    assert await house.refused("operator", "create_step_log", step=begun) == "forbidden"
    fence = int((await house.call("deployer", "claim_run", run_id="r"))["fence"])
    await house.waiting("deployer", "r", fence)
    for key in ("approval", None):
        beside = msgspec.structs.replace(early, idempotency_key=key)
        assert await house.refused("operator", "create_step_log", step=beside) == "forbidden"
    assert await house.refused("operator", "update_step_status", step_id="s", **answer) == "forbidden"
    assert (await house.call("approver", "update_step_status", step_id="s", **answer))["status"] == "completed"


async def test_an_approval_that_does_not_wait_is_not_answered_without_a_fence(house: House) -> None:
    await house.call("operator", "create_run", run=house.run("r", "deploy-web"))
    fence = int((await house.call("deployer", "claim_run", run_id="r"))["fence"])
    step = WorkflowStepLog(
        id="s", run_id="r", step_id="ask", step_name="Ask", status=StepStatus.PENDING, idempotency_key="approval"
    )
    await house.call("deployer", "create_step_log", step=step, fence=fence)
    answer: dict[str, Any] = {"step_id": "s", "status": "completed", "output": {"approved": True}}
    assert await house.refused("operator", "update_step_status", **answer) == "forbidden"
    assert await house.refused("approver", "update_step_status", **answer) == "invalid_transition"


async def test_the_bot_that_executes_a_run_cannot_approve_it(house: House) -> None:
    fence = await house.held("both", "r", "deploy-web")
    await house.waiting("both", "r", fence)
    answer = {"step_id": "s", "status": "completed", "output": {"approved": True}}
    assert await house.refused("both", "update_step_status", **answer) == "forbidden"
    await house.call("both", "release_run", run_id="r", fence=fence)
    assert await house.refused("both", "update_step_status", **answer) == "forbidden", "it has executed it"
    assert (await house.call("ops", "update_step_status", **answer))["output"]["by"] == "ops"


async def test_a_step_that_is_approved_can_go_on(house: House) -> None:
    fence = await house.held("deployer", "r", "deploy-web")
    await house.waiting("deployer", "r", fence)
    assert (await house.call("deployer", "update_step_status", step_id="s", status="failed", fence=fence))[
        "output"
    ] is None


async def test_a_run_is_retried_by_who_may_operate_on_it(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    assert await house.refused("ann", "retry_run", run_id="r") == "conflict"
    for bot in ("ann", "ops"):
        await house.call("ann", "update_run_status", run_id="r", status="failed", error="broken", fence=fence)
        assert await house.refused("eve", "retry_run", run_id="r") == "not_found"
        assert (await house.call(bot, "retry_run", run_id="r"))["status"] == "pending"
        fence = int((await house.call("ann", "claim_run", run_id="r"))["fence"])
    await house.held("deployer", "d", "deploy-web")
    await house.call("ops", "update_run_status", run_id="d", status="paused", error="wait")
    assert await house.refused("approver", "retry_run", run_id="d") == "forbidden"
    assert (await house.call("mender", "retry_run", run_id="d"))["status"] == "pending"


async def test_a_run_is_cancelled_by_who_may_operate_on_it(house: House) -> None:
    fence = await house.held("deployer", "r", "deploy-web")
    child = msgspec.structs.replace(house.run("c", "deploy-web"), parent_run_id="r")
    await house.call("deployer", "create_run", run=child, fence=fence)
    assert await house.refused("eve", "cancel_run", run_id="r") == "not_found"
    assert await house.refused("approver", "cancel_run", run_id="r") == "forbidden"
    house.deeds.clear()
    assert (await house.call("operator", "cancel_run", run_id="r", reason="wrong one"))["status"] == "cancelled"
    assert (await house.call("deployer", "get_run", run_id="c"))["status"] == "cancelled"
    assert house.deeds == ["run_operated"]
    await house.held("ann", "own", "digest")
    assert (await house.call("ann", "cancel_run", run_id="own"))["status"] == "cancelled"


async def test_a_run_is_deleted_by_who_may_operate_on_it(house: House) -> None:
    fence = await house.held("deployer", "r", "deploy-web")
    assert await house.refused("operator", "delete_run", run_id="r") == "conflict"
    await house.call("deployer", "update_run_status", run_id="r", status="completed", fence=fence)
    assert await house.refused("deployer", "delete_run", run_id="r") == "forbidden"
    assert await house.refused("approver", "delete_run", run_id="r") == "forbidden"
    assert await house.call("eve", "delete_run", run_id="r") is False, "as if it did not exist"
    house.deeds.clear()
    assert await house.call("operator", "delete_run", run_id="r") is True
    assert await house.call("operator", "delete_run", run_id="r") is False
    assert house.deeds == ["run_deleted"]
    fence = await house.held("ann", "own", "digest")
    await house.call("ann", "update_run_status", run_id="own", status="failed", fence=fence)
    assert await house.call("ann", "delete_run", run_id="own") is True


async def test_a_run_is_forked_by_who_may_operate_on_it_and_create_one(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    await house.call("ann", "update_run_status", run_id="r", status="completed", fence=fence)
    assert (await house.call("ann", "fork_run", run_id="r", new_id="f"))["status"] == "pending"
    assert (await house.call("ann", "fork_run", run_id="r", new_id="f"))["id"] == "f", "a repeat"
    assert (await house.call("ann", "claim_run", run_id="f"))["fence"] == 1, "it is its own"
    await house.held("deployer", "d", "deploy-web")
    for bot in ("approver", "deployer", "mender"):
        assert await house.refused(bot, "fork_run", run_id="d", new_id="g") == "forbidden"
    assert (await house.call("operator", "fork_run", run_id="d", new_id="g"))["id"] == "g"
    assert await house.refused("partner", "fork_run", run_id="d", new_id="g") == "conflict", "it is another's"


@pytest.mark.parametrize("key", [None, "approval", "approval until 2999-01-01T00:00:00.000000Z"])
async def test_an_approval_is_not_taken_along_into_a_fork(house: House, key: str | None) -> None:
    fence = await house.held("deployer", "r", "deploy-web")
    for id, status in (("done", StepStatus.COMPLETED), ("ask", StepStatus.WAITING_APPROVAL)):
        step = WorkflowStepLog(id=id, run_id="r", step_id=id, step_name=id, status=status)
        if id == "ask":
            step = msgspec.structs.replace(step, idempotency_key=key)
        await house.call("deployer", "create_step_log", step=step, fence=fence)
    answer = {"step_id": "ask", "status": "completed", "output": {"approved": True}}
    await house.call("approver", "update_step_status", **answer)
    await house.call("operator", "fork_run", run_id="r", new_id="f")
    assert await house.call("operator", "get_completed_step_ids", run_id="f") == ["done"]


async def test_an_approval_with_a_deadline_is_not_answered_beside_the_step_that_waits(house: House) -> None:
    await house.call("operator", "create_run", run=house.run("r", "deploy-web"))
    step = WorkflowStepLog(
        id="e",
        run_id="r",
        step_id="ask",
        step_name="Ask",
        status=StepStatus.COMPLETED,
        idempotency_key="approval until 2999-01-01T00:00:00.000000Z",
        output={"approved": True},
    )
    assert await house.refused("operator", "create_step_log", step=step) == "forbidden"


async def test_a_dead_letter_with_the_id_of_another_bots_run_does_not_retry_it(house: House) -> None:
    id = await house.sends("ann", "ann")
    fence = await house.held("ann", id, "digest")
    await house.call("ann", "update_run_status", run_id=id, status="failed", error="broken", fence=fence)
    await house.sends("eve", "eve", id=id)
    for bot, status in (("eve", "failed"), ("ann", "pending")):
        [found] = [
            message
            for message in await house.store.log.messages(range(1, 10))
            if message.id == id and message.sender_bot_name == bot
        ]
        mailbox = house.principal(bot).bot_id
        await house.store.log.apply(
            [
                AddDeadLetters((DeadLetter(mailbox, found.seq, "given up", 1, NOW),)),
                RemoveDeadLetters(mailbox, (found.seq,)),
            ]
        )
        assert (await house.call("ann", "get_run", run_id=id))["status"] == status


def schedule(workflow: str, **fields: Any) -> dict[str, Any]:
    return {"id": "s", "workflow_id": f"id-{workflow}", "times": {"type": "interval", "seconds": 60}, **fields}


async def test_a_schedule_is_saved_by_who_may_create_its_runs(house: House) -> None:
    for bot, workflow, code in (
        ("approver", "deploy-web", "forbidden"),
        ("eve", "annals", "not_found"),
    ):
        assert await house.refused(bot, "save_schedule", schedule=schedule(workflow)) == code
    assert (
        await house.refused("deployer", "save_schedule", schedule=schedule("deploy-web", bot="ann")) == "forbidden"
    )
    saved = await house.call("deployer", "save_schedule", schedule=schedule("deploy-web"))
    assert saved["created_by"] == house.principal("deployer").bot_id
    assert house.deeds[-1] == "schedule_changed"
    assert (await house.call("ann", "save_schedule", schedule=schedule("digest", id="d", bot="eve")))["id"] == "d"


async def test_a_schedule_of_others_is_changed_by_who_may_operate_on_its_runs(house: House) -> None:
    await house.call("deployer", "save_schedule", schedule=schedule("deploy-web"))
    again = schedule("deploy-web", input=1)
    assert await house.refused("both", "save_schedule", schedule=again) == "forbidden"
    for call in ("pause_schedule", "delete_schedule"):
        assert await house.refused("both", call, schedule_id="s") == "forbidden"
    assert await house.refused("ann", "save_schedule", schedule=schedule("digest")) == "conflict"
    assert (await house.call("operator", "save_schedule", schedule=again))["schedule"]["input"] == 1
    assert (await house.call("mender", "pause_schedule", schedule_id="s"))["paused"] is True
    assert await house.call("operator", "delete_schedule", schedule_id="s") is True


async def test_schedules_that_may_not_be_seen_do_not_exist(house: House) -> None:
    await house.call("deployer", "save_schedule", schedule=schedule("deploy-web"))
    assert await house.call("eve", "get_schedule", schedule_id="s") is None
    assert await house.call("eve", "list_schedules") == []
    assert await house.call("eve", "delete_schedule", schedule_id="s") is False
    assert await house.refused("eve", "pause_schedule", schedule_id="s") == "not_found"
    assert await house.refused("eve", "get_schedule_times", schedule_id="s") == "not_found"
    assert [each["id"] for each in await house.call("approver", "list_schedules")] == ["s"]
    assert len(await house.call("approver", "get_schedule_times", schedule_id="s")) == 5
