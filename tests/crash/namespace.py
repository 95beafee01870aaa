"""A network of its own for a worker: a namespace of the kernel, and one cable to it that can be pulled.

Owns the namespace and the pair of interfaces, and takes both away again, whatever happens. The worker binds an
address that exists only at the far end of the cable, so nothing of the machine's own network can reach it. Needs
`ip` (iproute2) and the rights of root; `why_not` says what is missing.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from ..integration.wire_worker import SERVE, Process, Worker

__all__ = ["INSECURE", "Namespace", "NamespacedWorker", "enter", "why_not"]

INSECURE = "[listen]\ninsecure = true\n"
"""For the worker's configuration: nobody but the tests can reach the address that it binds."""

_PREFIX = "posthouse-"
_FILES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
"""From sched.h: what kind of namespace the calling thread enters."""
_COMMAND_SECONDS = 20

_numbers = count()
"""Of the namespaces of this process."""


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@cache
def why_not() -> str | None:
    """Say why there can be no namespaces here; None where there can."""
    if shutil.which("ip") is None:
        return "there is no `ip`: install iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Namespace():
            return None
    except OSError as error:
        return f"there can be no network namespace: {error}"


def enter(file: Path) -> None:
    """Move this thread, and the processes that it will fork, into a namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns", str(file))
    finally:
        os.close(descriptor)


class Namespace:
    """See the module. `near` and `far` are the addresses at the cable's ends; the far one is inside."""

    def __init__(self) -> None:
        pid, number = os.getpid(), next(_numbers)
        self.name = f"{_PREFIX}{pid}-{number}"
        self._near, self._far = f"ph{pid}n{number}", f"ph{pid}f{number}"
        # One of 16384 networks of four addresses, by the process: tests may run side by side.
        net = ((pid + 4093 * number) % 2**14) << 2
        self.near, self.far = (f"10.213.{net >> 8}.{(net & 255) + each}" for each in (1, 2))

    def __repr__(self) -> str:
        return f"<Namespace {self.name} {self.near} to {self.far}>"

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
        _ip("address", "add", f"{self.near}/30", "dev", self._near)
        _ip("-n", self.name, "address", "add", f"{self.far}/30", "dev", self._far)
        _ip("-n", self.name, "link", "set", "lo", "up")
        self.plug()

    def close(self) -> None:
        """Take everything away; the cable goes with the namespace, unless it was never put into it."""
        for command in (("link", "del", self._near), ("netns", "del", self.name)):
            subprocess.run(["ip", *command], capture_output=True, timeout=_COMMAND_SECONDS, check=False)

    @property
    def file(self) -> Path:
        """What a process opens to `enter` it."""
        return _FILES / self.name

    def pull(self, *, far: bool = False) -> None:
        """Pull the cable out: at the near end, where senders are told, or at the far end, where nobody is."""
        if far:
            _ip("-n", self.name, "link", "set", self._far, "down")
        else:
            _ip("link", "set", self._near, "down")

    def plug(self) -> None:
        """Put the cable in, at both ends."""
        _ip("link", "set", self._near, "up")
        _ip("-n", self.name, "link", "set", self._far, "up")

    def connections(self) -> int:
        """Give how many connections the far end holds open."""
        listed = subprocess.run(
            ["ip", "netns", "exec", self.name, "cat", "/proc/net/tcp"],
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=True,
        )
        states = [line.split()[3] for line in listed.stdout.splitlines()[1:]]
        return states.count("01")


class NamespacedWorker(Worker):
    """A worker at the far end of the cable. Everybody else is at the near one."""

    def __init__(self, directory: Path, configuration: str, namespace: Namespace) -> None:
        super().__init__(directory, configuration)
        self.command, self.tap = f"tcp://{namespace.far}:7710", f"tcp://{namespace.far}:7711"
        self._namespace = namespace

    def _spawn(self, arguments: Sequence[str]) -> Process:
        # `ip` becomes the worker: the process id is the worker's own.
        with self._log.open("ab") as log:
            return subprocess.Popen(
                ["ip", "netns", "exec", self._namespace.name, *SERVE, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
