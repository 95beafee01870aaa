"""An agent of A2A as a bot. The agent is made with the SDK's own server, or is another bot."""

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

from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, Task, TaskState, TaskStatus
from starlette.applications import Starlette

from bus.integrations.a2a import add_agent

from .clients import BOUND_SECONDS, TOKEN, serving

pytestmark = pytest.mark.anyio

HEADERS = {"authorization": f"Bearer {TOKEN}"}


class Forecaster(AgentExecutor):
    """An agent that knows nothing of posthouse, with what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.canceled: list[str] = []
        self.go = anyio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        said = context.get_user_input()
        self.told.append(said)
        task_id, context_id = context.task_id or "", context.context_id or ""
        if said == "hello":
            await event_queue.enqueue_event(new_text_message("hello yourself"))
            return
        if context.current_task is None:
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            await event_queue.enqueue_event(
                Task(id=task_id, context_id=context_id, status=status, history=[context.message])
            )
        updater = TaskUpdater(event_queue, task_id, context_id)
        await updater.start_work()
        if said == "fail":
            await updater.failed(updater.new_agent_message([Part(text="no idea")]))
        elif said == "where":
            await updater.requires_input(updater.new_agent_message([Part(text="which city?")]))
        else:
            await self.go.wait()
            await updater.add_artifact([Part(text=f"rain in {said.splitlines()[0]}")])
            await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.canceled.append(context.task_id or "")
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


@asynccontextmanager
async def forecasting(forecaster: Forecaster) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        card = AgentCard(
            name="forecaster",
            description="It knows the weather.",
            version="1",
            capabilities=AgentCapabilities(streaming=True),
            default_input_modes=["text/plain"],
            default_output_modes=["text/plain"],
            skills=[AgentSkill(id="weather", name="weather", description="weather", tags=["weather"])],
            supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0")],
        )
        handler = DefaultRequestHandler(forecaster, InMemoryTaskStore(), card)
        app = Starlette(routes=[*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/")])
        async with serving(app, listener):
            yield url


class Scene:
    def __init__(self, forecaster: Forecaster, worker: Worker, url: str, ada: bus.Bot) -> None:
        self.forecaster, self.worker, self.url, self.ada = forecaster, worker, url, ada

    def bot(self) -> bus.Bot:
        bot = bus.Bot("forecaster")
        add_agent(bot, self.url, workflow="forecast", headers=HEADERS)
        return bot

    async def asked(self, body: Any, id: str | None = None) -> bus.Message[Any]:
        return await self.ada.request("forecaster", body, id=id, timeout=BOUND_SECONDS)

    async def until(self, state: str, id: str) -> Any:
        """Wait until the message is in a state."""
        with anyio.fail_after(BOUND_SECONDS):
            while (fate := (await self.ada.find(id)).mailboxes[0]).state != state or (
                state == "dead" and fate.given_up_at is None
            ):
                await anyio.sleep(0.05)
        return fate

    async def approval(self) -> Any:
        with anyio.fail_after(BOUND_SECONDS):
            while not (found := await self.ada.workflows.list_waiting_approvals()):
                await anyio.sleep(0.05)
        return found[0]


@pytest.fixture
async def scene(own_worker: Worker) -> AsyncIterator[Scene]:
    forecaster = Forecaster()
    async with forecasting(forecaster) as url, own_worker.connect(bot="ada") as ada:
        yield Scene(forecaster, own_worker, url, ada)


async def test_what_the_agent_made_is_the_reply(scene: Scene) -> None:
    scene.forecaster.go.set()
    async with scene.worker.serve(scene.bot()):
        reply = await scene.asked("Oslo")
        assert reply.body == "rain in Oslo"
        assert (await scene.asked("hello")).body == "hello yourself"
        run = await scene.ada.workflows.get_run(reply.reply_to or "")
        assert run is not None
        assert (run.status, run.workflow_name, run.result) == ("completed", "forecast", "rain in Oslo")


async def test_a_bot_that_was_killed_goes_on_with_the_same_task(scene: Scene) -> None:
    id = "00000000-0000-7000-8000-000000000001"
    async with scene.worker.serve(scene.bot(), stop_timeout=0):
        with pytest.raises(bus.ReplyTimeout):
            await scene.ada.request("forecaster", "Oslo", id=id, timeout=0.1)
        with anyio.fail_after(BOUND_SECONDS):
            while not [
                log
                for log in await scene.ada.workflows.list_step_logs(id)
                if (log.step_id, log.status) == ("send", "completed")
            ]:
                await anyio.sleep(0.05)
        scene.worker.kill()
    scene.worker.start()
    scene.forecaster.go.set()
    async with scene.worker.serve(scene.bot()):
        assert (await scene.asked("Oslo", id)).body == "rain in Oslo"
    assert scene.forecaster.told == ["Oslo"]


async def test_a_task_that_fails_is_a_dead_letter(scene: Scene) -> None:
    async with scene.worker.serve(scene.bot()):
        sent = await scene.ada.send("forecaster", "fail")
        assert "no idea" in (await scene.until("dead", sent.id)).reason
    assert scene.forecaster.told == ["fail"]


async def test_what_the_agent_asks_is_an_approval(scene: Scene) -> None:
    scene.forecaster.go.set()
    async with scene.worker.serve(scene.bot()):
        sent = await scene.ada.send("forecaster", "where")
        step = await scene.approval()
        assert (step.run_id, step.input["asks"]) == (sent.id, "which city?")
        answer = {"approved": True, "by": "ada", "comment": "Oslo"}
        await scene.ada.workflows.update_step_status(step.id, bus.StepStatus.COMPLETED, answer)
        assert (await scene.asked("where", sent.id)).body == "rain in Oslo"
        sent = await scene.ada.send("forecaster", "where")
        step = await scene.approval()
        answer = {"approved": False, "by": "ada"}
        await scene.ada.workflows.update_step_status(step.id, bus.StepStatus.FAILED, answer)
        assert "rejected" in (await scene.until("dead", sent.id)).reason
        assert scene.forecaster.canceled == [step.input["task"]]


async def test_cancelling_the_run_cancels_the_task(scene: Scene) -> None:
    async with scene.worker.serve(scene.bot()):
        sent = await scene.ada.send("forecaster", "Oslo")
        with anyio.fail_after(BOUND_SECONDS):
            while "wait" not in {log.step_id for log in await scene.ada.workflows.list_step_logs(sent.id)}:
                await anyio.sleep(0.05)
        await scene.ada.workflows.cancel_run(sent.id, "enough")
        await scene.until("dead", sent.id)
    assert len(scene.forecaster.canceled) == 1


async def test_an_agent_that_is_away_is_tried_again(own_worker: Worker) -> None:
    forecaster = Forecaster()
    forecaster.go.set()
    with socket.create_server(("127.0.0.1", 0)) as unused:
        away = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    bot = bus.Bot("forecaster")
    add_agent(bot, away)
    async with own_worker.serve(bot), own_worker.connect(bot="ada") as ada:
        sent = await ada.send("forecaster", "Oslo")
        with anyio.fail_after(BOUND_SECONDS):
            while "failed" not in {log.status for log in await ada.workflows.list_step_logs(sent.id)}:
                await anyio.sleep(0.05)
        assert (await ada.find(sent.id)).mailboxes[0].state == "in_flight"
