"""The machine that a benchmark runs on: what to know of it beside the figures, and nothing that names it.

Owns the look at the operating system. What a system does not tell is None, and no benchmark depends on it.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["cpu_seconds", "facts", "load", "unsent_bytes"]

_CONNECTIONS = Path("/proc/net/tcp")


def facts() -> dict[str, Any]:
    """Describe the machine and this Python."""
    return {
        "cpu_count": os.cpu_count(),
        "system": platform.system(),
        "kernel": platform.release().partition("-")[0],
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def load() -> float:
    """Give the mean number of processes that wanted to run in the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_seconds(process: int) -> float:
    """Give what a process took of the processors until now; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def unsent_bytes(port: int) -> int | None:
    """Give the most that the kernel holds for one TCP connection of a local port, and its peer does not take."""
    try:
        lines = _CONNECTIONS.read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return None
    rows = [line.split() for line in lines]
    return max((int(row[4].partition(":")[0], 16) for row in rows if int(row[1][-4:], 16) == port), default=0)
