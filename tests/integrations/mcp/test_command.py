"""`posthouse mcp` as assistants start it, or reach it, with the SDK's client."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from ...cli.terminal import COMMAND, Posthouse, Running
from ...crash.nursery import ForkedWorker
from ..extras import needs

needs("mcp")

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 60


def assistant(process: ForkedWorker, name: str) -> Client:
    arguments = [*COMMAND[1:], "mcp", "--as", name, "--url", process.command, "--timeout", str(BOUND_SECONDS)]
    return Client(StdioServerParameters(command=sys.executable, args=arguments))


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    with anyio.fail_after(BOUND_SECONDS):
        result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def test_two_assistants_talk_through_a_kill_of_the_worker(process: ForkedWorker) -> None:
    async with assistant(process, "alice") as alice, assistant(process, "bob") as bob:
        sent = await call(alice, "send_message", to="bob", body="how many moths?")
        [message] = (await call(bob, "receive_messages", wait_seconds=BOUND_SECONDS))["messages"]
        process.kill()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: call(bob, "settle_message", seq=message["seq"], reply="one"))
            process.start()
        [answer] = (await call(alice, "receive_messages", wait_seconds=BOUND_SECONDS))["messages"]
        assert (answer["body"], answer["reply_to"]) == ("one", sent["id"])
        await call(alice, "settle_message", seq=answer["seq"])
        await call(alice, "send_message", to="alice", body="a note to self")
        [first] = (await call(alice, "receive_messages", wait_seconds=BOUND_SECONDS))["messages"]
    # What was not settled comes to the next process, and nothing else.
    async with assistant(process, "alice") as alice:
        found = await call(alice, "receive_messages", limit=10, wait_seconds=BOUND_SECONDS)
        assert found["messages"] == [first | {"attempt": 2}]


def serving(process: ForkedWorker, token_file: Path) -> Running:
    posthouse = Posthouse(process.command)
    posthouse.environment["PYTHONUNBUFFERED"] = "1"
    return posthouse.start(
        "mcp", "--http", "--port", "0", "--as", "carol", "--token-file", token_file, "--origin", "https://mcp.test"
    )


async def test_over_http_with_a_token(process: ForkedWorker, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    with serving(process, token_file) as server:
        assert server.line() == f"a new token is in {token_file}"
        told = server.line()
        assert told.endswith(", as bot carol")
        url = told.split()[4].rstrip(",")
        headers = {"authorization": f"Bearer {token_file.read_text(encoding='ascii').strip()}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=BOUND_SECONDS) as http,
            Client(streamable_http_client(url, http_client=http)) as carol,
        ):
            process.kill()
            process.start()
            assert (await call(carol, "list_bots"))["you"] == "carol"
        async with httpx2.AsyncClient(timeout=BOUND_SECONDS) as http:
            ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
            for given, status in (
                ({}, 401),
                ({"authorization": "Bearer another"}, 401),
                (headers | {"host": "evil.test"}, 421),
                (headers | {"origin": "https://evil.test"}, 403),
            ):
                answer = await http.post(url, json=ping, headers=given)
                assert answer.status_code == status, answer.text
            known = headers | {"host": "mcp.test", "origin": "https://mcp.test"}
            assert (await http.post(url, json=ping, headers=known)).status_code not in (401, 403, 421)
        server.interrupt()
        assert server.exit_code() == 0, server.errors()
    assert token_file.stat().st_mode & 0o077 == 0
    with serving(process, token_file) as again:
        assert again.line().startswith("posthouse mcp is at "), "the token is still the same"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--http"], "--http needs --token-file"),
        (["--token-file", "x"], "are for --http"),
        (["--http", "--token-file", "x", "--origin", "mcp.test/"], "is not like https://mcp.example.org"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], words: str) -> None:
    ended = Posthouse().run("mcp", "--as", "carol", *arguments)
    assert ended.returncode == 2
    assert words in " ".join(ended.stderr.replace("│", " ").split())


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("x" * 40)
    token_file.chmod(0o644)
    code, line = Posthouse().refusal("mcp", "--http", "--as", "carol", "--token-file", token_file)
    assert code == 78
    assert str(token_file) in line
    token_file.chmod(0o600)
    token_file.write_text("short")
    code, line = Posthouse().refusal("mcp", "--http", "--as", "carol", "--token-file", token_file)
    assert code == 78
    assert "16" in line


def test_without_a_worker_it_ends_with_a_line() -> None:
    code, line = Posthouse().refusal("mcp", "--as", "carol", "--timeout", "0.2")
    assert code == 69
    assert "no worker answers" in line
