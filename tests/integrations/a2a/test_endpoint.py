"""A bot as an agent of A2A: what its client sees of what it does."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import bus
from bus.testing import Worker

from ..extras import needs

needs("a2a.server.routes")

from a2a.types import ListTasksRequest, Task, TaskState
from a2a.utils.errors import (
    InternalError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)

from bus.integrations.a2a import a2a_app

from .clients import BOUND_SECONDS, Agent, serving

pytestmark = pytest.mark.anyio

DEFINITION = bus.WorkflowDefinition(id="trip", name="trip", owner=bus.GlobalOwner())

COMPLETED, WORKING, SUBMITTED = (
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_WORKING,
    TaskState.TASK_STATE_SUBMITTED,
)
FAILED, CANCELED, ASKING = (
    TaskState.TASK_STATE_FAILED,
    TaskState.TASK_STATE_CANCELED,
    TaskState.TASK_STATE_INPUT_REQUIRED,
)


class Planner:
    """The bot, and what it was told."""

    def __init__(self) -> None:
        self.bot = bus.Bot("planner")
        self.told: list[Any] = []
        self.go = anyio.Event()
        self.bot.on_message()(self.take)
        self.bot.on_message("workflow.crashed")(self.crashed)

    async def crashed(self, message: bus.Message[Any]) -> None:
        pass

    async def take(self, message: bus.Message[Any]) -> Any:
        self.told.append(message.body)
        match message.body:
            case "wait":
                await self.go.wait()
            case "parts":
                await message.reply("looking", message_type="a2a.working")
                await message.reply({"n": 1}, message_type="a2a.artifact")
                await self.go.wait()
            case "which":
                return bus.Reply("which city?", message_type="a2a.input-required")
            case "no":
                return bus.Reply("not today", message_type="a2a.failed")
            case "never":
                await message.term("never heard of it")
                return None
            case "nothing":
                return None
            case {"trip": _}:
                return await self.trip(message)
        return message.body

    async def trip(self, message: bus.Message[Any]) -> None:
        async with self.bot.workflows.run("trip", id=message.id, definition=DEFINITION) as run:
            answer = await run.approval("agree", message.body)
            async with run.commit("reply") as tx:
                tx.reply(message, answer["comment"])
                tx.ack(message)
                tx.complete()


class Scene:
    def __init__(self, url: str, planner: Planner, ada: bus.Bot) -> None:
        self.url, self.planner, self.ada = url, planner, ada


async def scene(worker: Worker, **options: Any) -> AsyncIterator[Scene]:
    planner = Planner()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        app = a2a_app(worker.connect(bot="a2a-planner"), "planner", url=url, **options)
        async with (
            worker.serve(planner.bot),
            worker.connect(bot="ada", max_in_flight=0) as ada,
            serving(app, listener),
        ):
            yield Scene(url, planner, ada)


@pytest.fixture
async def planned(worker: Worker) -> AsyncIterator[Scene]:
    async for each in scene(worker):
        yield each


@pytest.fixture
async def trusting(worker: Worker) -> AsyncIterator[Scene]:
    async for each in scene(worker, client_approves=True, message_type="job"):
        yield each


@pytest.fixture
async def agent(planned: Scene, request: pytest.FixtureRequest) -> AsyncIterator[Agent]:
    async with Agent.at(planned.url, id=request.node.name) as agent:
        yield agent


async def test_a_message_is_a_task_and_the_reply_its_artifact(planned: Scene, agent: Agent) -> None:
    task = await agent.send("tea", context_id="talk")
    assert (task.status.state, Agent.outputs(task), task.context_id) == (COMPLETED, ["tea"], "talk")
    assert [message.parts[0].text for message in task.history] == ["tea"]
    assert await agent.get(task.id) == task
    question = await planned.ada.find(task.id)
    assert question.message.headers == {"a2a-task": task.id, "a2a-context": "talk"}
    assert question.mailboxes[0].state == "settled"


@pytest.mark.parametrize("body", [{"a": [1, 2.5, None]}, [], 3, "", {"trip2": {}}])
async def test_what_is_said_arrives(planned: Scene, agent: Agent, body: Any) -> None:
    assert Agent.outputs(await agent.send(body)) == [body]
    assert planned.planner.told == [body]


async def test_a_repeated_message_is_the_same_task(planned: Scene, agent: Agent) -> None:
    first = await agent.send("tea", id="same")
    second = await agent.send("coffee", id="same")
    assert first == second
    assert planned.planner.told == ["tea"]


async def test_who_does_not_wait_gets_it_later(planned: Scene, agent: Agent) -> None:
    task = await agent.send("wait", at_once=True)
    assert task.status.state == SUBMITTED
    await agent.until(task.id, WORKING)
    planned.planner.go.set()
    assert Agent.outputs(await agent.until(task.id, COMPLETED)) == ["wait"]


async def test_a_stream_has_what_happens(planned: Scene, request: pytest.FixtureRequest) -> None:
    seen: list[Any] = []
    async with Agent.at(planned.url, streaming=True, id=request.node.name) as agent:
        with anyio.fail_after(BOUND_SECONDS):
            async for event in agent.stream("parts"):
                if event.HasField("task"):
                    seen.append("task")
                    seen += Agent.outputs(event.task)
                elif event.HasField("artifact_update"):
                    seen += Agent.outputs(Task(artifacts=[event.artifact_update.artifact]))
                    planned.planner.go.set()
                else:
                    status = event.status_update.status
                    seen.append(status.state if not status.HasField("message") else status.message.parts[0].text)
    assert seen[0] == "task"
    assert seen[-1] == COMPLETED
    assert [each for each in seen if each in ({"n": 1}, "parts")] == [{"n": 1}, "parts"]


async def test_a_stream_can_be_joined(planned: Scene, agent: Agent) -> None:
    task = await agent.send("wait", at_once=True)
    states = []
    async with Agent.at(planned.url, streaming=True) as joining:
        with anyio.fail_after(BOUND_SECONDS):
            async for event in joining.subscribe(task.id):
                states.append(event.task.status.state or event.status_update.status.state)
                planned.planner.go.set()
        assert states[-1] == COMPLETED
        with pytest.raises(UnsupportedOperationError, match="has ended"):
            await anext(joining.subscribe(task.id))


async def test_a_bot_may_ask_back(planned: Scene, agent: Agent) -> None:
    task = await agent.send("which")
    assert (task.status.state, task.status.message.parts[0].text) == (ASKING, "which city?")
    with pytest.raises(InvalidParamsError, match="context"):
        await agent.send("Oslo", task_id=task.id, context_id="another")
    done = await agent.send("Oslo", task_id=task.id, id="answer")
    assert (done.id, done.status.state, Agent.outputs(done)) == (task.id, COMPLETED, ["Oslo"])
    assert [message.parts[0].text for message in done.history] == ["which", "which city?", "Oslo"]
    assert await agent.send("Oslo", task_id=task.id, id="answer") == done
    with pytest.raises(UnsupportedOperationError, match="COMPLETED"):
        await agent.send("Rome", task_id=task.id)
    thread = await planned.ada.history(thread=task.id)
    assert [each.body for each in reversed(thread)] == ["which", "which city?", "Oslo", "Oslo"]


async def test_what_asks_can_be_canceled(planned: Scene, agent: Agent) -> None:
    task = await agent.send("which")
    assert (await agent.cancel(task.id)).status.state == CANCELED
    with pytest.raises(TaskNotCancelableError, match="has ended"):
        await agent.cancel(task.id)


async def test_a_failure_is_told(planned: Scene, agent: Agent) -> None:
    refused = await agent.send("no")
    assert (refused.status.state, refused.status.message.parts[0].text) == (FAILED, "not today")
    dead = await agent.send("never")
    assert (dead.status.state, dead.status.message.parts[0].text) == (FAILED, "never heard of it")
    nothing = await agent.send("nothing")
    assert (nothing.status.state, Agent.outputs(nothing)) == (COMPLETED, [])


async def test_people_approve_and_the_client_is_told(planned: Scene, agent: Agent) -> None:
    task = await agent.send({"trip": "Oslo"}, at_once=True)
    with anyio.fail_after(BOUND_SECONDS):
        while not (task := await agent.get(task.id)).status.HasField("message"):
            await anyio.sleep(0.05)
    assert task.status.state == WORKING
    assert dict(task.status.message.parts[0].data.struct_value)["approval"] == "agree"
    with pytest.raises(UnsupportedOperationError, match="WORKING"):
        await agent.send("approve", task_id=task.id)
    [step] = await planned.ada.workflows.list_waiting_approvals(task.id)
    answer = {"approved": True, "by": "ada", "comment": "enjoy"}
    await planned.ada.workflows.update_step_status(step.id, bus.StepStatus.COMPLETED, answer)
    assert Agent.outputs(await agent.until(task.id, COMPLETED)) == ["enjoy"]


async def test_a_client_may_approve_if_it_is_let(trusting: Scene, request: pytest.FixtureRequest) -> None:
    async with Agent.at(trusting.url, id=request.node.name) as agent:
        task = await agent.send({"trip": "Oslo"})
        assert task.status.state == ASKING
        with pytest.raises(InvalidParamsError, match="approve"):
            await agent.send("well", task_id=task.id)
        done = await agent.send({"approved": True, "comment": "enjoy"}, task_id=task.id)
        assert (done.status.state, Agent.outputs(done)) == (COMPLETED, ["enjoy"])
        [log] = [each for each in await trusting.ada.workflows.list_step_logs(task.id) if each.step_id == "agree"]
        assert log.output == {"approved": True, "by": "a2a-planner", "comment": "enjoy"}
        rejected = await agent.send({"trip": "Rome"})
        done = await agent.send("Reject: too far", task_id=rejected.id)
        assert done.status.state == FAILED
        assert "too far" in done.status.message.parts[0].text
        assert (await trusting.ada.find(task.id)).message.message_type == "job"


async def test_cancelling_a_task_cancels_its_run(planned: Scene, agent: Agent) -> None:
    task = await agent.send({"trip": "Oslo"}, at_once=True)
    with anyio.fail_after(BOUND_SECONDS):
        while not await planned.ada.workflows.list_waiting_approvals(task.id):
            await anyio.sleep(0.05)
    assert (await agent.cancel(task.id)).status.state == CANCELED
    run = await planned.ada.workflows.get_run(task.id)
    assert run is not None
    assert run.status == bus.RunStatus.CANCELLED
    with pytest.raises(TaskNotCancelableError):
        await agent.cancel(task.id)


async def test_what_has_no_run_cannot_be_canceled(planned: Scene, agent: Agent) -> None:
    task = await agent.send("wait", at_once=True)
    with pytest.raises(TaskNotCancelableError, match="has not begun a run"):
        await agent.cancel(task.id)
    planned.planner.go.set()
    await agent.until(task.id, COMPLETED)


async def test_tasks_are_listed_newest_first(planned: Scene, agent: Agent) -> None:
    for body in ("a", "b", "c"):
        await agent.send(body, context_id="listed")
    found = await agent.client.list_tasks(ListTasksRequest(context_id="listed", page_size=2))
    assert ([task.history[0].parts[0].text for task in found.tasks], found.total_size) == (["c", "b"], 3)
    assert not any(task.artifacts for task in found.tasks)
    rest = ListTasksRequest(context_id="listed", page_token=found.next_page_token, include_artifacts=True)
    assert [Agent.outputs(task) for task in (await agent.client.list_tasks(rest)).tasks] == [["a"]]


async def test_replies_of_others_are_dead_letters(planned: Scene, agent: Agent) -> None:
    task = await agent.send("wait", at_once=True)
    forged = await planned.ada.send("a2a-planner", "forged", reply_to=task.id)
    with anyio.fail_after(BOUND_SECONDS):
        while (await planned.ada.find(forged.id)).mailboxes[0].state != "dead":
            await anyio.sleep(0.05)
    planned.planner.go.set()
    assert Agent.outputs(await agent.until(task.id, COMPLETED)) == ["wait"]


async def test_what_is_not_there_is_said(planned: Scene, agent: Agent) -> None:
    with pytest.raises(TaskNotFoundError):
        await agent.get("no-such-task")
    with pytest.raises(InvalidParamsError, match="contextId"):
        await agent.send("tea", context_id="x" * 300)


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_agent_whose_bot_never_came_says_so(worker: Worker, streaming: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        app = a2a_app(worker.connect(bot="a2a-nobody"), "nobody", url=url)
        async with serving(app, listener), Agent.at(url, streaming=streaming) as agent:
            with pytest.raises(InternalError, match="'nobody'"):
                await agent.send("tea")


async def test_a_task_of_a_bot_that_is_removed_fails(worker: Worker) -> None:
    async with worker.connect(bot="sleeper"):
        pass
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        app = a2a_app(worker.connect(bot="a2a-sleeper"), "sleeper", url=url)
        async with (
            worker.connect(bot="operator") as operator,
            serving(app, listener),
            Agent.at(url) as agent,
        ):
            task = await agent.send("wake up", at_once=True)
            assert (await agent.get(task.id)).status.state == SUBMITTED
            await operator.remove_bot("sleeper", force=True)
            failed = await agent.until(task.id, FAILED)
            assert Agent.outputs(failed) == []
            assert failed.status.message.parts[0].text == "bot sleeper was removed, and its mailbox with it"
            with pytest.raises(InternalError, match="sleeper"):
                await agent.send("anybody there?")


@asynccontextmanager
async def orderly(worker: Worker) -> AsyncIterator[Agent]:
    """An endpoint, of which there may be several."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        app = a2a_app(worker.connect(bot="a2a-orderly"), "orderly", url=url)
        async with serving(app, listener), Agent.at(url) as agent:
            yield agent


async def test_replies_are_recorded_in_their_order_whoever_takes_them(worker: Worker) -> None:
    let_go = anyio.Event()

    async def hold_one(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with worker.connect(bot="a2a-orderly", max_in_flight=1) as another:
            await another.receive(timeout=BOUND_SECONDS)
            task_status.started()
            await let_go.wait()

    async with worker.connect(bot="orderly") as planner, anyio.create_task_group() as tasks:
        async with orderly(worker) as agent:
            task = await agent.send("tea", at_once=True)
        question = await planner.receive(timeout=BOUND_SECONDS)
        await question.reply("a leaf", message_type="a2a.artifact")
        await tasks.start(hold_one)
        last = await question.reply("a cup")
        await question.ack(confirm=True)
        async with orderly(worker) as agent:
            with anyio.fail_after(BOUND_SECONDS):  # the endpoint gets the last reply first, and gives it back
                while (await planner.find(last.id)).mailboxes[0].attempts < 2:
                    await anyio.sleep(0.05)
            assert (await agent.get(task.id)).status.state != COMPLETED
            let_go.set()
            assert Agent.outputs(await agent.until(task.id, COMPLETED)) == ["a leaf", "a cup"]
        assert await planner.dead_letters(bot="a2a-orderly") == []
