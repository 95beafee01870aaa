"""Runs with signals and children, or that clean up, whose bot or worker is killed: all of it happens once."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.model.records import WorkflowRun

from .flow_program import FLOW, PART
from .forked_worker import forked_worker
from .test_run_kills import CONFIGURATION, LONG, SHORT, Case, kill_bot, kill_worker
from .wire import Session
from .wire_program import ForkedProgram, Program
from .wire_worker import Worker

SIGNAL_POINTS = ["sending take go", "answered take go", "sending take go or stop", "answered take go or stop"]
CHILD_POINTS = ["before side", "sending child side", "answered child side", "sending side"]
COMMIT_POINTS = ["sending book", "answered book", "before end", "sending end", "answered end", "left"]
CALL_POINTS = ["sending child part", "answered child part", "sending begin part", "sending part", "answered part"]
POINTS = [*SIGNAL_POINTS, *CHILD_POINTS, *COMMIT_POINTS, *CALL_POINTS]

WORKER_POINTS = [
    "sending take go",
    "answered take go",
    "sending child side",
    "sending book",
    "answered book",
    "answered child part",
    "sending part",
]
"""One of each kind: where what is sent may be carried out or not."""


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with forked_worker(tmp_path_factory.mktemp("kills"), CONFIGURATION) as running:
        yield running


class Flow(Case):
    """A run of the program with three signals for it, and a run that it tells something."""

    def __init__(self, worker: Worker, name: str, directory: Path) -> None:
        super().__init__(worker, name, directory)
        self._with(self._prepare)

    def _prepare(self, session: Session) -> None:
        for definition in (FLOW, PART):
            self._call(session, "save_definition", definition=msgspec.to_builtins(definition))
        for id in (self.id, f"{self.id}-box"):
            run = WorkflowRun(id=id, workflow_id="flow", workflow_name="flow", trigger_type="manual", started_at="")
            self._call(session, "create_run", run=msgspec.to_builtins(run))
        for number in range(3):
            arguments = {"run_id": self.id, "name": "go", "payload": number, "id": f"s{number}"}
            self._call(session, "send_signal", **arguments)

    def program(self, lease_seconds: float, point: str = "") -> Program:
        arguments = [self._worker.command, self.name, str(lease_seconds), point]
        return ForkedProgram("tests.integration.flow_program", arguments, directory=self._directory)

    def check(self) -> None:
        """Check that every signal was taken once, and every child started once."""

        def ask(session: Session) -> None:
            def signals(run_id: str) -> list[Any]:
                return [signal["payload"] for signal in self._call(session, "list_signals", run_id=run_id)]

            run = self._call(session, "get_run", run_id=self.id)
            assert (run["status"], run["result"]) == ("completed", [0, 1, 50])
            assert signals(self.id) == [2]
            assert signals(f"{self.id}-box") == [0]
            steps = self._call(session, "list_step_logs", run_id=self.id)
            completed = Counter(step["step_id"] for step in steps if step["status"] == "completed")
            assert completed == dict.fromkeys(("go", "side", "book", "go or stop", "part", "end"), 1)
            children = self._call(session, "list_runs", workflow_id="part", limit=None)
            mine = {child["id"]: child for child in children if child["parent_run_id"] == self.id}
            assert sorted(mine) == [f"{self.id}/{name}" for name in ("book/booked", "part", "side")]
            assert mine[f"{self.id}/part"]["result"] == 50
            assert len(session.history(channel=f"{self.name}-news")) == 1

        self._with(ask)
        assert self.has_ended()


@pytest.mark.parametrize("point", POINTS)
def test_the_bot_is_killed(process: Worker, name: str, tmp_path: Path, point: str) -> None:
    kill_bot(Flow(process, name, tmp_path), point)


@pytest.mark.parametrize("point", WORKER_POINTS)
def test_the_worker_is_killed(process: Worker, name: str, tmp_path: Path, point: str) -> None:
    kill_worker(process, Flow(process, name, tmp_path), lease_seconds=LONG, point=point)


# ── Cleaning up ──────────────────────────────────────────────────────────────────────────────────────────

CANCEL_POINTS = ["told", "sending begin refund", "sending refund", "answered refund", "before note"]
CANCEL_POINTS += ["sending note", "answered note", "sending end", "answered end"]


class Undo(Case):
    """A run that is cancelled while it waits, and cleans up."""

    def __init__(self, worker: Worker, name: str, directory: Path) -> None:
        super().__init__(worker, name, directory, body="undo")

    def program(self, lease_seconds: float, point: str = "") -> Program:
        arguments = [self._worker.command, self.name, str(lease_seconds), point]
        return ForkedProgram("tests.integration.flow_program", arguments, directory=self._directory)

    def cancel(self) -> None:
        """Cancel the run once it waits."""
        self.wait_until(lambda: self.status() == "paused")
        self._with(lambda session: self._call(session, "cancel_run", run_id=self.id, reason="too late"))

    def has_ended(self) -> bool:
        return self.status() == "cancelled too late"

    def check(self) -> None:
        """Check that it was charged, refunded and noted once."""

        def ask(session: Session) -> None:
            steps = self._call(session, "list_step_logs", run_id=self.id)
            completed = Counter(step["step_id"] for step in steps if step["status"] == "completed")
            assert completed == dict.fromkeys(("charge", "refund", "note"), 1)
            assert {step["status"] for step in steps} <= {"completed", "failed"}
            assert len(session.history(channel=f"{self.name}-news")) == 1

        self._with(ask)
        self.wait_until(lambda: self.fate() == "dead")


@pytest.mark.parametrize("point", CANCEL_POINTS)
def test_the_bot_is_killed_while_it_cleans_up(process: Worker, name: str, tmp_path: Path, point: str) -> None:
    case = Undo(process, name, tmp_path)
    with case.program(SHORT, point) as bot:
        case.cancel()
        assert bot.line() == point
        bot.signal(signal.SIGKILL)
        assert bot.exit_code() == -signal.SIGKILL
    with case.program(SHORT):
        case.wait_until(case.has_ended)
        case.check()


@pytest.mark.parametrize("point", CANCEL_POINTS[::2])
def test_the_worker_is_killed_while_a_bot_cleans_up(process: Worker, name: str, tmp_path: Path, point: str) -> None:
    case = Undo(process, name, tmp_path)
    with case.program(LONG, point) as bot:
        case.cancel()
        assert bot.line() == point
        process.kill()
        process.start()
        bot.tell("lose" if point.startswith("answered") else "go")
        case.wait_until(case.has_ended)
        case.check()
