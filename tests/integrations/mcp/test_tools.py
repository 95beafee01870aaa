"""The tools of `posthouse mcp`, as the SDK's client calls them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import bus
from bus.testing import Worker

from ..extras import needs

needs("mcp")

import jsonschema
from mcp import Client

from bus.integrations.mcp.server import server_of
from bus.integrations.mcp.tools import IN_FLIGHT_MAX

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "mcp.md"


class Assistant:
    """A client of a server that is a bot."""

    def __init__(self, client: Client, bot: bus.Bot) -> None:
        self.client = client
        self.bot = bot

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call a tool that has to succeed."""
        with anyio.fail_after(BOUND_SECONDS):
            result = await self.client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        return result.structured_content

    async def fault(self, tool: str, **arguments: Any) -> str:
        """Call a tool that has to fail, and return what the model reads."""
        with anyio.fail_after(BOUND_SECONDS):
            result = await self.client.call_tool(tool, arguments)
        assert result.is_error
        [content] = result.content
        return str(getattr(content, "text", ""))


@asynccontextmanager
async def assistant(worker: Worker, name: str) -> AsyncIterator[Assistant]:
    connected = worker.connect(bot=name, max_in_flight=IN_FLIGHT_MAX, timeout=BOUND_SECONDS)
    async with connected as bot, Client(server_of(bot)) as client:
        yield Assistant(client, bot)


@pytest.fixture
async def alice(own_worker: Worker) -> AsyncIterator[Assistant]:
    async with assistant(own_worker, "alice") as found:
        yield found


@pytest.fixture
async def bob(own_worker: Worker) -> AsyncIterator[Assistant]:
    async with assistant(own_worker, "bob") as found:
        yield found


async def test_each_tool_is_described_for_a_model(alice: Assistant) -> None:
    tools = (await alice.client.list_tools()).tools
    assert {tool.name for tool in tools} == {
        "send_message", "publish_message", "ask_bot", "receive_messages", "settle_message", "read_history",
        "list_bots", "list_channels", "subscribe", "unsubscribe", "list_approvals", "answer_approval",
    }  # fmt: skip
    for tool in tools:
        assert len(tool.description or "") > 30
        assert "**" not in (tool.description or "")
        undescribed = [
            name for name, schema in tool.input_schema["properties"].items() if "description" not in schema
        ]
        assert undescribed == [], tool.name
    assert "the bot alice" in (alice.client.instructions or "")


