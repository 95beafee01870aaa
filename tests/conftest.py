"""What holds for all tests: a slow machine fails none of them, and few of them wait for its disk."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from .engines import (
    engine_name,
    pytest_addoption,
    pytest_generate_tests,
    shared_store_url,
    store_url,
    without_repetitions,
)
from .postgresql.fixtures import postgresql_databases, postgresql_node, postgresql_quorum, postgresql_url

__all__ = [
    "engine_name",
    "postgresql_databases",
    "postgresql_node",
    "postgresql_quorum",
    "postgresql_url",
    "pytest_addoption",
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


class _ByFiles(LoadFileScheduling):  # type: ignore[misc]
    """Keeps the tests of a file together for what they share, but for crash tests, which share nothing."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith("tests/crash/") else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Distribute the tests among the processes that run side by side."""
    return _ByFiles(config, log) if config.getvalue("dist") == "loadfile" else None
