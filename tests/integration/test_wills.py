"""Bots that are killed: what they left is sent, once, also if the worker is killed with them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from .wire import TIMEOUT_SECONDS, Message, Session
from .wire_worker import Worker

CONFIGURATION = """
[delivery]
session_timeout_seconds = 3.0
heartbeat_seconds = 1.0
"""

PROGRAM = """
import sys, anyio, bus

async def main():
    async with bus.connect(sys.argv[1], bot="ann") as bot:
        await bot.will(bus.Draft(channel="deaths", body="gone"), delay=0.5)
        print("left", flush=True)
        if sys.argv[2] == "stay":
            await anyio.sleep_forever()

anyio.run(main)
"""


def bot(worker: Worker, how: str = "stay") -> subprocess.Popen[str]:
    """Start a bot that leaves a will, and wait until it has."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, worker.command, how], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "left\n"
    return process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def listener(worker: Worker) -> Session:
    eve = worker.session("eve", max_in_flight=10)
    eve.subscribe("deaths")
    return eve


def take_one(eve: Session) -> Message:
    """Wait for a message, and ping meanwhile: a will comes about when a silent session ends."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not (found := eve.waiting_deliveries()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.1)
    [message] = found
    return message


def test_a_bot_is_killed(tmp_path: Path) -> None:
    with Worker(tmp_path, CONFIGURATION) as worker:
        listener(worker)
        process = bot(worker, "leave")
        assert process.wait(timeout=60) == 0, "it said goodbye"
        kill(process)
        kill(bot(worker))
        eve = listener(worker)  # whose earlier session may have been silent for too long meanwhile
        message = take_one(eve)
        assert (message["sender_bot_name"], message["body"]) == ("ann", "gone")
        history = eve.history(channel="deaths")
        assert len(history) == 1, "the goodbye left nothing"


def test_the_worker_and_its_bot_are_killed(tmp_path: Path) -> None:
    with Worker(tmp_path, CONFIGURATION) as worker:
        listener(worker)
        process = bot(worker)
        worker.kill()
        kill(process)
        worker.start()
        eve = listener(worker)
        message = take_one(eve)
        assert (message["sender_bot_name"], message["body"]) == ("ann", "gone")
        eve.settle("ack", message["seq"])
        worker.kill()
        worker.start()
        kill(bot(worker))
        eve = listener(worker)
        take_one(eve)
        assert len(eve.history(channel="deaths")) == 2, "each was sent once"
