"""A bot that is a program: `bot.run()` in a process of its own, and the signals that end it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .terminal import TIMEOUT_SECONDS, Posthouse

PROGRAM = """
import sys

import anyio
import anyio.to_thread

import bus

url, name, backend = sys.argv[1:]
bot = bus.Bot(name, url)


@bot.on_message("slow")
async def slow(message):
    print("began", flush=True)
    try:
        if message.body:
            await anyio.sleep(message.body)
        else:
            await anyio.to_thread.run_sync(sys.stdin.readline)
    except BaseException:
        print("cancelled", flush=True)
        raise
    print("finished", flush=True)


@bot.on_message("ready")
async def ready(message):
    print("ready", flush=True)


bot.run(backend=backend, concurrency=3, stop_timeout=20)
print("over", flush=True)
"""


@contextmanager
def program(posthouse: Posthouse, name: str, backend: str) -> Iterator[subprocess.Popen[str]]:
    posthouse.answer("status", "--as", name)  # from now on it is known, and has a mailbox
    posthouse.answer("send", name, "0", "--type", "ready", "--as", "runner")
    command = [sys.executable, "-c", PROGRAM, posthouse.url, name, backend]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT_SECONDS)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_it_finish(posthouse: Posthouse, backend: str, number: signal.Signals) -> None:
    name = f"{backend}-{number.name}"
    with program(posthouse, name, backend) as process:
        assert process.stdout is not None
        posthouse.answer("send", name, "0", "--type", "slow", "--as", "runner")
        assert process.stdout.readline() == "began\n"
        process.send_signal(number)
        output, errors = process.communicate("go on\n", timeout=TIMEOUT_SECONDS)
        assert (output, errors, process.returncode) == ("finished\nover\n", "", 0)
    [entry] = [bot for bot in posthouse.json("bots") if bot["name"] == name]
    assert (entry["online"], entry["backlog"]) == (False, 0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_second_signal_does_not_wait(posthouse: Posthouse, backend: str) -> None:
    name = f"{backend}-twice"
    with program(posthouse, name, backend) as process:
        assert process.stdout is not None
        posthouse.answer("send", name, "1000", "--type", "slow", "--as", "runner")
        assert process.stdout.readline() == "began\n"
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        assert (output, errors, process.returncode) == ("cancelled\nover\n", "", 0)
    [entry] = [bot for bot in posthouse.json("bots") if bot["name"] == name]
    assert (entry["online"], entry["backlog"]) == (False, 1)


def test_no_worker_is_an_error_as_it_is(posthouse: Posthouse) -> None:
    program = "import bus; bus.Bot('nobody', 'tcp://127.0.0.1:1', wait=0.2).run()"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("bus.errors.WorkerUnavailable: no worker answers")
    assert "Exception Group" not in ended.stderr
