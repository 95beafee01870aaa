"""A client's own account of what its worker may have thought of it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import zmq

from . import link
from .link import Link
from .load import CONFIGURATION
from .nursery import ForkedWorker, shared_nursery
from .recorder import Recorder, read_history


@pytest.mark.parametrize(("silent_seconds", "vanished"), [(0.0, 1), (60.0, 0)])
def test_a_client_may_have_vanished_before_its_worker_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_seconds: float, vanished: int
) -> None:
    monkeypatch.setattr(link, "_SILENT_SECONDS", silent_seconds)
    path = tmp_path / "history.jsonl"
    with (
        closing(ForkedWorker(tmp_path, CONFIGURATION, shared_nursery())) as worker,
        zmq.Context() as context,
        Recorder(path) as recorder,
    ):
        worker.start()
        client = Link(context, [worker.command], recorder, "bob")
        client.open(1)
        client.close()
        recorder.mark("killed")
        client.forget()
    assert sum(getattr(event, "what", None) == "vanished" for event in read_history(path)) == vanished
