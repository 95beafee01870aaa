"""A run that continues as a new one: in one transaction, and with whoever waits for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import anyio
import msgspec
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition, WorkflowRun
from bus.runs.continuing import successor_id
from bus.testing import Worker
from bus.wire.limits import NAME_CHARACTERS_MAX

pytestmark = pytest.mark.anyio

POLL = WorkflowDefinition(id="poll", name="poll", owner=GlobalOwner())

BOUND_SECONDS = 30


async def execute(bot: bus.Bot, id: str, *, until: int) -> str | None:
    """Count in a run, and continue as a new one until the count is reached; return the successor's id."""
    async with bot.workflows.run("poll", id=id, input=0 if id == "poll" else None, definition=POLL) as run:
        count = await run.step("count", lambda: run.input + 1)
        if count < until:
            return (await run.continue_as_new(count)).id
        run.result = count
    return None


async def test_whoever_waits_for_a_run_is_led_to_its_successor(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot, worker.connect(bot="asker") as asker:
        with anyio.fail_after(BOUND_SECONDS):
            handle, results = asker.workflows.handle("poll"), list[int]()

            async def wait() -> None:
                results.append(await handle.result())

            first = await execute(bot, "poll", until=3)
            assert first is not None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                second = await execute(bot, first, until=3)
                assert second is not None
                assert await execute(bot, second, until=3) is None
            assert (first, second, results) == ("poll~2", "poll~3", [3])
        assert (await handle.run()).id == "poll~3"
        runs = {run.id: run for run in await bot.workflows.list_runs("poll")}
        assert {run.status for run in runs.values()} == {RunStatus.COMPLETED}
        assert [len(await bot.workflows.list_step_logs(id)) for id in sorted(runs)] == [2, 2, 1]
        assert (runs["poll~2"].trigger_type, runs["poll~2"].context) == ("continued", {"input": 1})


async def test_a_program_that_comes_again_continues_once(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            for _ in range(2):
                assert await execute(bot, "poll", until=3) == "poll~2"
        assert sorted(run.id for run in await bot.workflows.list_runs("poll")) == ["poll", "poll~2"]


async def test_a_message_is_settled_and_signals_go_along(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot, worker.connect(bot="asker") as asker:
        with anyio.fail_after(BOUND_SECONDS):
            sent = await asker.send("poller", "begin")
            message = await bot.receive()
            async with bot.workflows.run("poll", id=message.id, input=1, definition=POLL) as run:
                handle = asker.workflows.handle(sent.id)
                for payload in (1, 2):
                    await handle.signal("go", payload, id=f"go-{payload}")
                assert (await run.wait("go")).payload == 1
                successor = await run.continue_as_new(2, ack=message)
            assert message.settled
            assert await handle.signal("go", 2, id="go-2") is not None, "a repeated one is the same"
            await handle.signal("go", 3)
            async with bot.workflows.run("poll", id=successor.id) as run:
                assert [(await run.wait("go")).payload for _ in range(2)] == [2, 3]
            found = await bot.find(sent.id)
        assert [mailbox["state"] for mailbox in found["mailboxes"]] == ["settled"]


async def test_a_parent_waits_for_the_successor_of_its_child(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:

        async def poll() -> None:
            successor = await execute(bot, "parent/poll", until=2)
            assert successor is not None
            await execute(bot, successor, until=2)

        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("poll", id="parent", definition=POLL) as run:
                async with anyio.create_task_group() as tasks:
                    child = await run.start("poll", 0)
                    assert child.id == "parent/poll"
                    tasks.start_soon(poll)
                assert await child.result() == 2


async def test_a_run_with_a_result_cannot_continue(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("poll", id="poll", definition=POLL) as run:
                run.result = 1
                with pytest.raises(ValueError, match="has a result"):
                    await run.continue_as_new(2)


async def test_a_result_after_continuing_is_refused_and_so_is_a_second_successor(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            async with bot.workflows.run("poll", id="poll", definition=POLL) as run:
                tx = await run.commit("last").__aenter__()
                tx.continue_as_new(1)
                tx.complete(result=2)
                with pytest.raises(ValueError, match="has a result"):
                    await tx.__aexit__(None, None, None)
                run.result = None
                async with run.commit("last") as tx:
                    tx.continue_as_new(1)
                    with pytest.raises(ValueError, match="twice"):
                        tx.continue_as_new(2)
            found = await bot.workflows.get_run("poll~2")
            assert found is not None
            assert found.context == {"input": 1}


async def test_a_successor_is_of_the_same_workflow_and_found_by_the_same_attributes(worker: Worker) -> None:
    named = msgspec.structs.replace(POLL, id="other", name="poll-id")
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            definition = msgspec.structs.replace(POLL, id="poll-id")
            await bot.workflows.save_definition(named)
            await bot.workflows.start("poll", id="poll", definition=definition, attributes={"customer": "ann"})
            async with bot.workflows.run("poll", id="poll") as run:
                await run.continue_as_new(1)
            found = await bot.workflows.get_run("poll~2")
            assert found is not None
            assert (found.workflow_id, found.attributes) == ("poll-id", {"customer": "ann"})


async def test_a_signal_that_is_sent_again_after_its_run_continued_is_taken_once(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            handle = await bot.workflows.start("poll", id="poll", definition=POLL)
            await handle.signal("go", 1, id="s")
            taken: list[str] = []
            for id in ("poll", "poll~2", "poll~3"):
                async with bot.workflows.run("poll", id=id) as run:
                    if id == "poll~2":
                        taken.append((await run.wait("go")).id)
                    if id == "poll~3":
                        taken.extend(each.id for each in await bot.workflows.list_signals(id))
                    await run.continue_as_new()
                assert (await handle.signal("go", 1, id="s")).id == "s"
            assert taken == ["s"]
            with pytest.raises(bus.Conflict, match="another signal"):
                await handle.signal("go", 2, id="s")


async def test_cancelling_a_run_that_has_just_continued_cancels_its_successor(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            handle = await bot.workflows.start("poll", id="poll", definition=POLL)
            cancel_run, ids = bot.workflows.cancel_run, list[str]()

            async def continued(run_id: str, *given: Any) -> WorkflowRun:
                ids.append(run_id)
                if run_id == "poll":
                    async with bot.workflows.run("poll", id="poll") as run:
                        await run.continue_as_new()
                return await cancel_run(run_id, *given)

            bot.workflows.cancel_run = continued  # type: ignore[method-assign, assignment]
            assert (await handle.cancel("late")).id == "poll~2"
            assert ids == ["poll", "poll~2"]
            with pytest.raises(bus.RunCancelled):
                await handle.result()


async def test_a_successor_that_was_deleted_is_no_success(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            assert await execute(bot, "poll", until=2) == "poll~2"
            found = await bot.workflows.get_run("poll")
            assert found is not None
            assert (found.status, found.continued_as) == (RunStatus.COMPLETED, "poll~2")
            await execute(bot, "poll~2", until=2)
            handle = bot.workflows.handle("poll")
            assert await handle.result() == 2
            await bot.workflows.delete_run("poll~2")
            for asked in (handle.result, handle.status, handle.run):
                with pytest.raises(bus.SuccessorDeleted, match="'poll' continued as 'poll~2', which was deleted"):
                    await asked()
            latest = await bot.workflows.get_latest_run("poll")
            assert latest is not None
            assert latest.id == "poll", "the last one that is left"
            assert await bot.workflows.get_latest_run("never") is None
            # A later run with that id has nothing to do with it.
            await bot.workflows.start("poll", id="poll~2")
            with pytest.raises(bus.SuccessorDeleted):
                await handle.run()


async def test_a_run_without_a_result_is_followed_only_if_it_continued(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            handle = await bot.workflows.start("poll", id="poll", definition=POLL)
            stray = WorkflowRun(
                id="poll~2",
                workflow_id="poll",
                workflow_name="poll",
                trigger_type="continued",
                started_at="2026-01-01T00:00:00.000000Z",
                parent_run_id="poll",
            )
            await bot.workflows.create_run(stray)
            async with bot.workflows.run("poll", id="poll"):
                pass
            assert await handle.result() is None


async def test_a_successor_whose_id_is_taken_is_refused_until_it_is_free(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            # The last one of a chain whose beginning was deleted.
            for id in ("poll", "poll~2"):
                await execute(bot, id, until=2)
            await bot.workflows.delete_run("poll")
            with pytest.raises(bus.Conflict, match="cannot continue as 'poll~2', which is another run: delete"):
                await execute(bot, "poll", until=2)
            assert (await bot.workflows.handle("poll").run()).status is RunStatus.PAUSED
            await bot.workflows.delete_run("poll~2")
            await bot.workflows.retry_run("poll")
            assert await execute(bot, "poll", until=2) == "poll~2"


class Opaque:
    """No type of JSON."""


@dataclasses.dataclass
class Total:
    """A result."""

    total: int


async def test_a_result_is_read_as_a_type(worker: Worker) -> None:
    async with worker.connect(bot="poller") as bot:
        with anyio.fail_after(BOUND_SECONDS):
            handle = await bot.workflows.start("poll", id="poll", definition=POLL)
            with pytest.raises(TypeError, match="cannot be read back"):
                await handle.result(returns=Opaque)
            async with bot.workflows.run("poll", id="poll") as run:
                run.result = Total(3)
            total: Total = await handle.result(returns=Total)
            assert total == Total(3)
            assert await handle.result(returns=Total | None) == Total(3)
            assert await handle.result() == {"total": 3}
            with pytest.raises(bus.InvalidValue, match=r"result of run 'poll'.*cannot be read as int"):
                await handle.result(returns=int)


def test_successors_are_numbered() -> None:
    assert [successor_id(id) for id in ("a", "a~2", "a~9", "a~b", "~2", "a~0", "a~02")] == [
        "a~2",
        "a~3",
        "a~10",
        "a~b~2",
        "~2~2",
        "a~0~2",
        "a~02~2",
    ]
    longest = "x" * NAME_CHARACTERS_MAX
    assert len(successor_id(longest)) <= NAME_CHARACTERS_MAX
    assert successor_id(longest) == successor_id(longest)
