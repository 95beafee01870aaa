"""What a worker tells the process that started it, if that wants to know: systemd's protocol, sd_notify(3).

Owns the socket in NOTIFY_SOCKET and the interval in WATCHDOG_USEC. Nothing here raises: a worker serves even if
nobody listens.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

import anyio

__all__ = ["ServiceManager"]

_MICROSECONDS = 1_000_000

_DIGITS_MAX = 18
"""Of an interval that means something."""


class ServiceManager:
    """What started this process; nobody is told anything if that left no address."""

    def __init__(self, environment: MutableMapping[str, str] | None = None) -> None:
        """Remove the address from the environment, `os.environ` if None: child processes must not use it."""
        found = os.environ if environment is None else environment
        address = found.pop("NOTIFY_SOCKET", "")
        interval, pid = found.pop("WATCHDOG_USEC", ""), found.pop("WATCHDOG_PID", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        is_watched = interval.isdecimal() and len(interval) < _DIGITS_MAX and pid in ("", str(os.getpid()))
        self._watchdog_seconds = int(interval) / _MICROSECONDS if is_watched and address else 0.0

    def __repr__(self) -> str:
        return f"<ServiceManager {self._address or 'nobody'}>"

    def ready(self, status: str) -> None:
        """Report that the worker serves, or that it has read its configuration again."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Report that the worker reads its configuration again; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self, status: str) -> None:
        """Report that the worker ends."""
        self._tell("STOPPING=1", f"STATUS={status}")

    async def stay_alive(self) -> None:
        """Report twice in each interval of the watchdog that the loop turns. Return at once without a watchdog."""
        while self._watchdog_seconds:
            self._tell("WATCHDOG=1")
            await anyio.sleep(self._watchdog_seconds / 2)

    def _tell(self, *assignments: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.setblocking(False)
                told.sendto("\n".join(assignments).encode(), self._address)