async def test_what_the_page_says_to_type_fits_the_tools(alice: Assistant) -> None:
    typed = re.findall(r"^([a-z_]+) +(\{.*\})$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    schemas = {tool.name: tool.input_schema for tool in (await alice.client.list_tools()).tools}
    assert {tool for tool, _ in typed} == schemas.keys()
    for tool, text in typed:
        arguments = json.loads(text.replace("SEQ", "1").replace(": ID", ': "id"').replace(": RUN", ': "run"'))
        assert arguments.keys() <= schemas[tool]["properties"].keys(), text
        jsonschema.validate(arguments, schemas[tool])


async def test_two_assistants_talk(alice: Assistant, bob: Assistant, own_worker: Worker) -> None:
    sent = await alice.call("send_message", to="bob", body={"question": "how many moths?"})
    own_worker.kill()
    own_worker.start()
    received = await bob.call("receive_messages", wait_seconds=BOUND_SECONDS)
    [message] = received["messages"]
    assert message["from"] == "alice"
    assert message["body"] == {"question": "how many moths?"}
    assert received["unsettled"] == [message["seq"]] == [sent["seq"]]
    own_worker.kill()
    own_worker.start()
    assert await bob.call("settle_message", seq=message["seq"], reply="one") == {"unsettled": []}
    [answer] = (await alice.call("receive_messages", wait_seconds=BOUND_SECONDS))["messages"]
    assert (answer["from"], answer["body"], answer["reply_to"]) == ("bob", "one", sent["id"])
    thread = (await bob.call("read_history", thread=sent["id"]))["messages"]
    assert [each["body"] for each in thread] == ["one", {"question": "how many moths?"}]
    assert (await bob.call("read_history", with_bot="alice"))["messages"] == thread


async def test_an_assistant_asks_and_waits(alice: Assistant, bob: Assistant) -> None:
    early = await alice.call("ask_bot", to="bob", body="are you there?", timeout_seconds=0.05)
    assert early["reply"] is None
    assert early["state"] in ("waiting", "in_flight")
    assert "bob" in early["explanation"]
    [message] = (await bob.call("receive_messages", wait_seconds=BOUND_SECONDS))["messages"]
    await bob.call("settle_message", seq=message["seq"], reply="yes")
    late = await alice.call("ask_bot", to="bob", body="are you there?", id=early["id"])
    assert late["reply"]["body"] == "yes"
    assert (await bob.call("receive_messages"))["messages"] == [], "it was the same question"


async def test_a_message_is_answered_once(alice: Assistant, bob: Assistant) -> None:
    await alice.call("send_message", to="bob", body="1")
    [message] = (await bob.call("receive_messages", wait_seconds=BOUND_SECONDS))["messages"]
    held = await bob.bot.find(message["seq"])
    assert held.message.body == "1"
    await bob.call("settle_message", seq=message["seq"], outcome="release")
    for reply in ("first", "second"):
        [message] = (await bob.call("receive_messages", wait_seconds=BOUND_SECONDS))["messages"]
        if reply == "first":  # and it dies before it can settle
            id = str(uuid.uuid5(uuid.UUID("6c0ff3a5-6d0a-5f0e-9f5c-0d1c5b1f7a42"), f"bob/{message['id']}"))
            await bob.bot.send("alice", reply, id=id)
            await bob.call("settle_message", seq=message["seq"], outcome="release")
        else:
            await bob.call("settle_message", seq=message["seq"], reply=reply)
    [answer] = (await alice.call("receive_messages", limit=10, wait_seconds=BOUND_SECONDS))["messages"]
    assert answer["body"] == "first"


async def test_channels_and_groups(alice: Assistant, bob: Assistant) -> None:
    await alice.call("publish_message", channel="news", body="old")
    await bob.call("subscribe", channel="news", from_start=True)
    await alice.call("publish_message", channel="news", body="new", message_type="headline")
    found: list[Any] = []
    while len(found) < 2:
        found += (await bob.call("receive_messages", limit=2, wait_seconds=BOUND_SECONDS))["messages"]
    assert [each["body"] for each in found] == ["old", "new"]
    assert [each["type"] for each in found] == ["message", "headline"]
    assert await bob.call("list_channels") == {"channels": ["news"], "subscribed": ["news"], "more": False}
    assert [each["body"] for each in (await alice.call("read_history", channel="news", limit=1))["messages"]] == [
        "new"
    ]
    assert await bob.call("unsubscribe", channel="news") == {"was_subscribed": True}
    assert "subscribed" in await bob.call("list_channels")
    await bob.call("subscribe", channel="jobs", group="workers")
    assert "alice" in {each["name"] for each in (await bob.call("list_bots"))["bots"]}


async def test_what_was_taken_can_be_read_again(alice: Assistant, bob: Assistant) -> None:
    for n in range(IN_FLIGHT_MAX):
        await alice.call("send_message", to="bob", body=n)
    taken: list[Any] = []
    while len(taken) < IN_FLIGHT_MAX:
        taken += (await bob.call("receive_messages", limit=IN_FLIGHT_MAX, wait_seconds=BOUND_SECONDS))["messages"]
    assert "settle_message" in await bob.fault("receive_messages")
    again = await bob.call("receive_messages", include_unsettled=True)
    assert again["messages"] == taken
    assert again["unsettled"] == [each["seq"] for each in taken]
    for each, outcome in zip(taken, ["ack", "nak", "release", "term"], strict=False):
        await bob.call("settle_message", seq=each["seq"], outcome=outcome, delay_seconds=300, reason="no use")
    [dead] = await bob.bot.dead_letters()
    assert dead.reason == "no use"


async def test_errors_are_told_with_a_way_out(alice: Assistant, bob: Assistant) -> None:
    assert "nobody" in await alice.fault("send_message", to="nobody", body=1)
    assert "exactly one" in await alice.fault("read_history")
    assert "receive_messages" in await alice.fault("settle_message", seq=7)
    assert "timeout_seconds" in await alice.fault("ask_bot", to="bob", body=1, timeout_seconds=-1)
    assert "waiting" in await alice.fault("answer_approval", run_id="r", step="s", approved=True)
    assert "id" in await alice.fault("send_message", to="bob", body=1, id="not a uuid")


async def test_approvals_are_listed_and_answered(alice: Assistant, own_worker: Worker) -> None:
    definition = bus.WorkflowDefinition(id="trip", name="trip", owner=bus.GlobalOwner())
    outcome: list[Any] = []

    async def plan(planner: bus.Bot) -> None:
        async with planner.workflows.run("trip", id="trip-1", definition=definition) as run:
            outcome.append(await run.approval("agree", {"city": "Lisbon"}))

    async with own_worker.connect(bot="planner") as planner, anyio.create_task_group() as tasks:
        tasks.start_soon(plan, planner)
        found: list[Any] = []
        with anyio.fail_after(BOUND_SECONDS):
            while not found:
                found = (await alice.call("list_approvals"))["approvals"]
                await anyio.sleep(0.01)
        [approval] = found
        assert approval["run_id"] == "trip-1"
        assert "Lisbon" in str(approval["question"])
        answered = await alice.call(
            "answer_approval", run_id="trip-1", step=approval["step"], approved=True, comment="enjoy"
        )
        assert answered == {"run_id": "trip-1", "step": "agree", "status": "completed"}
    assert outcome[0]["by"] == "alice"
    assert (await alice.call("list_approvals"))["approvals"] == []


async def test_a_subscription_that_is_removed_is_told_with_the_way_out(
    own_worker: Worker, alice: Assistant
) -> None:
    await alice.call("subscribe", channel="news")
    async with own_worker.connect(bot="operator") as operator:
        await operator.remove_channel("news", force=True)
        told = await alice.fault("receive_messages", wait_seconds=BOUND_SECONDS)
        assert "the subscription to 'news' was removed" in told
        assert "subscribe again" in told
        await alice.call("subscribe", channel="news")
        await operator.publish("news", "again")
    found = await alice.call("receive_messages", wait_seconds=BOUND_SECONDS)
    assert [message["body"] for message in found["messages"]] == ["again"]
