"""Restate's server, as its package of npm has it, on this machine alone.

Owns its server: one node in a folder of its own, with its settings as shipped but for the addresses, and with the
number of its partitions where one is given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..processes import BenchFailed, Server
from .programs import HOST, free_port

__all__ = ["Restate"]

_PACKAGE = "@restatedev/restate-server@1.7.12"

_QUIETLY = ("--silent", "--no-audit", "--no-fund", "--ignore-scripts")

_ANSWER_SECONDS = 60.0

_INSTALLED = Path(sys.prefix, "node_modules", "@restatedev")
"""Where `npm install --prefix` puts it, beside this environment's own packages."""


def _program() -> Path | None:
    return next(_INSTALLED.glob("restate-server-*/bin/restate-server"), None)


class Restate(Server):
    """A server with an empty folder."""

    def __init__(self, *, partitions: int | None = None) -> None:
        super().__init__()
        self.ingress_port, self._admin_port, self._node_port = free_port(), free_port(), free_port()
        self._partitions = partitions

    @property
    def url(self) -> str:
        """Where its administration answers."""
        return f"http://{HOST}:{self._admin_port}"

    @classmethod
    def missing(cls) -> str | None:
        """Say what is missing to start it; None where nothing is."""
        if _program() is None:
            return "Restate's server is not installed; make bench-checkpoints installs it where npm is"
        return None

    @classmethod
    def install(cls) -> str:
        """Install it into this environment where npm is; give what was said about it."""
        npm = shutil.which("npm")
        if npm is None:
            return "npm is not installed"
        ended = subprocess.run(
            [npm, "install", *_QUIETLY, "--prefix", sys.prefix, _PACKAGE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.stderr.strip()[-300:]

    @staticmethod
    def version() -> str:
        """Ask the program."""
        said = subprocess.run([str(_program()), "--version"], capture_output=True, text=True, check=False)
        return said.stdout.split()[1]

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Ask it what it has stored."""
        request = urllib.request.Request(
            f"{self.url}/query",
            data=msgspec.json.encode({"query": sql}),
            headers={"content-type": "application/json", "accept": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
                rows: list[dict[str, Any]] = msgspec.json.decode(answer.read())["rows"]
                return rows
        except urllib.error.HTTPError as error:
            raise BenchFailed(f"restate answers {sql} with {error.read().decode()}") from error

    def _command(self) -> Sequence[str]:
        return [str(_program()), "--no-logo"]

    def _environment(self) -> dict[str, str]:
        settings = {
            "BASE_DIR": str(self.folder / "data"),
            "DISABLE_TELEMETRY": "true",
            "LISTEN_MODE": "tcp",
            "BIND_IP": HOST,
            "BIND_PORT": str(self._node_port),
            "ADVERTISED_HOST": HOST,
            "INGRESS__BIND_PORT": str(self.ingress_port),
            "ADMIN__BIND_PORT": str(self._admin_port),
            "LOG_FILTER": "warn",
        }
        if self._partitions is not None:
            settings["DEFAULT_NUM_PARTITIONS"] = str(self._partitions)
        others = {name: value for name, value in os.environ.items() if not name.startswith("RESTATE_")}
        return others | {f"RESTATE_{name}": value for name, value in settings.items()}

    def _is_ready(self) -> bool:
        """Look whether both doors are open and say that they are well."""
        try:
            for port, path in ((self._admin_port, "/health"), (self.ingress_port, "/restate/health")):
                with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=1.0):
                    pass
        except OSError:
            return False
        return True
