"""Tests that run side by side are reported as if they had not, whatever becomes of the processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).parents[2]

_CONFTEST = """
from tests.side_by_side import run_side_by_side

def pytest_runtestloop(session):
    run_side_by_side(session, 2)
    return True
"""

_FIRST = """
import os
import pytest

@pytest.fixture(scope="session")
def lent():
    yield
    raise RuntimeError("not given back")

def test_passes(lent):
    pass

def test_fails():
    os.write(1, b"what it wrote")
    assert 1 == 2
"""

_SECOND = """
import os

def test_passes(tmp_path):
    tmp_path.rmdir()

def test_dies():
    os._exit(7)

def test_comes_after(tmp_path):
    tmp_path.rmdir()
"""


def test_what_fails_and_what_kills_its_process_is_shown_and_the_rest_is_run(tmp_path: Path) -> None:
    for name, text in {"conftest": _CONFTEST, "test_first": _FIRST, "test_second": _SECOND}.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    folder = str(tmp_path)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", folder]
    ended = subprocess.run(
        [*command, folder], cwd=_REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, "2 failed, 3 passed, 1 error" in ended.stdout) == (1, True), ended.stdout
    for text in ("what it wrote", "the process that ran it ended with 7", "not given back"):
        assert text in ended.stdout + ended.stderr
