"""Tools that need approval: they wait as approvals of a run, whatever is restarted meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import bus
from bus.testing import Worker

from ...cli.terminal import Posthouse
from ...crash.nursery import ForkedWorker
from ..extras import needs

needs("agents")

from agents import Agent, RunConfig, RunContextWrapper, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from pydantic import BaseModel

from bus.integrations.openai_agents import add_agent, run_agent

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60

SILENT = RunConfig(tracing_disabled=True)

DEFINITION = bus.WorkflowDefinition(id="trip", name="trip", owner=bus.GlobalOwner())


class Traveller:
    """An agent whose model books several trips at once, and what was booked."""

    def __init__(self, *cities: str) -> None:
        self.booked: list[str] = []
        calls = [function_call("book", {"city": city}, call_id=f"call_{city}") for city in cities]
        self.model = ScriptedModel([calls, [assistant_message("All is done.")]])

        @function_tool(needs_approval=True)
        def book(context: RunContextWrapper[Any], city: str) -> str:
            """Book a trip."""
            self.booked.append(f"{city} for {context.context}")
            return f"{city} is booked"

        self.agent: Agent[Any] = Agent(name="traveller", model=self.model, tools=[book])

    def rest(self) -> Traveller:
        """Return the agent of another process, whose model is at its second answer."""
        other = Traveller("Rome")
        other.model = ScriptedModel([[assistant_message("All is done.")]])
        other.agent.model = other.model
        return other


@asynccontextmanager
async def served(bot: bus.Bot) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda *, task_status: bot.serve(stop_timeout=0, task_status=task_status))
        yield
        bot.stop()


async def waiting(bot: bus.Bot, number: int) -> list[Any]:
    with anyio.fail_after(BOUND_SECONDS):
        while len(found := await bot.workflows.list_waiting_approvals()) < number:
            await anyio.sleep(0.05)
    return found


async def test_people_answer_through_restarts_of_bot_and_worker(process: ForkedWorker) -> None:
    before = Traveller("Oslo", "Rome")

    def program(traveller: Traveller) -> bus.Bot:
        bot = bus.Bot("traveller", process.command)
        add_agent(bot, traveller.agent, context=lambda message: message.sender, run_config=SILENT)
        return bot

    async with bus.connect(process.command, bot="ada") as ada:
        async with served(program(before)):
            sent = await ada.send("traveller", "Book Oslo and Rome.")
            found = await waiting(ada, 2)
            prompts = [step.input for step in found]
            assert sorted(prompt["arguments"]["city"] for prompt in prompts) == ["Oslo", "Rome"]
            assert {(prompt["agent"], prompt["tool"]) for prompt in prompts} == {("traveller", "book")}
            process.kill()
        process.start()
        posthouse = Posthouse(process.command)
        await anyio.to_thread.run_sync(posthouse.answer, "approve", sent.id, "book:call_Rome", "--as", "ann")
        await anyio.to_thread.run_sync(
            posthouse.answer, "reject", sent.id, "book:call_Oslo", "--as", "ann", "--comment", "too cold"
        )
        after = before.rest()
        async with served(program(after)):
            reply = await ada.request("traveller", "", id=sent.id, timeout=BOUND_SECONDS)
            assert reply.body == "All is done."
        assert (before.booked, after.booked) == ([], ["Rome for ada"])
        said = str(after.model.last_call and after.model.last_call.input)
        assert "too cold" in said
        assert "Rome is booked" in said
        assert (await ada.workflows.get_run(sent.id)).status == "completed"  # type: ignore[union-attr]


@pytest.fixture
async def bot(own_worker: Worker) -> AsyncIterator[bus.Bot]:
    async with own_worker.connect(bot="traveller") as bot:
        yield bot


async def test_what_is_recorded_is_not_done_again(bot: bus.Bot) -> None:
    traveller = Traveller("Oslo")

    async def work(context: Any) -> Any:
        async with bot.workflows.run("trip", id="trip-1", definition=DEFINITION) as run:
            return await run_agent(run, traveller.agent, "Oslo, please.", context=context, run_config=SILENT)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work, {"who": "ben"})
        [step] = await waiting(bot, 1)
        tasks.cancel_scope.cancel()
    answer = {"approved": True, "by": "ann"}
    await bot.workflows.update_step_status(step.id, bus.StepStatus.COMPLETED, answer)
    assert [await work({"who": "eve"}), await work({"who": "eve"})] == ["All is done."] * 2
    assert traveller.booked == ["Oslo for {'who': 'eve'}"]
    assert len(traveller.model.calls) == 2


async def test_nobody_answers_in_time(bot: bus.Bot) -> None:
    traveller = Traveller("Oslo")
    async with bot.workflows.run("trip", id="trip-1", definition=DEFINITION) as run:
        output = await run_agent(run, traveller.agent, "Oslo, please.", timeout=0.1, run_config=SILENT)
    assert output == "All is done."
    assert traveller.booked == []
    assert "in time" in str(traveller.model.calls[-1].input)


async def test_an_output_of_a_type_is_json(bot: bus.Bot) -> None:
    class City(BaseModel):
        name: str

    model = ScriptedModel([[assistant_message('{"name": "Oslo"}')]])
    agent = Agent(name="typed", model=model, output_type=City)
    for _ in range(2):
        async with bot.workflows.run("trip", id="trip-1", definition=DEFINITION) as run:
            assert await run_agent(run, agent, "Which?", run_config=SILENT) == {"name": "Oslo"}
