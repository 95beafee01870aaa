"""The programs and ports of other systems' servers.

Owns where a server's program is found, what to do where there is none, and that a server listens on the loopback
interface alone.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["HOST", "PROGRAMS", "find", "free_port", "install", "is_open", "lacking"]

HOST = "127.0.0.1"

PROGRAMS = {"redis-server": "redis-server", "rabbitmqctl": "rabbitmq-server"}
"""The programs that come with packages of Debian, by the package."""

_CONNECT_SECONDS = 0.2


def find(program: str) -> str | None:
    """Give where a program is: in this environment, or in the system."""
    own = Path(sys.executable).parent / program
    return str(own) if own.exists() else shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def lacking(program: str, module: str) -> str | None:
    """Say what is missing of a server's program and its client's module; None where both are there."""
    if importlib.util.find_spec(module) is None:
        return f"the Python package {module} is not installed; make bench installs it"
    if find(program) is None:
        package = PROGRAMS.get(program, program)
        return f"{program} is not installed; as root, make bench installs Debian's {package}"
    return None


def install(programs: Mapping[str, str] = PROGRAMS) -> list[str]:
    """Install programs that are missing from Debian's packages, where that can be done; give what was said."""
    said: list[str] = []
    missing = [package for program, package in programs.items() if find(program) is None]
    if not missing:
        return said
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return [f"not installed, since that needs apt-get and root: {', '.join(missing)}"]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # which starts no service
    for command in (
        ["update", "-qq"],
        *(["install", "-y", "-qq", "--no-install-recommends", each] for each in missing),
    ):
        ended = _apt_get(command, environment)
        if ended.returncode:
            said.append(f"apt-get {' '.join(command)}: {ended.stderr.strip()[-300:]}")
    return said


def _apt_get(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def free_port() -> int:
    """Give a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def is_open(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    try:
        with socket.create_connection((HOST, port), _CONNECT_SECONDS):
            return True
    except OSError:
        return False
