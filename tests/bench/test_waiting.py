"""The benchmark of runs that wait: a very short run of it. Nothing here looks at how long anything took."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 100.0
"""The longest that a run may take: it is a few seconds, and an end is needed all the same."""


@pytest.mark.parametrize("wait", ["approval", "sleep"])
def test_it_completes(wait: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench.waiting", "--runs", "5", "--rest", "0.2", "--wait", wait],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for figure in (f"5 runs wait for {wait}", "memory of the bot", "processor time of the worker", "beside them"):
        assert figure in ended.stdout
    assert ("answered by messages, and completed" in ended.stdout) == (wait == "approval")
