"""A program with modules of its own that are named as ours: a bot works beside them, and no command runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..engines import sqlite_only
from .wire_worker import Worker

BOT = """
import sys

import anyio
import bus
import store
import worker


async def main():
    async with bus.connect(sys.argv[1], bot="beside") as bot:
        await bot.workflows.list_definitions()
        await bot.send("beside", {"store": store.NAME, "worker": worker.NAME})
        async with await bot.receive() as message:
            print(message.body)


anyio.run(main)
"""


@sqlite_only("a name beside the client is no matter of the engine")
@pytest.mark.parametrize("shape", ["module", "package"])
def test_a_bot_works_beside_a_store_and_a_worker_of_its_own(worker: Worker, tmp_path: Path, shape: str) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    for name in ("store", "worker"):
        path = folder / f"{name}.py" if shape == "module" else folder / name / "__init__.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"NAME = 'my {name}'\n", encoding="utf-8")
    (folder / "bot.py").write_text(BOT, encoding="utf-8")
    command = [sys.executable, str(folder / "bot.py"), worker.command]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "{'store': 'my store', 'worker': 'my worker'}\n"), done.stderr


@pytest.mark.parametrize("name", ["worker.py", "store.py", "store/__init__.py", "store/notes.txt"])
def test_a_command_says_which_file_is_in_the_way(tmp_path: Path, name: str) -> None:
    """And does not run it. A folder without `__init__.py` is in nobody's way: a package goes before it."""
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('a stranger ran')\n", encoding="utf-8")
    command = [sys.executable, "-m", "bus", "--version"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, timeout=120)
    if name == "store/notes.txt":
        assert done.returncode == 0, done.stderr
    else:
        module = name.partition("/")[0].removesuffix(".py")
        assert (done.returncode, done.stdout) == (78, "")
        assert done.stderr == (
            f"posthouse: {path} is in the way of posthouse's own module {module!r}: remove it from PYTHONPATH,"
            " or rename it\n"
        )
