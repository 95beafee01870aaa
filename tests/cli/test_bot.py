"""`posthouse bot`: a program's bot as one process, or several, or one that follows the changes of its files."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner

from bus.cli.loading import NotLoaded, load_bot
from bus.cli.program import main
from bus.cli.supervising import python_files
from bus.signals import send_signal

from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse, Running

APP = """
import os
import bus

bot = bus.Bot("{name}")


@bot.on_message("who")
async def who(message):
    return {{"pid": os.getpid(), "version": {version}}}
"""

FAIL = """

def fail(text):
    raise RuntimeError(text)
"""


class App:
    """A folder with a program, and the command that serves its bot."""

    def __init__(self, posthouse: Posthouse, folder: Path, name: str) -> None:
        self.posthouse = posthouse
        self.folder = folder
        self.name = name
        self.write(APP.format(name=name, version=1))

    def write(self, code: str, name: str = "app.py") -> None:
        """Write a file as an editor does it: nobody sees half of it."""
        new = self.folder / "new"
        new.write_text(code, encoding="utf-8")
        new.replace(self.folder / name)

    def start(self, *arguments: str) -> Running:
        return Running([*COMMAND, "bot", *arguments], self.posthouse.environment, self.folder)

    def ask(self) -> Any:
        """Return what the bot answers."""
        return self.posthouse.json("request", self.name, "null", "--type", "who", "--as", "asker")["body"]

    def sessions(self) -> list[Any]:
        """Return the sessions of the bot, which may not be known yet."""
        found = self.posthouse.run("sessions", "--bot", self.name, "--json")
        return list(json.loads(found.stdout)) if found.returncode == 0 else []

    def is_there(self, count: int = 1) -> bool:
        return len(self.sessions()) == count

    def wait_until_there(self, count: int = 1) -> None:
        self.posthouse.wait_until(lambda: self.is_there(count))


Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Program]:
    """Writes modules of a program into the current folder, and forgets them after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)

    def write(code: str, name: str) -> None:
        (tmp_path / name).write_text(code, encoding="utf-8")

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def app(posthouse: Posthouse, tmp_path: Path) -> App:
    return App(posthouse, tmp_path, f"bot-{tmp_path.name}")


def test_it_serves_a_bot_until_it_is_interrupted(app: App) -> None:
    """Files of the program with names of our modules are no obstacle: it may well have a `store.py`."""
    app.write("VERSION = 7\n", "store.py")
    app.write("import store\n" + APP.format(name=app.name, version="store.VERSION"))
    command = [sys.executable, "-P", *COMMAND[1:], "bot", "app"]  # as the script `posthouse` does it
    with Running(command, app.posthouse.environment, app.folder) as bot:
        app.wait_until_there()
        assert app.ask()["version"] == 7
        bot.interrupt()
        assert bot.exit_code() == 0
        said = bot.errors()
        assert f"bot '{app.name}' has session" in said
        assert "Traceback" not in said
    assert app.is_there(0)


def test_an_exception_does_not_control_the_terminal(app: App) -> None:
    app.write(APP.format(name=app.name, version=r"1 / 0 if False else fail('\x1b[31mred\x07')") + FAIL)
    with app.start("app:bot") as bot:
        app.wait_until_there()
        app.posthouse.answer("send", app.name, "null", "--type", "who", "--as", "asker")
        app.posthouse.wait_until(lambda: app.posthouse.json("mailbox", app.name)["counts"]["returned"] == 1)
        bot.terminate()
        assert bot.exit_code() == 0
        said = bot.errors()
    assert r"RuntimeError: \u001b[31mred\u0007" in said
    assert "\x1b" not in said


def test_several_processes_share_the_mailbox(app: App) -> None:
    with app.start("app:bot", "--workers", "2") as bot:
        app.wait_until_there(2)
        killed = app.ask()["pid"]
        before = {session["id"] for session in app.sessions()}
        os.kill(killed, signal.SIGKILL)
        app.posthouse.wait_until(lambda: len({each["id"] for each in app.sessions()} & before) < 2)
        app.wait_until_there(2)
        assert app.ask()["pid"] != killed
        bot.terminate()
        assert bot.exit_code() == 0
        said = bot.errors()
        assert "ended with 137; it is started again in 1 s" in said
        assert "share its mailbox" not in said
    assert app.is_there(0)


def test_a_process_ends_with_its_supervisor(app: App) -> None:
    with app.start("app:bot", "--reload") as bot:
        app.wait_until_there()
        bot.kill()
        app.wait_until_there(0)


def test_it_is_started_again_when_a_file_changes(app: App) -> None:
    with app.start("app:bot", "--reload") as bot:
        app.wait_until_there()
        assert app.ask()["version"] == 1
        app.write("bot =")
        app.posthouse.wait_until(lambda: app.is_there(0))
        app.write(APP.format(name=app.name, version=22))
        app.wait_until_there()
        assert app.ask()["version"] == 22
        bot.interrupt()
        assert bot.exit_code() == 0
        assert "app.py changed: starting again" in bot.errors()
    assert app.is_there(0)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nowhere:bot", "there is no module 'nowhere' in "),
        ("app:writer", "app:writer is not a bus.Bot; it has app:bot"),
        ("empty", "empty:bot is not a bus.Bot; create one there: bot = bus.Bot('name')"),
        ("a b", "'a b' is not the name of a module: write app:bot for the bot in app.py"),
    ],
)
def test_what_is_not_there_is_said(program: Program, target: str, words: str) -> None:
    program("bot = __import__('bus').Bot('a')\n", "app.py")
    program("", "empty.py")
    with pytest.raises(NotLoaded, match=re.escape(words)):
        load_bot(target)


