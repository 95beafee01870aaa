"""The traveller of examples/: the death of planner and endpoint is a pause for it, and people approve its trip."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ...cli.terminal import EXAMPLES, Posthouse, Running
from ...integration.forked_worker import forked_worker
from ..extras import needs

needs("a2a.server.routes")

BOUND_SECONDS = 90

IMPATIENT = """
[delivery]
heartbeat_seconds = 0.4
session_timeout_seconds = 2.0
"""


@pytest.fixture
def posthouse(tmp_path: Path) -> Iterator[Posthouse]:
    with forked_worker(tmp_path, IMPATIENT) as worker:
        posthouse = Posthouse(worker.command)
        posthouse.environment["PYTHONUNBUFFERED"] = "1"
        yield posthouse


def until(program: Running, beginning: str) -> str:
    while not (line := program.line(BOUND_SECONDS)).startswith(beginning):
        pass
    return line


def test_a_trip_goes_on_for_its_traveller(posthouse: Posthouse, tmp_path: Path) -> None:
    token_file = tmp_path / "planner.token"

    def endpoint(port: str) -> tuple[Running, str]:
        arguments = ["a2a", "planner", "--as", "a2a-planner", "--type", "trip", "--json", "--port", port]
        serving = stack.enter_context(posthouse.start(*arguments, "--token-file", token_file))
        return serving, json.loads(serving.line(BOUND_SECONDS))["url"]

    with ExitStack() as stack:
        stack.enter_context(posthouse.example("agency.py"))
        planner = stack.enter_context(posthouse.example("planner.py", LEASE_SECONDS="1"))
        posthouse.answer("bots", "--as", "planner")
        serving, url = endpoint("0")
        environment = {**posthouse.environment, "AGENT_URL": url}
        command = [sys.executable, str(EXAMPLES / "traveller.py"), "Lisbon", str(token_file)]
        first = stack.enter_context(Running(command, environment))
        asked = until(first, "working {")
        assert "'approval': 'agree'" in asked
        first.kill()
        planner.kill()
        serving.kill()
        [approval] = posthouse.json("approvals", "--as", "ann")
        posthouse.answer("approve", approval["run_id"], "agree", "--as", "ann")
        endpoint(url.rsplit(":", 1)[1].strip("/"))
        second = stack.enter_context(Running(command, environment))
        stack.enter_context(posthouse.example("planner.py", LEASE_SECONDS="1"))
        assert "hotel of" in until(second, "completed")
        assert second.exit_code() == 0
