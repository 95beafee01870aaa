"""Sessions of the OpenAI Agents SDK in a keyed store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import bus
from bus.testing import Worker

from ..extras import needs

needs("agents")

from agents import Agent, RunConfig, Runner, SessionSettings
from agents.memory import Session
from agents.testing import ScriptedModel, assistant_message

from bus.integrations.openai_agents import KeyedSession

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session(bot: bus.Bot, request: pytest.FixtureRequest) -> KeyedSession:
    return KeyedSession("ann/\N{OCTOPUS}", bot, store=request.node.originalname)


def items(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


async def test_it_is_a_session(session: KeyedSession) -> None:
    assert isinstance(session, Session)


async def test_items_are_added_read_popped_and_cleared(session: KeyedSession, bot: bus.Bot) -> None:
    other = KeyedSession("ann", bot, store="test_items_are_added_read_popped_and_cleared")
    await other.add_items(items("other"))
    assert await session.get_items() == []
    assert await session.pop_item() is None
    await session.add_items([])
    await session.add_items(items("1", "2", "3"))
    await session.add_items(items("4"))
    assert await session.get_items() == items("1", "2", "3", "4")
    assert await session.get_items(2) == items("3", "4")
    assert await session.get_items(0) == []
    assert [await session.pop_item() for _ in range(2)] == items("4", "3")
    await session.add_items(items("5"))
    assert await session.get_items() == items("1", "2", "5")
    await session.clear_session()
    assert await session.get_items() == []
    assert await other.get_items() == items("other")


async def test_many_items_are_read_in_their_order(session: KeyedSession) -> None:
    for n in range(120):
        await session.add_items(items(f"{n}", f"{n}b"))
    everything = items(*(f"{n}{letter}" for n in range(120) for letter in ("", "b")))
    assert await session.get_items() == everything
    assert await session.get_items(151) == everything[-151:]
    limited = KeyedSession(
        session.session_id,
        session.bot,
        store="test_many_items_are_read_in_their_order",
        session_settings=SessionSettings(limit=3),
    )
    assert await limited.get_items() == everything[-3:]
    assert len(await limited.get_items(5)) == 5


async def test_those_who_add_at_once_lose_nothing(session: KeyedSession) -> None:
    await asyncio.gather(*(session.add_items(items(f"{n}", f"{n}b")) for n in range(8)))
    found = [item["content"] for item in await session.get_items()]
    assert sorted(found) == sorted(f"{n}{letter}" for n in range(8) for letter in ("", "b"))
    assert all(second == f"{first}b" for first, second in zip(found[::2], found[1::2], strict=True))
    popped: list[Any] = await asyncio.gather(*(session.pop_item() for _ in range(16)))
    assert sorted(item["content"] for item in popped) == sorted(found)


async def test_an_agent_remembers_through_a_kill_of_the_worker(own_worker: Worker) -> None:
    model = ScriptedModel([[assistant_message("Hello, Ann.")], [assistant_message("You are Ann.")]])
    agent = Agent(name="greeter", model=model)
    silent = RunConfig(tracing_disabled=True)
    async with own_worker.connect(bot="agents", max_in_flight=0) as bot:
        await Runner.run(agent, "I am Ann.", session=KeyedSession("ann", bot), run_config=silent)
        own_worker.kill()
        own_worker.start()
        found = await Runner.run(agent, "Who am I?", session=KeyedSession("ann", bot), run_config=silent)
        assert found.final_output == "You are Ann."
        assert "I am Ann." in str(model.last_call and model.last_call.input)
        assert len(await KeyedSession("ann", bot).get_items()) == 4