@pytest.mark.parametrize("target", ["app:bot", "app", "app.py", "app:holder.bot"])
def test_a_bot_is_found(program: Program, target: str) -> None:
    code = "import types, bus\nbot = bus.Bot('a')\nholder = types.SimpleNamespace(bot=bot)\n"
    program(code, "app.py")
    assert load_bot(target).name == "a"


def test_an_address_that_is_none_is_said_in_one_line(program: Program) -> None:
    program("import bus\n\nbot = bus.Bot('a', 'nonsense')\n", "app.py")
    ended = CliRunner().invoke(main, ["bot", "app", "--asyncapi"])
    assert ended.exit_code == 78
    [line] = ended.stderr.splitlines()
    assert line.startswith("posthouse: cannot connect to 'nonsense'")


def test_processes_that_cannot_begin_end_all(app: App) -> None:
    with app.start("nowhere:bot", "--workers", "2") as bot:
        assert bot.exit_code() == 78
        assert all("posthouse: there is no module 'nowhere' in " in line for line in bot.errors().splitlines())


@pytest.mark.anyio
async def test_a_signal_that_comes_too_late_takes_no_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent after the process has ended, and before asyncio, whose thread waits for it, knows."""
    sent, waitpid = threading.Event(), os.waitpid

    def wait_late(pid: int, options: int) -> tuple[int, int]:
        assert sent.wait(TIMEOUT_SECONDS)
        return waitpid(pid, options)

    monkeypatch.setattr(os, "waitpid", wait_late)
    async with await anyio.open_process([sys.executable, "-c", "raise SystemExit(7)"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop must not know yet
        send_signal(process, signal.SIGTERM)
        sent.set()
        assert await process.wait() == 7


def test_an_error_of_the_program_is_shown_from_its_own_line_on(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    program("import json\n\njson.loads('{')\n", "broken.py")
    with pytest.raises(NotLoaded, match="broken could not be imported"):
        load_bot("broken:bot")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert "broken.py" in lines[1]


def test_a_bot_that_cannot_begin_says_why(app: App) -> None:
    app.write('import bus\n\nbot = bus.Bot("a", "tcp://127.0.0.1:9", wait=0.1)\n')
    with app.start("app:bot") as bot:
        assert bot.exit_code() == 69
        assert bot.errors().splitlines()[-1].startswith("posthouse: no worker answers at tcp://127.0.0.1:9")


TYPED = """
import dataclasses
import msgspec
import pydantic
import bus

bot = bus.Bot("planner")


class Step(msgspec.Struct):
    text: str


class Goal(msgspec.Struct):
    text: str
    steps: list[Step] = []


class Item(pydantic.BaseModel):
    name: str


class Order(pydantic.BaseModel):
    items: list[Item]


@dataclasses.dataclass
class Plan:
    steps: list[Step]


@bot.on_message("goal")
async def plan(message: bus.Message[Goal]) -> Plan:
    "Make a plan."


@bot.on_channel("orders", "order", body=Order)
async def order(message) -> None: ...


@bot.on_channel("orders")
async def other(message): ...
"""


def test_it_prints_what_a_bot_receives_as_asyncapi(program: Program) -> None:
    program(TYPED, "typed.py")
    ended = CliRunner().invoke(main, ["bot", "typed:bot", "--asyncapi"])
    assert (ended.exit_code, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    assert (document["asyncapi"], document["info"]["title"]) == ("3.0.0", "planner")
    assert document["channels"]["planner"]["messages"]["goal"]["description"] == "Make a plan."
    assert document["channels"]["orders"]["messages"].keys() == {"order", "any"}
    assert document["channels"]["orders"]["messages"]["any"]["payload"] == {}
    assert document["operations"].keys() == {"planner.goal", "orders.order", "orders.any"}
    schemas = document["components"]["schemas"]
    assert schemas.keys() == {"Goal", "Step", "Plan", "Order", "Item"}
    assert schemas["Goal"]["properties"]["steps"]["items"] == {"$ref": "#/components/schemas/Step"}
    assert schemas["Order"]["properties"]["items"]["items"] == {"$ref": "#/components/schemas/Item"}
    for reference in references(document):
        resolve(document, reference)
    reply = document["operations"]["planner.goal"]["reply"]
    [told] = [resolve(document, each["$ref"]) for each in reply["messages"]]
    assert told["payload"] == {"$ref": "#/components/schemas/Plan"}


def references(value: Any) -> list[str]:
    """Return all references in a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for each in value.values() for found in references(each)]
    return [found for each in value for found in references(each)] if isinstance(value, list) else []


def resolve(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def test_only_files_of_the_program_are_watched(tmp_path: Path) -> None:
    for name in ("app.py", "package/module.py", ".hidden/a.py", "venv/lib/b.py", "__pycache__/c.py", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "venv" / "pyvenv.cfg").touch()
    found = {os.path.relpath(path, tmp_path) for path in python_files(tmp_path)}
    assert found == {"app.py", os.path.join("package", "module.py")}
    assert python_files(tmp_path / "gone") == {}
