"""Every command with streams that are closed, full, gone or of another encoding, and interrupted at any moment.

What each one does with ordinary streams is the measure: an abuse changes the exit code only where the output could
not be written, and never ends in a traceback.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .forking import fork, run_forked
from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse

pytestmark = pytest.mark.timeout(900)
"""Each test starts a process for each command."""

DOCUMENTED = {0, 1, 2, 65, 69, 74, 75, 78, 130}

NOWHERE = "tcp://127.0.0.1:1"

ODD = "\x1b[31mred\x07 \u202e \x9b2J grüße 😀"
"""What steers a terminal, and what few encodings have."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    output: bytes
    errors: bytes

    def check(self) -> Ended:
        """Check what holds of every end."""
        for words in (b"Traceback", b"Exception ignored", b"Error:", b"Aborted"):
            assert words not in self.errors, self.errors.decode(errors="replace")
        assert self.code in DOCUMENTED, self
        return self


@pytest.fixture(scope="module")
def commands(posthouse: Posthouse, tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Each command, with something to show or do."""
    definition = tmp_path_factory.mktemp("definitions") / "definition.json"
    steps = [{"id": "first", "name": ODD, "kind": {"type": "reply", "text": "x"}}]
    fields = {"id": "odd", "name": "odd", "description": ODD, "owner": {"type": "global"}, "steps": steps}
    definition.write_text(json.dumps(fields), encoding="utf-8")
    posthouse.answer("bots", "--as", "odd")
    posthouse.answer("send", "odd", json.dumps(ODD, ensure_ascii=False), "--as", "odd", "--header", f"a={ODD}")
    posthouse.answer("publish", "odd", json.dumps({"text": ODD}), "--as", "odd", "--type", "ödd")
    return [
        ["--help"],
        ["publish", "odd", ODD, "--as", "odd"],
        ["history", "--channel", "odd", "--details"],
        ["history", "--between", "odd", "odd", "--json"],
        ["bots"],
        ["dead-letters", "list"],
        ["status"],
        ["workflows", "save", str(definition)],
        ["workflows", "show", "odd"],
        ["run", ODD, "--watch"],
        ["approve", ODD, ODD, "--comment", ODD],
        ["check", str(posthouse.database)],
        ["check", str(definition), "--json"],
        ["serve", "--database", str(posthouse.database), "--bind", "inproc://a", "--tap", "inproc://b"],
        ["listen", "--as", "odd", "--count", "1", "--url", NOWHERE, "--timeout", "0.2"],
        ["bots", "--timeout", "nan"],
    ]


def run(posthouse: Posthouse, arguments: list[str], shell: str = "", **environment: str) -> Ended:
    """Run a command to its end, with what a shell does to its streams."""
    command = ["sh", "-c", f'exec "$0" "$@" {shell}', *COMMAND, *arguments]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT_SECONDS * 2,
        check=False,
        env=posthouse.environment | environment,
    )
    return Ended(done.returncode, done.stdout, done.stderr).check()


def forked(posthouse: Posthouse, arguments: list[str], **environment: str) -> Ended:
    """Run a command to its end out of the process that has imported everything."""
    done = run_forked(
        arguments, stdin="", environment=posthouse.environment | environment, timeout_seconds=TIMEOUT_SECONDS * 2
    )
    return Ended(done.returncode, done.stdout.encode(), done.stderr.encode()).check()


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(scope="module")
def usual(posthouse: Posthouse, commands: list[list[str]], pool: ThreadPoolExecutor) -> list[Ended]:
    """How each command ends with ordinary streams."""
    ended = list(pool.map(lambda command: forked(posthouse, command), commands))
    failed = [command[0] for command, each in zip(commands, ended, strict=True) if each.code not in (0, 1, 2)]
    assert failed == ["check", "serve", "listen"]
    return ended


@pytest.mark.parametrize(
    "shell",
    [
        ">&-",
        ">/dev/full",
        "2>/dev/full",
        "<&- >&- 2>&-",
    ],
)
def test_a_stream_that_cannot_be_used_ends_no_command_in_a_traceback(
    posthouse: Posthouse, commands: list[list[str]], usual: list[Ended], pool: ThreadPoolExecutor, shell: str
) -> None:
    found = list(pool.map(lambda command: run(posthouse, command, shell), commands))
    lost = ">&-" in shell.replace("2>&-", "") or shell.startswith(">/dev/full")
    for command, before, after in zip(commands, usual, found, strict=True):
        expected = 74 if lost and before.code != 2 and before.output else before.code
        assert after.code == expected, (command, after)
        if after.code == 74 and shell in (">&-", ">/dev/full"):
            assert after.errors.startswith(b"posthouse: standard output cannot be written: "), after


def test_a_reader_that_has_gone_is_no_failure(
    posthouse: Posthouse, commands: list[list[str]], usual: list[Ended], pool: ThreadPoolExecutor
) -> None:
    def piped(command: list[str]) -> Ended:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            done = subprocess.run(
                [*COMMAND, *command],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.PIPE,
                timeout=TIMEOUT_SECONDS * 2,
                check=False,
                env=posthouse.environment,
            )
        finally:
            os.close(writing)
        return Ended(done.returncode, b"", done.stderr).check()

    for command, before, after in zip(commands, usual, pool.map(piped, commands), strict=True):
        assert after.code == (0 if before.output and before.code != 2 else before.code), (command, after)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"COLUMNS": "1", "LINES": "1"},
        {"COLUMNS": "wide", "TERM": "nonsense", "FORCE_COLOR": "1"},
        {"TZ": "Nowhere/Nothing", "HOME": "/nonexistent", "TERM": "dumb"},
    ],
    ids=lambda environment: ",".join(f"{name}={value}" for name, value in environment.items()),
)
def test_no_environment_ends_a_command_in_a_traceback(
    posthouse: Posthouse,
    commands: list[list[str]],
    usual: list[Ended],
    pool: ThreadPoolExecutor,
    environment: dict[str, str],
) -> None:
    for_python = any(name.startswith(("PYTHON", "LC_")) for name in environment)
    begin = run if for_python else forked  # an interpreter of its own is needed by what that reads at its start
    found = list(pool.map(lambda command: begin(posthouse, command, **environment), commands))
    for command, before, after in zip(commands, usual, found, strict=True):
        assert after.code == before.code, (command, after)
        if "--json" in command and after.code == 0:
            assert json.loads(after.output), after


def test_what_an_encoding_has_not_is_escaped_as_in_json(posthouse: Posthouse) -> None:
    posthouse.answer("publish", "smiles", json.dumps({"text": ODD}), "--as", "odd")
    text = run(posthouse, ["history", "--channel", "smiles"], PYTHONIOENCODING="ascii").output.decode("ascii")
    assert json.loads(text[text.index("{") :]) == {"text": ODD}
    lines = run(posthouse, ["history", "--channel", "smiles", "--json"], PYTHONIOENCODING="latin-1").output
    assert [message["body"] for message in json.loads(lines.decode("ascii"))] == [{"text": ODD}]
    utf8 = run(posthouse, ["history", "--channel", "smiles", "--json"]).output.decode()
    assert "grüße 😀" in utf8


# ── Terminals ────────────────────────────────────────────────────────────────────────────────────────────


def on_terminal(posthouse: Posthouse, command: list[str], rows: int, columns: int) -> tuple[int, str]:
    """Run a command on a terminal of this size, and give its exit code and what came out of it."""
    main, terminal = pty.openpty()
    size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    environment = posthouse.environment | {"TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    answer = fork(command, environment, [terminal] * 3)
    shown = b""
    try:
        while part := os.read(main, 65_536):
            shown += part
    except OSError:
        pass  # Linux's way to say that the last one closed it
    os.close(main)
    with os.fdopen(answer) as lines:
        _, code = lines
    return int(code), shown.decode(errors="replace")


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 1)])
def test_no_terminal_is_too_small_or_steered_by_what_bots_said(
    posthouse: Posthouse,
    commands: list[list[str]],
    usual: list[Ended],
    pool: ThreadPoolExecutor,
    rows: int,
    columns: int,
) -> None:
    found = list(pool.map(lambda command: on_terminal(posthouse, command, rows, columns), commands))
    for command, before, (code, shown) in zip(commands, usual, found, strict=True):
        assert code == before.code, (command, shown)
        assert "Traceback" not in shown
        assert [each for each in ("\x1b[31mred", "\x07", "\x9b", "\u202e") if each in shown] == [], command


# ── Ctrl-C ───────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interrupt_at_any_moment_ends_a_command_with_130(
    posthouse: Posthouse, commands: list[list[str]], usual: list[Ended], pool: ThreadPoolExecutor
) -> None:
    """From when the command has begun, which is when it has loaded one of its libraries."""
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    waiting = [["send", "odd", "-", "--as", "odd"], ["listen", "--as", "nobody", "--count", "1"], ["demo"]]
    cases = [*zip(commands, usual, strict=True), *((each, Ended(130, b"", b"")) for each in waiting)]
    delays = [(case, chance.random()) for case in cases]

    def interrupted(case: tuple[tuple[list[str], Ended], float]) -> tuple[list[str], int, Ended]:
        (command, before), delay = case
        process = subprocess.Popen(
            [*COMMAND, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=posthouse.environment,
        )
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and "msgspec" not in maps.read_text():
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        return command, before.code, Ended(process.returncode, output, errors).check()

    for command, before, after in pool.map(interrupted, delays):
        assert after.code in (130, before), (seed, command, after)


def test_an_interrupt_that_python_cannot_raise_ends_a_command_with_130() -> None:
    program = """if True:
        import signal
        import rich_click as click
        from bus.cli.entry import Entry

        class Finalized:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)

        @click.group(cls=Entry)
        def group(): ...

        @group.command()
        def work():
            Finalized()
            print("went on", flush=True)

        Entry.begin()
        group(["work"])
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT_SECONDS)
    assert Ended(done.returncode, done.stdout, done.stderr).check() == Ended(130, b"", b"")


def test_a_listener_without_a_count_may_be_interrupted_in_the_end(posthouse: Posthouse) -> None:
    with posthouse.start("listen", "--as", "patient-one") as listening:
        posthouse.wait_until(lambda: any(bot["name"] == "patient-one" for bot in posthouse.json("bots")))
        listening.interrupt()
        assert (listening.exit_code(), listening.errors()) == (0, "")


def test_a_message_that_could_not_be_printed_is_not_acknowledged(posthouse: Posthouse) -> None:
    posthouse.answer("bots", "--as", "unprinted")
    posthouse.answer("send", "unprinted", "1", "--as", "odd")
    for shell in (">&-", ">/dev/full"):
        assert run(posthouse, ["listen", "--as", "unprinted", "--count", "1"], shell).code == 74
    again: Any = json.loads(posthouse.answer("listen", "--as", "unprinted", "--count", "1", "--json"))
    assert again["body"] == 1
