"""Executing a run through a bot's connection: what is sent, settled and recorded together."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import bus
from bus.errors import InvalidValue
from bus.model.records import BotOwner, GlobalOwner, RunStatus, StepStatus, WorkflowDefinition
from bus.runs.opening import open_run
from bus.runs.starting import Executor, Start
from bus.testing import Worker
from tests.contract.executing import Seen, mortal

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())

BOUND_SECONDS = 30


async def digest(bot: bus.Bot, message: bus.Message, seen: Seen) -> bus.Run:
    """What a handler does: all of it once, however often the message comes."""
    async with bot.workflows.run("digest", id=message.id, input=message.body, definition=DIGEST) as run:
        page = await run.step("fetch", seen.double, message.body)
        run.context["page"] = page
        async with run.commit("announce", output=page) as tx:
            tx.publish("news", {"page": page})
            tx.send("reader", page, message_type="page")
            tx.reply(message, "done")
            tx.context({"announced": True})
            tx.ack(message)
    return run


async def test_a_commit_sends_settles_and_records_together(worker: Worker) -> None:
    seen = Seen()
    async with (
        worker.connect(bot="digester") as bot,
        worker.connect(bot="reader") as reader,
        worker.connect(bot="asker") as asker,
    ):
        await reader.subscribe("news")
        with anyio.fail_after(BOUND_SECONDS):
            sent = await asker.send("digester", 21)
            run = await digest(bot, await bot.receive(), seen)
            assert run.context == {"input": 21, "page": 42, "announced": True}
            bodies = [(message.channel, message.body) for message in [await reader.receive() for _ in range(2)]]
            assert bodies == [("news", {"page": 42}), (None, 42)]
            reply = await asker.receive()
            assert (reply.body, reply.reply_to) == ("done", sent.id)
        stored = await bot.workflows.get_run(sent.id)
        assert stored is not None
        assert (stored.status, stored.context) == (RunStatus.COMPLETED, run.context)
        row = (await bot.workflows.list_step_logs(sent.id))[-1]
        assert (row.step_id, row.status, row.output) == ("announce", StepStatus.COMPLETED, 42)
        found = await bot.find(sent.id)
        assert [mailbox["state"] for mailbox in found["mailboxes"]] == ["settled"]


async def test_a_message_that_comes_twice_is_answered_once(worker: Worker) -> None:
    seen = Seen()
    async with worker.connect(bot="reader") as reader, worker.connect(bot="asker") as asker:
        await reader.subscribe("news")
        with anyio.fail_after(BOUND_SECONDS):
            async with worker.connect(bot="digester") as bot:
                first = await asker.send("digester", 21)
                await digest(bot, await bot.receive(), seen)
                # The sender was not sure that it was sent, and has no id to ask again with.
                again = await asker.send("digester", 21)
                message = await bot.receive()
                async with bot.workflows.run("digest", id=first.id) as run:
                    assert run.completed
                    assert await run.step("fetch", seen.double, 21) == 42
                    async with run.commit("announce") as tx:
                        tx.publish("news", "never")
                        tx.ack(message)
                        assert (tx.done, tx.output, "done" in repr(tx)) == (True, 42, True)
                assert message.settled
                await bot.status()  # the ack was before it
                found = await bot.find(again.id)
                assert [mailbox["state"] for mailbox in found["mailboxes"]] == ["settled"]
            assert [stored.body for stored in await reader.history(channel="news")] == [{"page": 42}]
    assert seen.calls == {21: 1}


@pytest.mark.parametrize("completes", [False, True], ids=["goes on", "completes"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_commit_is_done_once_wherever_the_process_dies(
    worker: Worker, after: bool, completes: bool
) -> None:
    died = 0
    async with worker.connect(bot="digester") as bot:
        welcome = bot._connection.welcome
        assert welcome is not None
        for dies_at in range(1, 50):
            id, dying, seen = f"r{dies_at}", mortal(bot.workflows, dies_at, after=after), Seen()

            async def execute(workflows: Any, lease_seconds: float = 60, id: str = id, seen: Seen = seen) -> None:
                executor = Executor(workflows, welcome.bot_id, lease_seconds)
                async with open_run(executor, "digest", Start(id=id, definition=DIGEST)) as run:
                    await run.step("a", seen.double, 1)
                    async with run.commit("b", output=run.id) as tx:
                        tx.publish("news", run.id)
                        if completes:
                            tx.complete()
                    if not completes:
                        await run.step("c", seen.double, 2)

            try:
                await execute(dying, lease_seconds=0.2)
            except bus.ClosedError:
                died += 1
            except bus.RunLost:
                continue  # on a busy machine its lease ran out before it died
            if not dying.dead:
                break
            with anyio.fail_after(BOUND_SECONDS):
                await execute(bot.workflows)
            news = [stored.body for stored in await bot.history(channel="news", limit=1000)]
            assert news.count(id) == 1
            assert seen.calls.total() <= 3
    assert died >= 3


async def test_a_block_that_raises_sends_nothing(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        await bot.publish("news", "before")

        async def execute() -> None:
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                try:
                    async with run.commit("announce") as tx:
                        tx.publish("news", "never")
                        raise LookupError("no page")
                except LookupError:
                    pass
                with pytest.raises(InvalidValue, match="output of step 'announce#2'"):
                    async with run.commit("announce", output=object()) as tx:
                        tx.publish("news", "never")
                with pytest.raises(bus.UnknownBot):
                    await tell_nobody(run)

        async def tell_nobody(run: bus.Run) -> None:
            async with run.commit("tell") as tx:
                tx.publish("news", "never")
                tx.send("nobody", 1)

        await execute()
        assert [stored.body for stored in await bot.history(channel="news")] == ["before"]
        assert await bot.workflows.list_step_logs("r") == []


async def test_who_lost_its_run_commits_nothing(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        await bot.publish("news", "before")

        async def execute() -> None:
            async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
                await bot.workflows.update_run_status("r", RunStatus.CANCELLED)
                async with run.commit("announce") as tx:
                    tx.publish("news", "never")

        with pytest.raises(bus.RunCancelled):
            await execute()
        assert [stored.body for stored in await bot.history(channel="news")] == ["before"]


async def test_a_run_outlives_a_restart_of_the_worker(worker: Worker) -> None:
    seen = Seen()
    async with worker.connect(bot="digester") as bot, worker.connect(bot="asker") as asker:
        with anyio.fail_after(BOUND_SECONDS):
            await asker.send("digester", 1)
            message = await bot.receive()
            async with bot.workflows.run("digest", id=message.id, definition=DIGEST) as run:
                await run.step("before", seen.double, 1)
                await anyio.to_thread.run_sync(worker.kill)
                await anyio.to_thread.run_sync(worker.start)
                await run.step("after", seen.double, 2)
                async with run.commit("announce") as tx:
                    tx.publish("news", "once")
                    tx.ack(message)
            assert run.fence == 1
        assert [stored.body for stored in await bot.history(channel="news")] == ["once"]


async def test_a_commit_settles_what_was_delivered_before_a_restart(worker: Worker) -> None:
    """Without credit the message does not come to the new session: the bot holds it all the same."""
    async with worker.connect(bot="digester") as bot, worker.connect(bot="asker") as asker:
        with anyio.fail_after(BOUND_SECONDS):
            await asker.send("digester", 1)
            message = await bot.receive()
            await bot.set_credit(0)
            await anyio.to_thread.run_sync(worker.kill)
            await anyio.to_thread.run_sync(worker.start)
            await bot.workflows.commit(messages=[bus.Draft(channel="news", body="once")], acks=[message])
        assert message.settled
        assert [stored.body for stored in await bot.history(channel="news")] == ["once"]
        assert (await bot.find(message.id))["mailboxes"][0]["state"] == "settled"


async def test_a_run_whose_message_another_session_has_is_given_back(impatient_worker: Worker) -> None:
    """It may be the same run that the other session executes, so it must not fail for that."""
    async with (
        impatient_worker.connect(bot="digester", max_in_flight=1) as slow,
        impatient_worker.connect(bot="digester", max_in_flight=0) as other,
        impatient_worker.connect(bot="asker") as asker,
    ):
        with anyio.fail_after(BOUND_SECONDS):
            await asker.send("digester", 1)
            message = await slow.receive()
            slow._connection._token = "of another client of that name"
            slow._inbox.max_in_flight = 0
            slow._connection._lost.set()  # its connection breaks, and what it had goes to the other in time
            await other.set_credit(1)
            again = await other.receive()
            assert again.id == message.id

            async def execute(bot: bus.Bot, message: bus.Message) -> None:
                async with (
                    message,
                    bot.workflows.run("digest", id=message.id, definition=DIGEST) as run,
                    run.commit("announce") as tx,
                ):
                    tx.publish("news", "once")
                    tx.ack(message)

            with pytest.raises(bus.NotInFlight):
                await execute(slow, message)
            await execute(other, again)
        assert [stored.body for stored in await asker.history(channel="news")] == ["once"]
        assert await asker.dead_letters(bot="digester") == []


async def test_handlers_that_meet_one_run_settle_their_messages(worker: Worker) -> None:
    """A message that waits for a run, or lost it, comes again, and has not failed."""
    seen, handled = Seen(), Seen()
    bot = worker.connect(bot="digester")
    definition = WorkflowDefinition(id="one", name="one", owner=GlobalOwner(), concurrency=1)

    @bot.on_message()
    async def handle(message: bus.Message) -> None:
        handled.note("began")
        async with bot.workflows.run("one", id=message.body, timeout=0.05, definition=definition) as run:
            await run.step("s", seen.double, 1)
            if handled.calls["began"] < 4:
                await handled.wait_for("began", 4)
        handled.note("done")

    with anyio.fail_after(BOUND_SECONDS):
        async with worker.connect(bot="asker") as asker, bot:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(bot.serve)
                for id in ("x", "y", "x"):
                    await asker.send("digester", id)
                await handled.wait_for("done", 3)
                bot.stop()
            assert await asker.dead_letters(bot="digester") == []
    assert seen.calls == {1: 2}


async def test_a_bots_own_workflow_is_found_by_its_name(worker: Worker) -> None:
    async with worker.connect(bot="a") as bot:
        [me] = await bot.bots()
        own = WorkflowDefinition(id="own", name="mine", owner=BotOwner(bot_id=me["id"]))
        async with bot.workflows.run("mine", definition=own) as run:
            assert (run.workflow, run.resumed) == ("mine", False)
        with pytest.raises(bus.UnknownWorkflow, match="save_definition"):
            async with bot.workflows.run("other"):
                raise AssertionError("it must not open")
        async with bot.workflows.run("mine") as run:
            await run.step("s", len, "abc")
        [stored, _] = await bot.workflows.list_runs("own")
        assert stored.id == run.id


async def test_a_run_needs_a_connected_bot(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match="inside the bot's context"):
        worker.connect(bot="a").workflows.run("digest")
