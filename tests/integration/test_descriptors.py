"""How many files a worker may open: as many as the system lets it, whatever the shell that started it had."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .wire import to_bot
from .wire_worker import Worker

SOFT = 128


@contextmanager
def limits(soft: int, hard: int) -> Iterator[None]:
    """Let a process that is started within the block have these; only root gets its own ones back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_worker_serves_more_bots_than_its_shell_lets_it_open_files(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    worker = Worker(tmp_path)
    with limits(SOFT, hard):
        worker.launch()
    try:
        sessions = [worker.session(f"bot-{number}") for number in range(SOFT + 20)]
        for session in sessions:
            session.publish(to_bot("bot-0", 1))
        assert len(sessions[0].take(len(sessions))) == len(sessions)
        assert "sessions_max" not in worker.log_tail()
    finally:
        worker.close()


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 11_000, reason="the system allows few anyway")
def test_a_worker_that_cannot_serve_all_its_sessions_says_so(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "[limits]\nsessions_max = 1000000000\n")
    worker.launch()
    try:
        worker.session("a").ping()
        assert "limits.sessions_max is 1000000000" in worker.log_tail()
    finally:
        worker.close()
