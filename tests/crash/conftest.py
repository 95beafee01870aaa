"""Where the files lie of workers that are killed: on a disk, whose syncs take their time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_DISK = "/var/tmp"


@pytest.fixture(autouse=True)
def _on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.access(_DISK, os.W_OK):
        monkeypatch.setattr(tempfile, "tempdir", _DISK)
        monkeypatch.setenv("TMPDIR", _DISK)


@pytest.fixture
def tmp_path(_on_disk: None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
