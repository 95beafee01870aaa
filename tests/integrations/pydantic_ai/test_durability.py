"""Agents of Pydantic AI in runs: what was recorded is not done again, whatever was at work when it ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import bus
from bus.testing import Worker

from ..extras import needs

needs("pydantic_ai.durable_exec")

from pydantic import BaseModel
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from bus.integrations.pydantic_ai import RunDurability, add_agent

pytestmark = pytest.mark.anyio

DEFINITION = bus.WorkflowDefinition(id="ask", name="ask", owner=bus.GlobalOwner())

BOUND_SECONDS = 60


class Died(BaseException):
    """The process ends here."""


class Weather:
    """An agent with a model that asks for several tools at once, and what they were asked."""

    def __init__(self, *cities: str, **options: Any) -> None:
        self.cities = cities
        self.asked: list[int] = []
        self.looked: list[str] = []
        self.dies_in: str | None = None
        self.agent = Agent(FunctionModel(self.model), name="weatherman", capabilities=[RunDurability(**options)])
        self.agent.tool_plain(self.weather)

    async def model(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.asked.append(len(messages))
        found = [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        if found:
            return ModelResponse(parts=[TextPart(", ".join(map(str, found)))])
        return ModelResponse(parts=[ToolCallPart("weather", {"city": city}) for city in self.cities])

    async def weather(self, city: str) -> str:
        if city == self.dies_in:
            while len(self.looked) < len(self.cities) - 1:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)  # what the others found is being recorded
            raise Died
        self.looked.append(city)
        return f"rain in {city}"


@pytest.fixture
async def bot(own_worker: Worker) -> AsyncIterator[bus.Bot]:
    async with own_worker.connect(bot="weatherman") as bot:
        yield bot


def opened(bot: bus.Bot, id: str = "ask-1") -> Any:
    return bot.workflows.run("ask", id=id, definition=DEFINITION, lease_seconds=1)


async def steps(bot: bus.Bot, id: str = "ask-1") -> list[str]:
    return [log.step_id for log in await bot.workflows.list_step_logs(id) if log.status == "completed"]


async def test_what_was_done_is_not_done_again(bot: bus.Bot, own_worker: Worker) -> None:
    weather = Weather("Paris", "Oslo", "Rome")
    weather.dies_in = "Oslo"
    with pytest.raises((Died, BaseExceptionGroup)) as died:
        async with opened(bot):
            await weather.agent.run("how is it?")
    assert "Died" in repr(died.value)
    assert weather.asked == [1]
    assert sorted(weather.looked) == ["Paris", "Rome"]
    own_worker.kill()
    own_worker.start()
    weather.dies_in = None
    async with opened(bot):
        found = await weather.agent.run("how is it?")
    assert found.output == "rain in Paris, rain in Oslo, rain in Rome"
    assert weather.asked == [1, 3], "the model is asked once for each answer"
    assert sorted(weather.looked) == ["Oslo", "Paris", "Rome"]
    recorded = await steps(bot)
    assert len(recorded) == len(set(recorded)) == 5


async def test_a_run_that_is_opened_again_asks_nobody(bot: bus.Bot) -> None:
    weather = Weather("Paris", "Paris")
    outputs = []
    for _ in range(2):
        async with opened(bot):
            outputs.append((await weather.agent.run("how is it?")).output)
    assert outputs == ["rain in Paris, rain in Paris"] * 2
    assert weather.asked == [1, 3]
    assert weather.looked == ["Paris", "Paris"]


async def test_several_agents_side_by_side_and_one_after_another(bot: bus.Bot) -> None:
    weather = Weather("Paris", "Oslo")
    for _ in range(2):
        async with opened(bot):
            first = await asyncio.gather(*(weather.agent.run("how is it?") for _ in range(3)))
            second = await weather.agent.run("and now?", message_history=first[0].all_messages())
    assert len(weather.looked) == 6
    assert len(weather.asked) == 7
    assert second.output.count("rain") == 2
    recorded = await steps(bot)
    assert len(recorded) == len(set(recorded)) == 13


async def test_run_ids_are_the_same_each_time(bot: bus.Bot) -> None:
    weather = Weather("Paris")
    ids = []
    for _ in range(2):
        async with opened(bot):
            found = await weather.agent.run("how is it?")
            ids.append((found.run_id, found.conversation_id))
    assert ids[0] == ids[1]
    assert ids[0][0] == "ask-1/1"


async def test_outside_of_a_run_it_is_an_agent_like_any_other() -> None:
    weather = Weather("Paris")
    found = await weather.agent.run("how is it?")
    assert found.output == "rain in Paris"
    assert weather.asked == [1, 3]


async def test_a_tool_may_ask_the_model_to_try_again(bot: bus.Bot) -> None:
    agent = Agent(TestModel(), name="careful", capabilities=[RunDurability()])
    calls: list[int] = []

    @agent.tool_plain(retries=2)
    async def flaky(n: int) -> str:
        calls.append(n)
        if len(calls) == 1:
            raise ModelRetry("once more")
        return "fine"

    for _ in range(2):
        async with opened(bot):
            found = await agent.run("go")
    assert "fine" in found.output
    assert len(calls) == 2


async def test_a_step_that_fails_is_retried_as_it_was_said(bot: bus.Bot) -> None:
    agent = Agent(
        TestModel(),
        name="patient",
        capabilities=[RunDurability(tool_step={"retry": bus.Retry(max_attempts=2, delay=0)})],
    )
    calls: list[str] = []

    @agent.tool_plain
    def broken(text: str) -> str:
        calls.append(text)
        if len(calls) == 1:
            raise OSError("the network is away")
        return "fine"

    async with opened(bot):
        assert "fine" in (await agent.run("go")).output
    impatient = Weather("Paris")

    @impatient.agent.tool_plain(name="weather2")
    def other() -> str:
        return ""

    agent2 = Agent(TestModel(), name="hasty", capabilities=[RunDurability()])

    @agent2.tool_plain
    def never() -> str:
        raise OSError("the network is away")

    with pytest.raises(bus.StepFailed, match="the network is away"):
        async with opened(bot, "ask-2"):
            await agent2.run("go")


async def test_an_output_of_a_type_is_one_again(bot: bus.Bot) -> None:
    class City(BaseModel):
        name: str
        people: int

    agent = Agent(TestModel(), name="typed", output_type=City, capabilities=[RunDurability()])
    found = []
    for _ in range(2):
        async with opened(bot):
            found.append((await agent.run("which?")).output)
    assert found[0] == found[1]
    assert isinstance(found[1], City)


async def test_an_agent_is_a_bot(own_worker: Worker) -> None:
    weather = Weather("Paris", "Oslo")
    program = bus.Bot("forecaster")
    add_agent(program, weather.agent)
    async with own_worker.serve(program), own_worker.connect(bot="ada") as ada:
        reply = await ada.request("forecaster", "how is it?", timeout=BOUND_SECONDS)
        assert reply.body == "rain in Paris, rain in Oslo"
        typed = await ada.request("forecaster", {"question": 1}, timeout=BOUND_SECONDS)
        assert typed.body == "rain in Paris, rain in Oslo"
        assert (await ada.workflows.get_run(reply.reply_to or "")).status == "completed"  # type: ignore[union-attr]
        assert await ada.dead_letters(bot="forecaster") == []


def test_what_cannot_be_is_said() -> None:
    bot = bus.Bot("nobody")
    with pytest.raises(ValueError, match="needs a name"):
        add_agent(bot, Agent(TestModel()))
    agent = Agent(TestModel(), name="one")
    add_agent(bot, agent)
    with pytest.raises(ValueError, match="already a handler"):
        add_agent(bot, agent)
    add_agent(bot, agent, message_type="other")
