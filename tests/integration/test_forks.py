"""A forked process: a bot made before the fork connects there, and one connected before says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..engines import sqlite_only
from .wire_worker import Worker

pytestmark = sqlite_only("a fork is a matter of the client")

ROOT = Path(__file__).parents[2]

CONNECT_HERE = "create and connect a bot here"


def lines(url: str, case: str) -> list[str]:
    command = [sys.executable, "-m", "tests.integration.fork_program", url, case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("case", ["at import", "trio"])
def test_a_bot_made_at_import_connects_in_a_forked_process(worker: Worker, case: str) -> None:
    assert lines(worker.command, case) == ["module stored"]


def test_a_bot_made_at_import_serves_in_a_forked_process(worker: Worker) -> None:
    assert lines(worker.command, "served") == ["handled hello", "None"]


def test_a_connected_bot_says_what_to_do_in_a_forked_process(worker: Worker) -> None:
    *refused, seq = lines(worker.command, "connected")
    assert [CONNECT_HERE in line for line in refused] == [True, True], refused
    assert seq == "1", "the parent's bot goes on"


def test_a_call_from_elsewhere_is_refused_in_a_program_without_trio(worker: Worker) -> None:
    """There the place of a call is found in another way, without a system call."""
    beside, first, later, second, trio = lines(worker.command, "elsewhere")
    assert "outside of it" in beside
    assert "outside of it" in later
    assert (first, second, trio) == ("1", "2", "False")


def test_a_context_of_the_parent_is_refused_in_a_forked_process(worker: Worker) -> None:
    [refused] = lines(worker.command, "context")
    assert "with a context of this process" in refused


def test_a_worker_of_a_test_is_refused_in_a_forked_process(tmp_path: Path) -> None:
    *refused, stored = lines(str(tmp_path / "test.db"), "testing")
    assert ["cannot be reached from another one" in line for line in refused] == [True, True], refused
    assert stored == "a stored"
