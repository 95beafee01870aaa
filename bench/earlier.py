"""The version before: the worker of an earlier commit of this repository, with today's clients.

Owns its installation, which is temporary: a copy of the commit, and an environment in which all other packages have
the same versions as in this one, so that only posthouse's own code differs.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from .names import BEFORE
from .processes import ROOT, BenchFailed, data_folder
from .systems import WithFrames

__all__ = ["Earlier", "installed", "unpack"]

_MIGRATIONS = Path("store", "sqlite", "migrations")


class Earlier(WithFrames):
    """The worker of an earlier commit. `installed` returns a subclass that knows where it is."""

    name = BEFORE
    commit = ""

    @classmethod
    def versions(cls) -> dict[str, str]:
        """Return the commit."""
        return {cls.name: cls.commit}


@contextmanager
def installed(revision: str) -> Iterator[type[Earlier]]:
    """Install the worker of a revision for the time of a block, and return the system with it.

    Raise BenchFailed if the revision is unknown or cannot be installed.
    """
    with data_folder() as name:
        folder = Path(name)
        source, environment = folder / "source", folder / "environment"
        found = unpack(ROOT, revision, source)
        _run([sys.executable, "-m", "venv", str(environment)])
        program = str(environment / "bin" / "python")
        same = folder / "constraints.txt"
        same.write_text("".join(_versions()), encoding="utf-8")
        _run(
            [
                program,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "-c",
                str(same),
                str(source),
            ]
        )

        class Installed(Earlier):
            """The worker that was installed."""

            commit = found
            python = program
            reads_todays_files = _schemas(source) == _schemas(ROOT)

        yield Installed


def unpack(repository: Path, revision: str, folder: Path) -> str:
    """Write a revision's files into a new folder, and return the commit's abbreviated name."""
    commit = _run(["git", "-C", str(repository), "rev-parse", "--short", "--verify", f"{revision}^{{commit}}"])
    archive = folder.with_suffix(".zip")
    _run(["git", "-C", str(repository), "archive", "--format=zip", f"--output={archive}", commit])
    shutil.unpack_archive(archive, folder)
    archive.unlink()
    return commit


def _schemas(source: Path) -> set[str]:
    return {file.name for file in (source / _MIGRATIONS).glob("*.sql")}


def _versions() -> list[str]:
    found = {each.name: each.version for each in metadata.distributions()}
    return [f"{name}=={version}\n" for name, version in found.items() if name != "posthouse"]


def _run(command: Sequence[str]) -> str:
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise BenchFailed(f"{' '.join(command)}: {ended.stderr.strip()[-1000:]}")
    return ended.stdout.strip()
