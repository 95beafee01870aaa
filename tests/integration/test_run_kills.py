"""A run of five steps whose bot is killed, or whose worker is, at every point: all of it is done once all the same.

The program stands still at the point until the test has done what it does there, so nothing depends on chance. The
worker forgets silent sessions and gives up lost runs soon, so that nothing is waited for long.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .forked_worker import forked_worker
from .run_program import STEPS
from .wire import TIMEOUT_SECONDS, Session, to_bot
from .wire_program import ForkedProgram, Program
from .wire_worker import Worker

CONFIGURATION = """
[delivery]
backoff_seconds = [0.05]
heartbeat_seconds = 0.2
session_timeout_seconds = 0.8

[workflows]
sweep_seconds = 0.1
recoveries_max = 1000
"""

STEP_POINTS = ["received", "before split", "in split", "before ask", "before save", "in save", "before announce"]
COMMIT_POINTS = ["sending ask", "answered ask", "in announce", "sending announce", "answered announce"]
END_POINTS = ["after announce", "answered end"]
POINTS = [*STEP_POINTS, "sending save", "answered save", *COMMIT_POINTS, *END_POINTS]
"""Before and after each step, in its function, and between what is sent and its answer."""

COMPLETING_POINTS = ["in save", "in announce", "sending announce", "answered announce", "after announce", "left"]
"""The same around a last commit that completes the run."""

LAPSED = ["in split", "answered ask", "sending announce", "after announce"]
"""Where a worker is killed, and away for longer than the lease: one point of each kind."""

SHORT, LONG = 1.5, 600.0
"""Leases: one that runs out while a program stands still, and one that outlives the test."""

_GLANCE_SECONDS = 0.02


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with forked_worker(tmp_path_factory.mktemp("kills"), CONFIGURATION) as running:
        yield running


class Case:
    """One message to one bot, the run that it starts, and what becomes of both."""

    def __init__(
        self, worker: Worker, name: str, directory: Path, *, end: str = "block", body: str = "posthouse"
    ) -> None:
        self.name = name
        self._end = end
        self._worker = worker
        self._directory = directory
        self._message = to_bot(name, body)
        self.id = self._message["id"]
        for bot in (name, f"{name}-reader"):
            with Session(worker) as session:
                session.hello(bot, max_in_flight=0)
                session.goodbye()
        self._with(lambda session: session.publish(self._message))

    def program(self, lease_seconds: float, point: str = "") -> Program:
        arguments = [self._worker.command, self.name, str(lease_seconds), point, self._end]
        return ForkedProgram("tests.integration.run_program", arguments, directory=self._directory)

    def _with(self, ask: Callable[[Session], Any], bot: str | None = None) -> Any:
        """Ask in a session of its own: a killed worker knows none, and this one soon forgets silent ones."""
        with Session(self._worker) as session:
            session.hello(bot or f"{self.name}-watcher")
            found = ask(session)
            session.goodbye()
            return found

    def _call(self, session: Session, call: str, **arguments: Any) -> Any:
        return session.value("workflow", call=call, arguments=arguments)

    def status(self) -> str:
        """The run's status."""

        def ask(session: Session) -> str:
            run = self._call(session, "get_run", run_id=self.id)
            return "none" if run is None else f"{run['status']} {run['error'] or ''}".strip()

        return str(self._with(ask))

    def fate(self) -> str:
        """What became of the message."""
        found = self._with(lambda session: session.value("message", id=self.id))
        return str(found["mailboxes"][0]["state"])

    def wait_until(self, done: Callable[[], bool]) -> None:
        """Look again and again, with an end to it."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not done():
            assert time.monotonic() < deadline, f"the run is {self.status()}, its message {self.fate()}"
            time.sleep(_GLANCE_SECONDS)

    def has_ended(self) -> bool:
        """Tell whether the run is completed and the message settled; fails where it went wrong for good."""
        status, fate = self.status(), self.fate()
        assert not status.startswith("failed"), status
        assert fate != "dead", status
        return (status, fate) == ("completed", "settled")

    def check(self) -> None:
        """Check that all of it was done once, and is over."""

        def ask(session: Session) -> None:
            steps = self._call(session, "list_step_logs", run_id=self.id)
            completed = Counter(step["step_id"] for step in steps if step["status"] == "completed")
            assert completed == dict.fromkeys(STEPS, 1)
            words = ["all", "about", "posthouse"]
            asked = session.history(between=[self.name, f"{self.name}-reader"])
            assert [message["body"] for message in asked] == [{"run": self.id, "words": words}]
            news = session.history(channel=f"{self.name}-news")
            assert [message["body"] for message in news] == [{"run": self.id, "saved": 3}]

        self._with(ask)
        again = self._with(lambda session: session.waiting_deliveries(), bot=self.name)
        assert [message["id"] for message in again if message["message_type"] == "message"] == []
        assert self.has_ended()


def kill_bot(case: Case, point: str) -> None:
    """Kill a program at a point, and let another one finish its run."""
    with case.program(SHORT, point) as bot:
        assert bot.line() == point
        bot.signal(signal.SIGKILL)
        assert bot.exit_code() == -signal.SIGKILL
    with case.program(SHORT):
        case.wait_until(case.has_ended)
    case.check()


@pytest.mark.parametrize("point", POINTS)
def test_the_bot_is_killed(process: Worker, name: str, tmp_path: Path, point: str) -> None:
    kill_bot(Case(process, name, tmp_path), point)


@pytest.mark.parametrize("point", COMPLETING_POINTS)
def test_the_bot_is_killed_and_only_its_message_comes_again(
    process: Worker, name: str, tmp_path: Path, point: str
) -> None:
    kill_bot(Case(process, name, tmp_path, end="commit"), point)


def kill_worker(process: Worker, case: Case, *, lease_seconds: float, point: str) -> None:
    """Kill the worker while a program is at a point, start it again, and let the program finish its run."""
    with case.program(lease_seconds, point) as bot:
        assert bot.line() == point
        process.kill()
        process.start()
        if lease_seconds == SHORT:
            case.wait_until(lambda: case.status().startswith("crashed"))
        bot.tell("lose" if point.startswith("answered") else "go")
        case.wait_until(case.has_ended)
    case.check()


@pytest.mark.parametrize("point", COMPLETING_POINTS)
def test_the_worker_is_killed_and_the_commit_completes_the_run(
    process: Worker, name: str, tmp_path: Path, point: str
) -> None:
    kill_worker(process, Case(process, name, tmp_path, end="commit"), lease_seconds=LONG, point=point)


@pytest.mark.parametrize("point", POINTS)
def test_the_worker_is_killed(process: Worker, name: str, tmp_path: Path, point: str) -> None:
    kill_worker(process, Case(process, name, tmp_path), lease_seconds=LONG, point=point)


@pytest.mark.parametrize("point", LAPSED)
def test_the_worker_is_killed_and_the_lease_runs_out(
    process: Worker, name: str, tmp_path: Path, point: str
) -> None:
    kill_worker(process, Case(process, name, tmp_path), lease_seconds=SHORT, point=point)
