"""The TypeScript client as its users get it: built, packed, and installed in a clean folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from ..integration.wire_worker import REPOSITORY

__all__ = ["INSTALL_SECONDS", "Package", "need_node"]

NEEDED = "POSTHOUSE_NEEDS_NODE"

NODE_VERSION_MIN = 20

INSTALL_SECONDS = 240.0
"""npm with a registry: seconds, and minutes over a slow line."""

_RUN_SECONDS = 180.0
"""Anything else: many times what a loaded machine takes."""

SOURCE = REPOSITORY / "clients" / "typescript"

_NPM = ("--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline", "--loglevel=error")

_BLOCK = re.compile(
    r"(?:^<!-- given\n(?P<given>(?:(?!-->)[^\n]*\n)*)-->\n)?^```typescript\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def need_node() -> None:
    """Skip the test where node or npm is missing, or let it fail where that must not be."""
    reason = _missing()
    if reason is not None:
        assert os.environ.get(NEEDED) != "1", f"{reason}; {NEEDED}=1 says that these tests must not be skipped"
        pytest.skip(reason)


def _missing() -> str | None:
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            return f"{name} is not installed"
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return None if int(version[1:].split(".")[0]) >= NODE_VERSION_MIN else f"node is {version}, which is too old"


class Package:
    """The package in two folders: where it is built from a copy of its source, and where a user installs it."""

    def __init__(self, folder: Path) -> None:
        need_node()
        self.home = folder / "user"
        self._build = folder / "clients" / "typescript"
        ignored = shutil.ignore_patterns("node_modules", "dist", "build", "wire.ts", "LICENSE", "*.tgz")
        shutil.copytree(SOURCE, self._build, ignore=ignored)
        (folder / "docs").mkdir()
        shutil.copy(REPOSITORY / "docs" / "wire.schema.json", folder / "docs")
        shutil.copy(REPOSITORY / "LICENSE", folder)
        self._npm("ci", "--ignore-scripts", folder=self._build)
        self._npm("pack", folder=self._build)  # which builds it before
        [self.archive] = self._build.glob("*.tgz")
        self._install()

    def _install(self) -> None:
        self.home.mkdir()
        (self.home / "package.json").write_text('{"type": "module", "private": true}')
        self._npm("install", "--ignore-scripts", str(self.archive), folder=self.home)
        shutil.copy(SOURCE / "tsconfig.json", self.home)
        shutil.copytree(SOURCE / "test", self.home / "test")

    def compile(self, pages: Sequence[Path]) -> None:
        """Compile the tests, and check the types of the blocks of pages, against what is installed."""
        for page in pages:
            for number, block in enumerate(_BLOCK.finditer(page.read_text(encoding="utf-8"))):
                path = self.home / "test" / "pages" / f"{page.stem}_{number}.ts"
                path.parent.mkdir(exist_ok=True)
                given = textwrap.dedent(block["given"] or "")
                path.write_text(f"{given}{block['code']}\nexport {{}};\n", encoding="utf-8")
        types = self._build / "node_modules" / "@types"
        compiler = self._build / "node_modules" / "typescript" / "bin" / "tsc"
        self.node(str(compiler), "-p", "test", "--typeRoots", str(types), "--noUnusedLocals", "false")

    def node(self, *arguments: str) -> str:
        """Run a program of JavaScript in the user's folder; return what it writes."""
        return run(["node", *arguments], self.home, _RUN_SECONDS)

    def test(self, name: str) -> str:
        """Run a file of tests."""
        return self.node("--test", "--test-reporter=spec", f"build/test/{name}.test.js")

    def _npm(self, command: str, *arguments: str, folder: Path) -> None:
        run(["npm", command, *arguments, *_NPM], folder, INSTALL_SECONDS)


def run(command: Sequence[str], folder: Path, seconds: float) -> str:
    """Run a program that has to succeed, and return what it writes."""
    environment = {**os.environ, "POSTHOUSE_PYTHON": sys.executable, "POSTHOUSE_REPOSITORY": str(REPOSITORY)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-8000:]}"
    return done.stdout
