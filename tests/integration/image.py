"""What an image is made of: its context, and the instructions of its Dockerfile.

It understands what the repository's files use. Anything else is an error, so that no line of them is passed over.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DOCKERFILE", "Copy", "Folder", "Run", "Stage", "copy_context", "read_dockerfile"]

_ROOT = Path(__file__).resolve().parents[2]

DOCKERFILE = _ROOT / "config" / "container" / "Dockerfile"

_CHECK_OPTIONS = {"interval", "timeout", "start-period"}


def copy_context(folder: Path) -> None:
    """Copy what `.dockerignore` lets through into a new folder: what is named in it with `!`, and nothing else."""
    everything, *lines = (_ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    skipped = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    if everything != "*" or len(kept) + len(skipped) != len(lines):
        raise ValueError(f".dockerignore has other lines than `*`, `!name` and `**/name`: {everything} {lines}")
    folder.mkdir()
    for name in kept:
        path = _ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=shutil.ignore_patterns(*skipped))
        else:
            shutil.copy(path, folder)


@dataclass(frozen=True)
class Copy:
    """Files that are copied, from the context or from an earlier stage."""

    source: str
    destination: str
    stage: str | None


@dataclass(frozen=True)
class Run:
    """A command of the shell, and what holds where it is run."""

    command: str
    environment: dict[str, str]
    user: str
    folder: str


@dataclass(frozen=True)
class Folder:
    """A folder that is made where it is missing."""

    path: str


@dataclass
class Stage:
    """A stage of a build: the steps that make its files, and how its containers are run."""

    base: str
    name: str
    steps: list[Copy | Run | Folder] = field(default_factory=list)
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    user: str = "root"
    folder: str = "/"
    volumes: list[str] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)
    check: list[str] = field(default_factory=list)
    check_seconds: float = 30.0
    stop: signal.Signals = signal.SIGTERM
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def take(self, instruction: str, text: str) -> None:
        """Take the next instruction."""
        match instruction:
            case "COPY":
                self.steps.append(_copy(shlex.split(text)))
            case "RUN":
                self.steps.append(Run(text, dict(self.environment), self.user, self.folder))
            case "USER":
                self.user = text
            case "WORKDIR":
                self.folder = text
                self.steps.append(Folder(text))
            case "VOLUME":
                self.volumes += shlex.split(text)
            case "ENV":
                self.environment |= dict(each.split("=", 1) for each in shlex.split(text))
            case "EXPOSE":
                self.ports |= {int(port) for port in text.split()}
            case "HEALTHCHECK":
                self._take_check(text)
            case "STOPSIGNAL":
                self.stop = signal.Signals[text]
            case "ENTRYPOINT":
                self.entrypoint, self.command = _arguments(text), []
            case "CMD":
                self.command = _arguments(text)
            case _:
                raise ValueError(f"{instruction} is not an instruction that is understood here")

    def _take_check(self, text: str) -> None:
        said, _, command = text.partition("CMD ")
        options = dict(each.removeprefix("--").split("=", 1) for each in said.split())
        if unknown := options.keys() - _CHECK_OPTIONS:
            raise ValueError(f"HEALTHCHECK has unknown options: {unknown}")
        self.check = _arguments(command)
        self.check_seconds = float(options["timeout"].removesuffix("s"))


def read_dockerfile() -> list[Stage]:
    """Return the stages of the Dockerfile, the last one last."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    stages: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.strip().partition(" AS ")
            if not re.fullmatch(r"python:\S+-slim-\S+", base):
                raise ValueError(f"FROM {base}: what is known is Debian with Python")
            stages.append(Stage(base, name or str(len(stages))))
        elif instruction:
            stages[-1].take(instruction, rest.strip())
    return stages


def _copy(words: list[str]) -> Copy:
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else None
    source, destination = words
    return Copy(source, destination, stage)


def _arguments(text: str) -> list[str]:
    words = json.loads(text)
    if not isinstance(words, list):
        raise ValueError(f"{text} is not a list of arguments")
    return words
