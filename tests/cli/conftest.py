"""The command line as people use it: processes, with a worker that is a process of its own. Every wait ends."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse


@pytest.fixture(scope="module")
def posthouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posthouse]:
    """The commands, with a running worker. It is shared by a module's tests, so each uses bots of its own."""
    database = tmp_path_factory.mktemp("worker") / "posthouse.db"
    command, tap = free_addresses()
    arguments = ["--bind", command, "--tap", tap, "--database", str(database)]
    with database.with_name("worker.log").open("wb") as log:
        worker = subprocess.Popen([*COMMAND, "serve", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        found = Posthouse(command, database, tap)
        found.answer("status", "--timeout", str(TIMEOUT_SECONDS))
        yield found
    finally:
        worker.terminate()
        worker.wait(TIMEOUT_SECONDS)


def free_addresses() -> list[str]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in sockets]
