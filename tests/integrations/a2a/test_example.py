"""The traveller of examples/: the death of planner and endpoint is a pause for it, and people approve its trip."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from ...cli.terminal import Posthouse, Running
from ...crash.nursery import ForkedWorker
from ..extras import needs

needs("a2a.server.routes")

BOUND_SECONDS = 90


@pytest.fixture
def posthouse(impatient: ForkedWorker) -> Posthouse:
    posthouse = Posthouse(impatient.command)
    posthouse.environment["PYTHONUNBUFFERED"] = "1"
    return posthouse


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
        posthouse.environment["AGENT_URL"] = url
        first = stack.enter_context(posthouse.example("traveller.py", "Lisbon", str(token_file)))
        asked = until(first, "working {")
        assert "'approval': 'agree'" in asked
        first.kill()
        planner.kill()
        serving.kill()
        [approval] = posthouse.json("approvals", "--as", "ann")
        posthouse.answer("approve", approval["run_id"], "agree", "--as", "ann")
        endpoint(url.rsplit(":", 1)[1].strip("/"))
        second = stack.enter_context(posthouse.example("traveller.py", "Lisbon", str(token_file)))
        stack.enter_context(posthouse.example("planner.py", LEASE_SECONDS="1"))
        assert "hotel of" in until(second, "completed")
        assert second.exit_code() == 0
