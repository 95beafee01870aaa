"""The command line as people use it: processes, with a worker that is a process of its own. Every wait ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..integration.wire_worker import free_endpoints
from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse

_IMPATIENT = """
[delivery]
heartbeat_seconds = 0.4
session_timeout_seconds = 2.0

[workflows]
sweep_seconds = 0.2
"""


@pytest.fixture(scope="module")
def posthouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posthouse]:
    """The commands, with a running worker. It is shared by a module's tests, so each uses bots of its own."""
    with serving(tmp_path_factory.mktemp("worker")) as found:
        yield found


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posthouse]:
    """The same, with a worker that soon forgets whoever was killed."""
    folder = tmp_path_factory.mktemp("impatient")
    configuration = folder / "posthouse.toml"
    configuration.write_text(_IMPATIENT, encoding="utf-8")
    with serving(folder, "--config", str(configuration)) as found:
        yield found


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Posthouse]:
    database = folder / "posthouse.db"
    command, tap = free_endpoints(2)
    arguments = ["--bind", command, "--tap", tap, "--database", str(database), *options]
    with database.with_name("worker.log").open("wb") as log:
        worker = subprocess.Popen([*COMMAND, "serve", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        found = Posthouse(command, database, tap)
        found.answer("status", "--timeout", str(TIMEOUT_SECONDS))
        yield found
    finally:
        worker.terminate()
        worker.wait(TIMEOUT_SECONDS)
