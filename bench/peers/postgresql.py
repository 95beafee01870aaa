"""PostgreSQL, as Debian's package has it, for systems that keep what they know in it.

Owns its server: a new cluster in a folder of its own, on the loopback interface, with the settings that initdb
writes, so that each commit is synced. The server refuses to be root's: as root it is started for its own user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..processes import Server
from .programs import HOST, free_port, install, is_open

__all__ = ["PostgreSQL"]

_PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian puts each version's programs, which are on nobody's path."""

_USER = "postgres"
"""Whom Debian's package makes for it."""

_CONNECTIONS_MAX = 200


def _program(name: str) -> str | None:
    """Return where a program of the newest version is."""
    found = sorted(_PROGRAMS.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    return str(found[-1]) if found else shutil.which(name)


class PostgreSQL(Server):
    """A cluster with one empty database."""

    _user = _USER if os.geteuid() == 0 else None

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    @property
    def url(self) -> str:
        """The database, as libpq takes it."""
        return f"postgresql://{_USER}@{HOST}:{self.port}/postgres"

    @classmethod
    def missing(cls) -> str | None:
        """Say what is missing to start it; None where nothing is."""
        if _program("postgres") is None or _program("initdb") is None:
            return "PostgreSQL is not installed; as root, make bench-checkpoints installs Debian's package"
        return None

    @classmethod
    def install(cls) -> str:
        """Install Debian's package where that can be done; give what was said about it."""
        return "; ".join(install({"postgres": "postgresql"}))

    @staticmethod
    def version() -> str:
        """Ask the program."""
        said = subprocess.run(
            [_program("postgres") or "postgres", "--version"], capture_output=True, text=True, check=False
        )
        return said.stdout.split()[2]

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Ask the database."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
            return rows

    def _command(self) -> Sequence[str]:
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        data = self.folder / "data"
        if not data.exists():
            command = [_program("initdb") or "initdb", "-D", str(data), "-U", _USER, "-A", "trust", "-E", "UTF8"]
            subprocess.run(
                [*command, "--locale", "C"],
                cwd=self.folder,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
                check=True,
                capture_output=True,
            )
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": _CONNECTIONS_MAX,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [_program("postgres") or "postgres", "-D", str(data), *options]

    def _is_ready(self) -> bool:
        return is_open(self.port) and "ready to accept connections" in self._log_text()
