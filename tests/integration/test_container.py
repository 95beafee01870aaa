"""The container: what its image runs, with the image's environment, is a worker that its health check finds."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from .wire import TIMEOUT_SECONDS
from .wire_worker import REPOSITORY, free_endpoints

DOCKERFILE = REPOSITORY / "config" / "container" / "Dockerfile"


def instructions(name: str) -> list[str]:
    """Return the arguments of the instructions of a kind, those of the last stage last."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.*)$", text, re.MULTILINE)


def program(*arguments: str) -> list[str]:
    """Return how the installed command is run here."""
    assert arguments[0] == "posthouse"
    return [sys.executable, "-m", "bus", *arguments[1:]]


def test_the_image_serves_with_keys_and_its_check_finds_it(tmp_path: Path) -> None:
    ours = dict(assignment.split("=", 1) for assignment in instructions("ENV"))
    del ours["PATH"]
    assert ours["POSTHOUSE_LISTEN_COMMAND"] == "tcp://0.0.0.0:7710"
    for name, address in zip(("COMMAND", "TAP"), free_endpoints(2), strict=True):
        ours[f"POSTHOUSE_LISTEN_{name}"] = (
            f"tcp://127.0.0.1:{address.rpartition(':')[2]}"  # the test's are not the image's
        )
    environment = {name: text for name, text in os.environ.items() if not name.startswith("POSTHOUSE_")} | ours
    serve = program(*json.loads(instructions("ENTRYPOINT")[-1]), *json.loads(instructions("CMD")[-1]))
    check = program(*json.loads(instructions("HEALTHCHECK")[-1].partition("CMD ")[2]))
    with subprocess.Popen(serve, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as worker:
        try:
            deadline = time.monotonic() + TIMEOUT_SECONDS
            while subprocess.run(check, cwd=tmp_path, env=environment, capture_output=True, check=False).returncode:
                assert worker.poll() is None
                assert time.monotonic() < deadline
            assert (tmp_path / "posthouse.db").exists(), "everything is in the volume"
        finally:
            worker.send_signal(getattr(signal, instructions("STOPSIGNAL")[-1]))
        assert worker.wait(TIMEOUT_SECONDS) == 0


def test_the_image_is_made_of_what_a_wheel_needs() -> None:
    kept = {
        line.removeprefix("!")
        for line in (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    assert kept == {"bus", "config", "store", "worker.py", "pyproject.toml", "README.md", "LICENSE"}
    assert all((REPOSITORY / each).exists() for each in kept)


def test_the_image_does_not_run_as_root() -> None:
    [user] = instructions("USER")
    [made] = [shlex.split(run) for run in instructions("RUN") if run.startswith("useradd")]
    assert (user, made[-1]) == ("posthouse", "posthouse")
    assert instructions("VOLUME") == instructions("WORKDIR") == [made[made.index("--home-dir") + 1]]
