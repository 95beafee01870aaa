"""Runs that one bot starts and another executes, over a worker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition
from bus.testing import Worker

pytestmark = pytest.mark.anyio

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())

BOUND_SECONDS = 30


@pytest.mark.parametrize("set_before", [False, True], ids=["given to complete", "set before"])
async def test_a_commit_completes_with_a_result(worker: Worker, set_before: bool) -> None:
    async with worker.connect(bot="digester") as bot, worker.connect(bot="asker") as asker:
        handle = await asker.workflows.start("digest", {"url": "x"}, definition=DIGEST)
        assert handle.id in repr(handle)
        with anyio.fail_after(BOUND_SECONDS):
            async with anyio.create_task_group() as tasks:
                results = list[object]()

                async def wait() -> None:
                    results.append(await handle.result())

                tasks.start_soon(wait)
                async with bot.workflows.run("digest", id=handle.id) as run:
                    assert run.input == {"url": "x"}
                    async with run.commit("announce") as tx:
                        tx.publish("news", "done")
                        if set_before:
                            run.result = [1]
                            tx.complete()
                        else:
                            tx.complete(result=(1,))
                    run.result = "too late"
        assert results == [[1]]
        async with bot.workflows.run("digest", id=handle.id) as run:
            async with run.commit("announce") as tx:
                tx.complete(result="ignored")
            assert run.result == [1]


async def test_a_result_that_cannot_be_recorded_is_refused_in_the_commit(worker: Worker) -> None:
    async with worker.connect(bot="digester") as bot:

        async def announce(run: bus.Run) -> None:
            async with run.commit("announce") as tx:
                tx.publish("news", "never")
                tx.complete(result=object())

        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            with pytest.raises(bus.InvalidValue, match="result of run"):
                await announce(run)
            assert not run.completed
        assert "news" not in [channel.name for channel in await bot.channels()]
        assert await bot.workflows.handle("r").status() == RunStatus.COMPLETED


async def test_a_start_needs_a_workflow_and_a_connection(worker: Worker) -> None:
    async with worker.connect(bot="asker") as asker:
        with pytest.raises(bus.UnknownWorkflow):
            await asker.workflows.start("never")
        later = datetime.now(UTC) + timedelta(hours=1)
        handle = await asker.workflows.start("digest", definition=DIGEST, run_at=later)
        with pytest.raises(bus.RunNotDue):
            await asker.workflows.claim_run(handle.id, "asker")
    with pytest.raises(RuntimeError, match="connected bot"):
        await bus.Bot("nobody").workflows.start("digest")


async def test_a_commit_sends_signals_with_all_else_or_not_at_all(worker: Worker) -> None:
    async with worker.connect(bot="payer") as payer, worker.connect(bot="seller") as seller:
        order = await seller.workflows.start("digest", definition=DIGEST)
        gone = await seller.workflows.start("digest")
        await gone.cancel()

        async def pay(run: bus.Run, name: str, *run_ids: str) -> None:
            async with run.commit(name) as tx:
                for run_id in run_ids:
                    tx.signal(run_id, "paid", {"amount": 3})
                tx.publish("news", "paid")

        async with payer.workflows.run("digest", id="payment") as run:
            with pytest.raises(bus.RunEnded):
                await pay(run, "refused", order.id, gone.id)
            assert await seller.workflows.list_signals(order.id) == []
            await pay(run, "pay", order.id)
        async with payer.workflows.run("digest", id="payment") as run:
            await pay(run, "pay", order.id)  # it was done before
        with anyio.fail_after(BOUND_SECONDS):
            async with seller.workflows.run("digest", id=order.id) as run:
                paid = await run.wait("paid")
        assert (paid.payload, paid.sender) == ({"amount": 3}, "payer")
        assert await seller.workflows.list_signals(order.id) == []
        assert len(await payer.history(channel="news")) == 1


async def test_what_a_commit_cannot_signal_is_refused_where_it_is_added(worker: Worker) -> None:
    async with worker.connect(bot="payer") as bot:

        async def pay(run: bus.Run, payload: object) -> None:
            async with run.commit("pay") as tx:
                tx.signal("r", "paid", payload)

        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            with pytest.raises(bus.InvalidValue, match="payload of signal 'paid'"):
                await pay(run, object())
            with pytest.raises(bus.TooLarge):
                await pay(run, "x" * 300_000)


async def test_a_signal_wakes_the_run_that_waits_for_it(worker: Worker) -> None:
    signals = list[bus.Signal]()

    async def wait(bot: bus.Bot) -> None:
        bot.workflows._backstop_seconds = 3000.0  # so long that it looks only when it is woken
        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            signals.append(await run.wait("paid"))

    with anyio.fail_after(BOUND_SECONDS):
        async with (
            worker.connect(bot="seller") as seller,
            worker.connect(bot="payer") as payer,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(wait, seller)
            handle = payer.workflows.handle("r")
            woken = payer.workflows.woken("r")
            while (seen := await payer.workflows.watch_run("r")) is None or seen.status != RunStatus.PAUSED:
                with anyio.move_on_after(0.05):
                    await woken.wait()
                woken = payer.workflows.woken("r")
            await handle.signal("paid", 3)
    assert [(signal.payload, signal.sender) for signal in signals] == [(3, "payer")]


async def test_a_commit_starts_children_with_all_else_or_not_at_all(worker: Worker) -> None:
    async with worker.connect(bot="seller") as bot:

        async def book(run: bus.Run, name: str, workflow: str = "digest") -> list[bus.RunHandle]:
            async with run.commit(name) as tx:
                handles = [tx.start("digest", number, name=f"part-{number}") for number in range(2)]
                handles.append(tx.start(workflow, concurrency_key="k"))
                tx.publish("news", "booked")
            return handles

        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            with pytest.raises(bus.UnknownWorkflow):
                await book(run, "wrong", "never")
            assert [each.id for each in await bot.workflows.list_runs("digest")] == ["r"]
            booked = await book(run, "book")
            assert [handle.id for handle in booked] == ["r/book/part-0", "r/book/part-1", "r/book/digest"]
        async with bot.workflows.run("digest", id="r") as run:
            assert [handle.id for handle in await book(run, "book")] == [handle.id for handle in booked]
        children = [await handle.run() for handle in booked]
        assert [(child.parent_run_id, child.status) for child in children] == [("r", RunStatus.PENDING)] * 3
        assert [child.context for child in children] == [{"input": 0}, {"input": 1}, {}]
        assert children[2].concurrency_key == "k"
        assert len(await bot.workflows.list_runs("digest")) == 4
        assert len(await bot.history(channel="news")) == 1


async def test_a_commit_starts_each_name_once(worker: Worker) -> None:
    async with worker.connect(bot="seller") as bot:

        async def book(run: bus.Run) -> None:
            async with run.commit("book") as tx:
                tx.start("digest")
                tx.start("digest")

        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            with pytest.raises(ValueError, match="started twice"):
                await book(run)


async def test_a_call_is_woken_by_the_end_of_its_child(worker: Worker) -> None:
    results = list[object]()

    async def call(bot: bus.Bot) -> None:
        bot.workflows._backstop_seconds = 3000.0
        async with bot.workflows.run("digest", id="r", definition=DIGEST) as run:
            results.append(await run.call("digest", 3))

    with anyio.fail_after(BOUND_SECONDS):
        async with (
            worker.connect(bot="parent") as parent,
            worker.connect(bot="child") as other,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(call, parent)
            woken = other.workflows.woken("r")
            while (seen := await other.workflows.watch_run("r")) is None or seen.status != RunStatus.PAUSED:
                with anyio.move_on_after(0.05):
                    await woken.wait()
                woken = other.workflows.woken("r")
            async with other.workflows.run("digest", id="r/digest") as run:
                run.result = run.input + 1
    assert results == [4]


@pytest.mark.parametrize("waits", [False, True], ids=["at work", "waiting"])
async def test_cancelling_wakes_the_program_that_cleans_up(worker: Worker, waits: bool) -> None:
    """So seldom does it look by itself that this would not end."""
    begun = anyio.Event()

    async def work() -> None:
        begun.set()
        await anyio.sleep_forever()

    async def execute(bot: bus.Bot) -> None:
        bot.workflows._backstop_seconds = 3000.0
        async with bot.workflows.run("digest", id="r", definition=DIGEST, lease_seconds=3000) as run:
            try:
                if waits:
                    begun.set()
                    await run.wait("never")
                else:
                    await run.step("work", work)
            except bus.RunCancelled:
                async with run.commit("undo") as tx:
                    tx.publish("news", "undone")
                raise

    async def cancelled(bot: bus.Bot) -> None:
        with pytest.raises(bus.RunCancelled):
            await execute(bot)

    with anyio.fail_after(BOUND_SECONDS):
        async with (
            worker.connect(bot="seller") as seller,
            worker.connect(bot="buyer") as buyer,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(cancelled, seller)
            await begun.wait()
            handle = buyer.workflows.handle("r")
            asked = await handle.cancel("too late")
            assert asked.cancel_by is not None
            with pytest.raises(bus.RunCancelled):
                await handle.result()
            assert (await handle.run()).error == "too late"
            assert [message.body for message in await buyer.history(channel="news")] == ["undone"]


async def test_a_run_is_cancelled_when_its_time_is_over(worker: Worker) -> None:
    async with worker.connect(bot="seller") as bot, worker.connect(bot="buyer") as buyer:
        buyer.workflows._backstop_seconds = 3000.0
        handle = await buyer.workflows.start("digest", definition=DIGEST)
        claim = await bot.workflows.claim_run(handle.id, "seller", 600, cleans_up=True)
        await handle.cancel("too late", grace_seconds=0.2)
        with anyio.fail_after(BOUND_SECONDS), pytest.raises(bus.RunCancelled):
            await handle.result()
        with pytest.raises(bus.Fenced):
            await bot.workflows.renew_run(handle.id, claim.fence)
