"""Clients on other systems: no POSIX modules, no uvloop, no signal handlers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .terminal import Posthouse, Running

PROGRAM = str(Path(__file__).with_name("elsewhere.py"))


def elsewhere(posthouse: Posthouse, *arguments: str) -> Running:
    environment = {**posthouse.environment, "PYTHONPATH": str(Path(__file__).parents[2])}
    return Running([sys.executable, PROGRAM, *arguments], environment)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["bots", "--as", "elsewhere"],
        ["publish", "news", "null", "--as", "elsewhere"],
        ["--version"],
        ["send", "--help"],
    ],
    ids=lambda command: command[0],
)
def test_commands_need_nothing_of_posix(posthouse: Posthouse, command: list[str]) -> None:
    with elsewhere(posthouse, *command) as program:
        assert program.line()
        assert program.exit_code() == 0, program.errors()


def test_listening_needs_no_signal_handlers(posthouse: Posthouse) -> None:
    with elsewhere(posthouse, "listen", "--as", "ears") as program:
        posthouse.wait_until(lambda: any(bot["name"] == "ears" for bot in posthouse.json("bots")))
        posthouse.answer("send", "ears", "hello", "--as", "elsewhere")
        assert "hello" in program.line()
        program.interrupt()
        assert program.exit_code() == 130, program.errors()


@pytest.mark.parametrize("where", ["run", "thread"])
def test_a_bot_serves_without_signal_handlers(posthouse: Posthouse, where: str) -> None:
    name = f"served-{where}"
    with elsewhere(posthouse, where, posthouse.url, name) as program:
        posthouse.wait_until(lambda: any(bot["name"] == name for bot in posthouse.json("bots")))
        posthouse.answer("send", name, "work", "--as", "elsewhere")
        assert program.line() == "handled work"
        posthouse.answer("send", name, "stop", "--as", "elsewhere")
        assert program.line() == "handled stop"
        assert program.line() == "stopped"
        assert program.exit_code() == 0, program.errors()


def test_ctrl_c_stops_a_bot_without_signal_handlers(posthouse: Posthouse) -> None:
    with elsewhere(posthouse, "run", posthouse.url, "interrupted") as program:
        posthouse.wait_until(lambda: any(bot["name"] == "interrupted" for bot in posthouse.json("bots")))
        posthouse.answer("send", "interrupted", "work", "--as", "elsewhere")
        assert program.line() == "handled work"
        program.interrupt()
        assert program.line() == "stopped"
        assert (program.exit_code(), program.errors()) == (0, "")
