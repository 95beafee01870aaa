"""What users get: the built wheel alone, in an environment of its own, seen from another folder.

Run as `python -m tests.wheel`. Builds and installs in a temporary folder, with pip's cache, and dependencies from
the package index. Every wait has an end, and only processes that were started here are ended.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bus.cli.configuring import _EXAMPLES
from tests.integration.image import copy_context
from tests.integration.wire_worker import free_endpoints

ROOT = Path(__file__).resolve().parents[1]

PIP_SECONDS = 600.0
"""A build or an install: seconds from the cache, and minutes over a slow line."""

RUN_SECONDS = 60.0
"""Anything else: far more than a loaded machine needs."""

SUFFIXES = {".py", ".sql", ".typed", ".html", ".css", ".js", ".svg"}

TALK = """
import sys, anyio, bus

async def main():
    async with bus.connect(sys.argv[1], bot="tester") as bot:
        receipt = await bot.send("tester", {"text": "grüße"})
        message = await bot.receive()
        assert (message.seq, message.body) == (receipt.seq, {"text": "grüße"}), message
        await message.ack(confirm=True)

anyio.run(main)
"""
"""One message, from a bot to itself: sent, received, and settled on disk."""


class Failed(Exception):
    """The wheel is not what users should get."""


class Environment:
    """A virtual environment with nothing in it, and a folder beside it to run in."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "environment" / "bin"
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        venv.create(folder / "environment")

    def command(self, *arguments: str) -> list[str]:
        """Give the arguments with the program of this environment."""
        return [str(self._bin / arguments[0]), *arguments[1:]]

    def install(self, wheel: Path) -> None:
        """Install a wheel and what it depends on, with the pip of this process: one more would take seconds."""
        pip = [sys.executable, "-m", "pip", "--python", str(self._bin / "python")]
        run(
            [*pip, "install", "--quiet", "--disable-pip-version-check", "--no-compile", str(wheel)],
            self.folder,
            PIP_SECONDS,
        )

    def run(self, *arguments: str) -> str:
        """Run a program of this environment, and give what it writes."""
        return run(self.command(*arguments), self.folder, RUN_SECONDS)


def clean_environment() -> dict[str, str]:
    """Give the environment's variables without what would lead Python to this folder."""
    names = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    return {name: value for name, value in os.environ.items() if name not in names}


def run(arguments: Sequence[str], folder: Path, seconds: float) -> str:
    """Run a program that has to succeed, and give what it writes to standard output."""
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{' '.join(arguments)}\ndid not end within {seconds:g} s") from error
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip()
        raise Failed(f"{' '.join(arguments)}\nended with exit code {done.returncode}:\n{said}")
    return done.stdout


def build(folder: Path) -> Path:
    """Build the wheel as pip would for a user, of what a container's image is built of: nothing else is needed."""
    source = folder / "source"
    copy_context(source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run([*pip, "--wheel-dir", str(folder / "wheels"), str(source)], folder, PIP_SECONDS)
    wheels = list((folder / "wheels").glob("*.whl"))
    if len(wheels) != 1:
        raise Failed(f"one wheel was expected, not {[wheel.name for wheel in wheels]}")
    return wheels[0]


def check_contents(wheel: Path) -> int:
    """Compare what is in the wheel with what is in the folder; give the number of files."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    wanted = {"worker.py", *(f"bus/config/{path}" for path in _EXAMPLES.values())} | {
        path.relative_to(ROOT).as_posix()
        for package in ("bus", "store")
        for path in (ROOT / package).rglob("*")
        if path.suffix in SUFFIXES
    }
    if not {"bus/py.typed", "store/py.typed"} <= wanted or not any(name.endswith(".sql") for name in wanted):
        raise Failed("this folder itself has no py.typed or no migrations")
    if missing := sorted(wanted - names):
        raise Failed(f"{wheel.name} lacks {', '.join(missing)}")
    if surplus := sorted(names - wanted - about):
        raise Failed(f"{wheel.name} should not have {', '.join(surplus)}")
    if missing := sorted({"METADATA", "entry_points.txt", "LICENSE"} - {name.split("/")[-1] for name in about}):
        raise Failed(f"{wheel.name} lacks {', '.join(missing)} about itself")
    return len(wanted)


@contextmanager
def serving(environment: Environment, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker, and end it however the block is left; where that fails, what the worker said is added."""
    log = environment.folder / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            environment.command("posthouse", "serve", *options),
            cwd=environment.folder,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    except Failed as error:
        said = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise Failed(f"{error}\nthe worker's log:\n{said}") from error
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(RUN_SECONDS)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the worker in order."""
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"the worker did not end within {RUN_SECONDS:g} s of SIGTERM") from error
    if code:
        raise Failed(f"the worker ended with exit code {code} after SIGTERM")


def say(what: str, began: float) -> None:
    """Tell how far it is."""
    sys.stdout.write(f"wheel: {what} ({time.monotonic() - began:.1f} s)\n")
    sys.stdout.flush()


def check_wheel(folder: Path) -> None:
    """Build the wheel, look into it, install it, and use it."""
    began = time.monotonic()
    wheel = build(folder)
    say(f"{wheel.name} is built", began)
    say(f"it has the {check_contents(wheel)} files that it should have", began)

    environment = Environment(folder)
    environment.install(wheel)
    say("it is installed in an environment of its own", began)

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    told = environment.run("posthouse", "--version").strip()
    if version not in told.split():
        raise Failed(f"posthouse --version says {told!r}, and pyproject.toml {version!r}")
    place = environment.run("python", "-c", "import bus; print(bus.__file__)").strip()
    if not Path(place).resolve().is_relative_to((folder / "environment").resolve()):
        raise Failed(f"import bus takes {place}, which is not in the environment")
    say(f"{told}; import bus works", began)
    for name in ("settings", "unit"):
        path = ROOT / "config" / _EXAMPLES[name]
        if environment.run("posthouse", "config", "--example", name) != path.read_text():
            raise Failed(f"posthouse config --example {name} does not print {path}")
    say("it has the configuration with every key, and the unit", began)

    command, tap = free_endpoints(2)
    with serving(environment, "--bind", command, "--tap", tap, "--database", "wheel.db") as worker:
        environment.run("python", "-c", TALK, command)
        say("a message was sent, received and settled", began)
        environment.run("posthouse", "check", "wheel.db")
        say("the database is sound", began)
        stop(worker)
    say("the worker ended in order", began)


def main() -> int:
    """Check the wheel; give the exit code."""
    with tempfile.TemporaryDirectory(prefix="posthouse-wheel-") as folder:
        try:
            check_wheel(Path(folder))
        except Failed as error:
            sys.stderr.write(f"wheel: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
