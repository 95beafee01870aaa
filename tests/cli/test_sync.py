"""A program that is not async: Ctrl-C in a call, a fork, and an end without a goodbye of its own."""

from __future__ import annotations

import sys

import pytest

from .terminal import Posthouse, Running

PROGRAM = """
import os, signal, sys
import bus

signal.signal(signal.SIGINT, signal.default_int_handler)
bot = bus.sync.connect({url!r}, bot="notebook")
try:
    print("connected", flush=True)
    bot.receive()
except KeyboardInterrupt:
    print("interrupted", flush=True)
print("seq", bot.send("notebook", 1).seq > 0, flush=True)
child = os.fork()
if child == 0:
    try:
        bot.status()
    except RuntimeError as error:
        print(error, flush=True)
    sys.exit()
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print("body", bot.receive().body, flush=True)
"""

CONNECTING = """
import signal
import bus.sync  # before it is interrupted: who catches Ctrl-C during an import may end by the signal all the same

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    print("connecting", flush=True)
    bus.sync.connect("tcp://127.0.0.1:9", bot="notebook")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def start(posthouse: Posthouse, code: str) -> Running:
    return Running([sys.executable, "-c", code], posthouse.environment)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_program_is_interrupted_forks_and_ends(posthouse: Posthouse) -> None:
    with start(posthouse, PROGRAM.format(url=posthouse.url)) as program:
        assert program.line() == "connected"
        program.interrupt()
        assert program.line() == "interrupted"
        assert program.line() == "seq True"
        assert "this process was forked from it: call bus.sync.connect here" in program.line()
        assert program.line() == "child 0"
        assert program.line() == "body 1"
        assert (program.exit_code(), program.errors()) == (0, "")
    sessions = posthouse.json("sessions", "--bot", "notebook")
    assert sessions == [], "it said goodbye"
    [row] = [each for each in posthouse.json("bots") if each["name"] == "notebook"]
    assert row["backlog"] == 1, "what it did not settle is returned"


def test_waiting_for_a_worker_is_interrupted(posthouse: Posthouse) -> None:
    with start(posthouse, CONNECTING) as program:
        assert program.line() == "connecting"
        program.interrupt()
        assert program.line() == "interrupted"
        assert (program.exit_code(), program.errors()) == (0, "")
