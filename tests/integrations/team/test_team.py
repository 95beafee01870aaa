"""The team of examples/: agents and the worker are killed, a person is asked, and nothing is done twice."""

from __future__ import annotations

import anyio
import pytest

import bus

from ...cli.terminal import COMMAND, EXAMPLES, Posthouse, Running
from ...crash.nursery import ForkedWorker
from ..extras import needs

needs("langgraph.graph", "pydantic_ai")

BOUND_SECONDS = 90

TEXT = "moths: where they live, as found; moths: what they eat, as found. (in one sentence)"


class Team:
    """The worker, the agents in terminals of their own, and ada, who asks them for reports."""

    def __init__(self, worker: ForkedWorker) -> None:
        self.worker = worker
        self.posthouse = Posthouse(worker.command)

    def agent(self, name: str, *, pause_seconds: float = 0) -> Running:
        options = {"PAUSE_SECONDS": str(pause_seconds), "LEASE_SECONDS": "2"}
        environment = self.posthouse.environment | options
        return Running([*COMMAND, "bot", name, "--log-level", "error"], environment, EXAMPLES / "team")

    def ask(self, topic: str) -> str:
        """Ask for a report, and return the id of its run."""

        async def ask() -> str:
            async with bus.connect(self.worker.command, bot="ada") as ada:
                with anyio.fail_after(BOUND_SECONDS):
                    while not {"planner", "researcher", "writer"} <= {each.name for each in await ada.bots()}:
                        await anyio.sleep(0.05)
                return (await ada.send("planner", {"topic": topic}, message_type="report")).id

        return anyio.run(ask)

    def until_it_looks_up(self) -> None:
        async def wait() -> None:
            async with bus.connect(self.worker.command, bot="watcher", max_in_flight=0) as bot:
                with anyio.fail_after(BOUND_SECONDS):
                    async for _ in bot.kv("researcher.threads").watch("c/"):
                        return

        anyio.run(wait)

    def approve(self, run: str, *options: str) -> None:
        async def wait() -> None:
            async with bus.connect(self.worker.command, bot="watcher", max_in_flight=0) as bot:
                with anyio.fail_after(BOUND_SECONDS):
                    while not await bot.workflows.list_waiting_approvals(run):
                        await anyio.sleep(0.05)

        anyio.run(wait)
        self.posthouse.answer("approve", run, *options, "--as", "ada")

    def published(self) -> list[str]:
        return [each["body"]["text"] for each in self.posthouse.json("history", "--channel", "reports")]

    def reply(self) -> str:
        """Return the body of the next reply to ada."""

        async def receive() -> str:
            async with (
                bus.connect(self.worker.command, bot="ada") as ada,
                await ada.receive(timeout=BOUND_SECONDS) as message,
            ):
                return str(message.body)

        return anyio.run(receive)


@pytest.fixture
def team(impatient: ForkedWorker) -> Team:
    return Team(impatient)


def until(agent: Running, beginning: str) -> str:
    while not (line := agent.line(BOUND_SECONDS)).startswith(beginning):
        pass
    return line


def test_a_team_reports_once_whoever_is_killed(team: Team) -> None:
    with team.agent("writer") as writer:
        with team.agent("planner") as planner:
            with team.agent("researcher", pause_seconds=BOUND_SECONDS) as researcher:
                first = team.ask("moths")
                until(planner, "planned: where they live, what they eat")
                team.until_it_looks_up()
                researcher.kill()
            team.worker.kill()
            team.worker.start()
            researcher = team.agent("researcher")
            with researcher:
                looked_up = sorted(researcher.line(BOUND_SECONDS) for _ in range(2))
                assert looked_up == ["looked up what they eat", "looked up where they live"]
                until(planner, "the researcher has found 2 notes")
                planner.kill()
                with team.agent("planner") as second:
                    team.approve(first, "--comment", "in one sentence")
                    until(second, "ada agreed, and wishes: in one sentence")
                    assert until(second, "published") == f"published: {TEXT}"
                    assert team.reply() == TEXT
                    # What they remember: the wish, the notes, and what was published.
                    team.approve(team.ask("moths"))
                    assert until(second, "published") == f"published: {TEXT} After moths."
                assert researcher.lines_now() == []
        asked = [writer.line(BOUND_SECONDS) for _ in range(4)]
        assert asked == ["the model asks what was written before", "the model writes"] * 2
    assert team.published() == [TEXT, f"{TEXT} After moths."]
