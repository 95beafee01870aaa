"""A worker process whose engine is PostgreSQL: it talks, survives kills and restarts, and says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import bus
from bus.worker_key import open_worker_key

from ..postgresql.cluster import single
from .forked_worker import forked_worker
from .refusals import IO_ERROR, WRONG_CONFIGURATION, at, refuse_forked
from .test_flow_kills import Flow
from .test_run_kills import CONFIGURATION, LONG, Case, kill_bot, kill_worker
from .wire import TIMEOUT_SECONDS, bodies, to_bot, to_channel
from .wire_worker import REPOSITORY, Worker, free_endpoints

pytestmark = pytest.mark.anyio

SECRET = "s3cret"


@pytest.fixture
def process(tmp_path: Path, postgresql_url: str) -> Iterator[Worker]:
    with forked_worker(tmp_path, CONFIGURATION, postgresql_url) as running:
        yield running


async def test_bots_talk(process: Worker) -> None:
    async with bus.connect(process.command, bot="ann") as ann, bus.connect(process.command, bot="bob") as bob:
        sent = await ann.send("bob", {"n": 1})
        message = await bob.receive()
        await message.reply("thanks")
        await message.ack()
        answer = await ann.receive()
        assert (sent.seq, message.body, answer.body) == (1, {"n": 1}, "thanks")
        status = await ann.status()
    assert status.last_seq == 2
    assert set(status.sizes) == {"messages", "scheduled", "kv_keys", "database_bytes"}
    assert status.versions["postgresql"].startswith("1")


def test_a_killed_worker_comes_back_with_everything(process: Worker) -> None:
    session = process.session("bot")
    session.publish(to_channel("news", "one"), to_bot("bot", "two"))
    process.kill()
    process.start()
    again = process.session("bot")
    assert bodies(again.history(channel="news")) == ["one"]
    again.publish(to_channel("news", "three"))
    process.stop()
    process.start()
    assert bodies(process.session("bot").history(channel="news")) == ["three", "one"]


@pytest.mark.parametrize("point", ["in split", "answered ask", "sending announce"])
def test_a_run_goes_on_after_its_worker_was_killed(process: Worker, name: str, tmp_path: Path, point: str) -> None:
    kill_worker(process, Case(process, name, tmp_path), lease_seconds=LONG, point=point)


def test_a_run_goes_on_after_its_bot_was_killed(
    process: Worker, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    kill_bot(Flow(process, name, tmp_path), "answered book")


def test_a_server_that_restarts_is_a_pause(tmp_path: Path) -> None:
    """Killed with a power cut's suddenness, and stopped in order."""
    with single() as node, forked_worker(tmp_path, store_url=node.url()) as process:
        session = process.session("bot")
        for number, end in enumerate((node.kill, node.stop)):
            session.publish(to_channel("news", f"before {number}"))
            end()
            node.start()
            session.publish(to_channel("news", f"after {number}"))
        assert bodies(session.history(channel="news")) == ["after 1", "before 1", "after 0", "before 0"]
        process.stop()


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("engine", "code", "words"),
    [
        (
            f"postgresql://u:{SECRET}@127.0.0.1:1/house",
            IO_ERROR,
            "postgresql://u@127.0.0.1:1/house cannot be reached",
        ),
        (f"postgresql://u:{SECRET}/x@127.0.0.1/house", WRONG_CONFIGURATION, "store.engine: it is not a URL"),
        (f"mysql://u:{SECRET}@127.0.0.1/house", WRONG_CONFIGURATION, "store.engine is not a URL of PostgreSQL"),
    ],
)
def test_a_wrong_engine_is_one_line(tmp_path: Path, engine: str, code: int, words: str) -> None:
    refusal = refuse_forked(tmp_path, "--engine", engine, *at(free_endpoints(2)))
    assert refusal.code == code
    assert words in refusal.line
    assert SECRET not in "".join(refusal.errors)


def test_a_wrong_password_and_a_missing_database_are_one_line_each(tmp_path: Path) -> None:
    with single() as node:
        refusal = refuse_forked(tmp_path, "--engine", node.url("none"), *at(free_endpoints(2)))
        assert (refusal.code, "create it" in refusal.line) == (WRONG_CONFIGURATION, True)
        node.query(f"CREATE ROLE house LOGIN PASSWORD '{SECRET}'")
        node.ask_for_passwords("house")
        right = f"postgresql://house:{SECRET}@127.0.0.1:{node.port}/postgres"
        refusal = refuse_forked(tmp_path, "--engine", right.replace(SECRET, "wrong-one"), *at(free_endpoints(2)))
        assert (refusal.code, "check the user, the password" in refusal.line) == (WRONG_CONFIGURATION, True)
        assert "wrong-one" not in refusal.line
        node.query("CREATE SCHEMA posthouse AUTHORIZATION house")
        with forked_worker(tmp_path, store_url=right) as process:
            process.stop()
            assert SECRET not in process.log_tail()


def test_a_server_that_may_lose_what_was_acknowledged_is_refused(tmp_path: Path) -> None:
    with single() as node:
        node.configure("fsync = off")
        node.stop()
        node.start()
        refusal = refuse_forked(tmp_path, "--engine", node.url(), *at(free_endpoints(2)))
    assert refusal.code == WRONG_CONFIGURATION
    assert "fsync is off" in refusal.line


def test_without_the_driver_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    hiding = "import sys; sys.modules['asyncpg'] = None; "
    command = [
        sys.executable,
        "-c",
        f"{hiding}import worker; worker.main()",
        "serve",
        "--engine",
        "postgresql:///x",
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == WRONG_CONFIGURATION
    assert ended.stderr == "posthouse: PostgreSQL needs asyncpg: pip install 'posthouse[postgresql]'\n"


# ── Keys ─────────────────────────────────────────────────────────────────────────────────────────────────

_KEYS = '[security]\nmode = "keys"\n'


def serve_once(directory: Path, url: str) -> None:
    """Serve with keys, and stop."""
    with ExitStack() as stack:
        process = forked_worker(directory, _KEYS, url)
        stack.callback(process.close)
        process.launch()
        log = directory / "worker.log"
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (log.exists() and '"serving"' in log.read_text(encoding="utf-8")):
            assert not process.has_ended(), process.log_tail()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.stop()


def test_workers_of_one_house_have_one_key(tmp_path: Path, postgresql_url: str) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    serve_once(first, postgresql_url)
    assert {"posthouse-key", "posthouse-admin.creds"} <= {path.name for path in first.iterdir()}
    config = second / "posthouse.toml"
    config.write_text(_KEYS, encoding="utf-8")
    options = ["--config", str(config), "--engine", postgresql_url, *at(free_endpoints(2))]
    for _ in ("without one", "with another one"):
        refusal = refuse_forked(second, *options)
        assert refusal.code == WRONG_CONFIGURATION
        assert "copy the file of another worker" in refusal.line
        assert not (second / "posthouse-admin.creds").exists()
        open_worker_key(second / "posthouse-key")
    (second / "posthouse-key").write_bytes((first / "posthouse-key").read_bytes())
    serve_once(second, postgresql_url)
