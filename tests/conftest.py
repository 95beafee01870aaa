"""What holds for all tests: a slow machine fails none of them, and few of them wait for its disk."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from . import engines
from .engines import (
    engine_name,
    pytest_generate_tests,
    shared_store_url,
    store_url,
    without_repetitions,
)
from .postgresql.cluster import make_models, missing
from .postgresql.fixtures import postgresql_databases, postgresql_node, postgresql_quorum, postgresql_url
from .side_by_side import run_side_by_side

__all__ = [
    "engine_name",
    "postgresql_databases",
    "postgresql_node",
    "postgresql_quorum",
    "postgresql_url",
    "pytest_generate_tests",
    "shared_store_url",
    "store_url",
]

settings.register_profile(
    "slow machine",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("slow machine")

# A shell ignores Ctrl-C in its background jobs, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Every test of a worker or a store makes a database, and a sync takes up to a hundredth of a second where others
# write, too. In memory it takes nothing; what is killed under load, or cut off from its power, lies on a disk
# (tests/crash).
_MEMORY = "/dev/shm"
_MEMORY_BYTES_MIN = 1024**3


def _has_room(folder: str) -> bool:
    return os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= _MEMORY_BYTES_MIN


if "TMPDIR" not in os.environ and _has_room(_MEMORY):
    tempfile.tempdir = os.environ["TMPDIR"] = _MEMORY

_FOLDERS = (
    "crash",
    "cli",
    "bench",
    "web",
    "integrations",
    "clients",
    "integration",
    "client",
    "contract",
    "postgresql",
    "store",
    "pure",
    "fuzz",
    "house",
)
"""What takes longest begins first: at the end, all who work side by side have something short to do."""


_TESTS = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    engines.pytest_addoption(parser)
    parser.addoption("--jobs", type=int, default=0, help="run tests in so many processes; 0: in this one")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among thousands of tests, neither while they are collected nor afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests by their folders."""
    items[:] = without_repetitions(items)
    places = {folder: place for place, folder in enumerate(_FOLDERS)}
    items.sort(key=lambda item: places.get(item.path.relative_to(_TESTS).parts[0], -1))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests side by side, if there is to be more than one process."""
    jobs = session.config.getoption("jobs")
    if not jobs or session.config.option.collectonly or session.testsfailed:
        return None
    wanted = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "postgresql_node" in wanted and missing() is None:
        make_models()
    run_side_by_side(session, jobs)
    return True
