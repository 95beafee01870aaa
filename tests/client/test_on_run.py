"""A bot goes on with its own runs: they are opened when it serves, and when something happens to them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import bus
from bus.client.middleware import Middlewares
from bus.client.wakes import Wakes
from bus.model.records import BotOwner, GlobalOwner, RunStatus, StepStatus, WorkflowDefinition
from bus.runs import executing
from bus.runs.executing import RunFunctions
from bus.testing import Worker
from tests.contract.executing import Seen

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60

DIGEST = WorkflowDefinition(id="digest", name="digest", owner=GlobalOwner())


@asynccontextmanager
async def serving(bot: bus.Bot, *, concurrency: int = 10, stop_timeout: float = 0.1) -> AsyncIterator[None]:
    """Let a bot serve."""

    async def serve(task_status: Any) -> None:
        await bot.serve(concurrency=concurrency, stop_timeout=stop_timeout, task_status=task_status)

    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: serve(task_status))
        yield
        bot.stop()


async def has_status(bot: bus.Bot, id: str, status: RunStatus) -> None:
    """Wait until a run has a status."""
    while True:
        run = await bot.workflows.get_run(id)
        if run is not None and run.status == status:
            return
        await anyio.sleep(0.01)


class Digester:
    """A bot that executes digests: each asks, if its input says so."""

    def __init__(self, worker: Worker, name: str = "digester") -> None:
        self.bot = worker.connect(bot=name)
        self.seen = Seen()
        self.fails = False
        self.bot.on_run("digest", definition=DIGEST)(self.digest)

    async def digest(self, run: bus.Run) -> str:
        page = await run.step("fetch", self.seen.double, 21)
        if run.input == "ask":
            await run.approval("go")
        if self.fails:
            raise ValueError("a bug")
        self.seen.note(run.id)
        return f"{page} pages"


async def test_runs_that_anybody_starts_are_executed(worker: Worker) -> None:
    digester = Digester(worker)
    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(DIGEST)
        before = await ann.workflows.start("digest")
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(digester.bot):
                assert await before.result() == "42 pages"
                handle = await ann.workflows.start("digest")
                assert await handle.result() == "42 pages"
                forked = await ann.workflows.fork_run(handle.id, "forked")
                await has_status(ann, forked.id, RunStatus.COMPLETED)
    assert digester.seen.calls == {21: 2, before.id: 1, handle.id: 1, "forked": 1}


@pytest.mark.parametrize("asks", [False, True], ids=["at work", "waiting"])
async def test_an_orderly_stop_leaves_no_orphan(worker: Worker, asks: bool) -> None:
    first, second = Digester(worker), Digester(worker)
    never = anyio.Event()

    async def stuck(number: int) -> int:
        first.seen.note("stuck")
        await never.wait()
        return number

    if not asks:
        first.seen.double = stuck  # type: ignore[method-assign]
    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(DIGEST)
        handle = await ann.workflows.start("digest", "ask" if asks else None)
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(first.bot):
                if asks:
                    await has_status(ann, handle.id, RunStatus.PAUSED)
                else:
                    await first.seen.wait_for("stuck")
            assert await handle.status() == (RunStatus.PAUSED if asks else RunStatus.PENDING)
            if asks:
                [row] = await ann.workflows.list_waiting_approvals(handle.id)
                await ann.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
            async with serving(second.bot):
                assert await handle.result() == "42 pages"


async def test_a_run_that_is_retried_goes_on(worker: Worker) -> None:
    digester = Digester(worker)
    digester.fails = True
    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(DIGEST)
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(digester.bot):
                handle = await ann.workflows.start("digest")
                await has_status(ann, handle.id, RunStatus.PAUSED)
                digester.fails = False
                await ann.workflows.retry_run(handle.id)
                assert await handle.result() == "42 pages"
    assert digester.seen.calls == {21: 1, handle.id: 1}


async def test_a_run_that_lost_its_holder_goes_on_without_a_handler_of_its_message(worker: Worker) -> None:
    digester = Digester(worker)
    async with worker.connect(bot="ann") as ann, worker.connect(bot="digester") as dying:
        await ann.workflows.save_definition(DIGEST)
        handle = await ann.workflows.start("digest")
        await dying.workflows.claim_run(handle.id, "digester", 0.1)
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(digester.bot):
                assert await handle.result() == "42 pages"
        assert await ann.dead_letters(bot="digester") == []


async def test_a_run_is_left_to_the_message_that_began_it(worker: Worker) -> None:
    digester, opened = Digester(worker), list[str]()
    bot = digester.bot

    @bot.on_message("digest")
    async def begin(message: bus.Message) -> None:
        async with bot.workflows.run("digest", id=message.id, input=message.body, definition=DIGEST) as run:
            opened.append(run.id)
            await run.approval("go")
            async with run.commit("end") as tx:
                tx.ack(message)
                tx.complete()

    async with worker.connect(bot="ann") as ann:
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(bot):
                sent = await ann.send("digester", None, message_type="digest")
                await has_status(ann, sent.id, RunStatus.PAUSED)
                await ann.workflows.update_run_status(sent.id, RunStatus.PENDING)
                [row] = await ann.workflows.list_waiting_approvals(sent.id)
                await ann.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
                await has_status(ann, sent.id, RunStatus.COMPLETED)
    assert opened == [sent.id]
    assert digester.seen.calls == {}, "the function was not called"


async def test_runs_of_others_are_left_alone(worker: Worker) -> None:
    digester = Digester(worker)
    async with worker.connect(bot="ann") as ann, worker.connect(bot="bob") as bob:
        await ann.workflows.save_definition(DIGEST)
        bobs = await bob.workflows.start("digest")
        claim = await bob.workflows.claim_run(bobs.id, "bob")
        await bob.workflows.release_run(bobs.id, claim.fence)
        other = WorkflowDefinition(id="other", name="other", owner=BotOwner(bot_id=(await me(bob))))
        elsewhere = await bob.workflows.start("other", definition=other)
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(digester.bot):
                mine = await ann.workflows.start("digest")
                assert await mine.result() == "42 pages"
        assert await bobs.status() == await elsewhere.status() == RunStatus.PENDING


async def me(bot: bus.Bot) -> str:
    welcome = bot._connection.welcome
    assert welcome is not None
    return welcome.bot_id


async def test_no_more_are_at_work_than_the_bot_has_places_for(worker: Worker) -> None:
    bot, seen, leave = worker.connect(bot="digester"), Seen(), anyio.Event()
    at_work: set[str] = set()
    most = 0

    @bot.on_run("digest", definition=DIGEST)
    async def digest(run: bus.Run) -> None:
        nonlocal most
        at_work.add(run.id)
        most = max(most, len(at_work))
        seen.note("begins")
        await leave.wait()
        at_work.remove(run.id)

    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(DIGEST)
        handles = [await ann.workflows.start("digest") for _ in range(7)]
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(bot, concurrency=3):
                await seen.wait_for("begins", 3)
                await ann.status()
                leave.set()
                for handle in handles:
                    await handle.result()
    assert (most, seen.calls["begins"]) == (3, 7)


async def test_two_programs_of_a_bot_execute_each_run_once(worker: Worker) -> None:
    one, two = Digester(worker), Digester(worker)
    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(DIGEST)
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(one.bot), serving(two.bot):
                handles = [await ann.workflows.start("digest") for _ in range(20)]
                for handle in handles:
                    assert await handle.result() == "42 pages"
    assert one.seen.calls[21] + two.seen.calls[21] == 20


async def test_a_worker_that_restarts_misses_no_run(worker: Worker) -> None:
    digester = Digester(worker)
    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(DIGEST)
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(digester.bot):
                await anyio.to_thread.run_sync(worker.stop)
                await anyio.to_thread.run_sync(worker.start)
                handle = await ann.workflows.start("digest")
                assert await handle.result() == "42 pages"


async def test_what_is_no_function_for_runs_is_refused(worker: Worker) -> None:
    bot = worker.connect(bot="digester")
    with pytest.raises(TypeError, match=r"@bot\.on_run"):
        bot.on_run(len)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="async function that takes a run"):
        bot.on_run("digest")(len)  # type: ignore[type-var]

    async def digest(run: bus.Run) -> None:
        """Do nothing."""

    with pytest.raises(ValueError, match="the definition is named 'digest', not 'order'"):
        bot.on_run("order", definition=DIGEST)(digest)
    bot.on_run("digest")(digest)
    with pytest.raises(ValueError, match="already a function for runs of 'digest'"):
        bot.on_run("digest")(digest)


async def test_a_run_that_calls_another_one_lends_it_its_place(worker: Worker) -> None:
    digester = Digester(worker)
    outer = WorkflowDefinition(id="outer", name="outer", owner=GlobalOwner())

    @digester.bot.on_run("outer", definition=outer)
    async def call(run: bus.Run) -> Any:
        return await run.call("digest", "ask")

    async with worker.connect(bot="ann") as ann:
        await ann.workflows.save_definition(outer)
        with anyio.fail_after(BOUND_SECONDS):
            async with serving(digester.bot, concurrency=1):
                handles = [await ann.workflows.start("outer") for _ in range(5)]
                answered = 0
                while answered < len(handles):
                    for row in await ann.workflows.list_waiting_approvals():
                        await ann.workflows.update_step_status(row.id, StepStatus.COMPLETED, {"approved": True})
                        answered += 1
                    await anyio.sleep(0.01)
                for handle in handles:
                    assert await handle.result() == "42 pages"
    assert digester.seen.calls[21] == 5


# ── When it looks ────────────────────────────────────────────────────────────────────────────────────────


class Looks:
    """A store whose runs are all to be opened; it notes which were looked for (None: all)."""

    def __init__(self) -> None:
        self.found: list[list[str] | None] = []
        self.changed = anyio.Event()

    async def open_runs(self, workflow: str, *, resting: bool, run_ids: list[str] | None) -> list[Any]:
        self.found.append(run_ids)
        self.changed.set()
        await anyio.lowlevel.checkpoint()
        return [SimpleNamespace(id=run_id) for run_id in run_ids or ()]

    async def until(self, count: int) -> None:
        """Wait until it was looked so often."""
        while len(self.found) < count:
            self.changed = anyio.Event()
            await self.changed.wait()


async def nothing(run: bus.Run) -> None:
    """Do nothing."""


def functions(looks: Looks) -> tuple[RunFunctions, Wakes]:
    wakes = Wakes()
    found = RunFunctions(looks, wakes, Middlewares("digester"))  # type: ignore[arg-type]
    found.add("digest", nothing, DIGEST, 15.0)
    return found, wakes


async def test_what_happens_to_a_run_that_is_being_opened_is_looked_at_again() -> None:
    looks = Looks()
    executed, wakes = functions(looks)

    async def begin(execute: Any) -> None:
        if len(looks.found) == 2:  # it was opened and lost while others had to wait for a place
            assert wakes.listener is not None
            wakes.listener(["a"])

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(executed.serve, begin)
            await looks.until(1)
            assert wakes.listener is not None
            wakes.listener(["a"])
            await looks.until(3)
            tasks.cancel_scope.cancel()
    assert looks.found == [None, ["a"], ["a"]]


async def test_all_runs_are_looked_at_from_time_to_time_however_much_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(executing, "_LOOK_SECONDS", 0.05)
    looks = Looks()
    executed, wakes = functions(looks)

    async def begin(execute: Any) -> None:
        """Begin nothing."""

    async def busy() -> None:
        while looks.found.count(None) < 3:
            if wakes.listener is not None:
                wakes.listener(["a"])
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(executed.serve, begin)
            tasks.start_soon(busy)
