"""Build the image without a builder, and run it: every step of the Dockerfile, in roots of its own.

Run as `python -m tests.integration.chroot_program BASE CONTEXT WHEELS WORK`, as the first process of new namespaces
of processes, mounts and network: whatever becomes of it, its mounts, its files in WORK and its processes end with
it. BASE is the root file system that every stage begins with, CONTEXT what is copied into the first, and WHEELS
where pip finds packages: nothing else can be reached.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..wheel import PIP_SECONDS, RUN_SECONDS, run
from .container import attempt, check_container
from .image import Copy, Folder, Run, Stage, read_dockerfile

_CHROOT, _NSENTER, _UNSHARE = (shutil.which(name) or name for name in ("chroot", "nsenter", "unshare"))

_DEVICES = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1

_PIP = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def as_user(root: Path, user: str, folder: str, arguments: Sequence[str], *, confined: bool = False) -> list[str]:
    """Return what runs a program in a root, as a user of that root, in a folder of it."""
    accounts = [line.split(":") for line in (root / "etc" / "passwd").read_text(encoding="utf-8").splitlines()]
    [(uid, gid)] = [(account[2], account[3]) for account in accounts if user in (account[0], account[2])]
    setpriv = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--init-groups"]
    if confined:
        setpriv += ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    return [_CHROOT, str(root), *setpriv, "env", f"--chdir={folder}", *arguments]


class Building:
    """Stages that are built one after the other, each in a root of its own."""

    def __init__(self, base: Path, context: Path, wheels: Path, work: Path) -> None:
        self._base, self._context, self._wheels, self._work = base, context, wheels, work
        self._roots: dict[str, Path] = {}

    def build(self, stage: Stage) -> Path:
        """Take the steps of a stage; return its root."""
        root = self._roots[stage.name] = self._work / f"stage-{len(self._roots)}"
        run(["cp", "--archive", str(self._base), str(root)], self._work, PIP_SECONDS)
        furnish(root / "dev")
        mount("--types=proc", "proc", root / "proc")
        (root / "wheels").mkdir()
        mount("--bind", self._wheels, root / "wheels")
        for step in stage.steps:
            match step:
                case Copy():
                    self._copy(step, root)
                case Run():
                    self._run(step, root)
                case Folder(path):
                    inside(root, path).mkdir(parents=True, exist_ok=True)
        for name in ("proc", "wheels"):
            run(["umount", str(root / name)], self._work, RUN_SECONDS)
        (root / "wheels").rmdir()
        return root

    def _copy(self, step: Copy, root: Path) -> None:
        source, destination = inside(self._roots[step.stage] if step.stage else self._context, step.source), root
        shutil.copytree(source, inside(destination, step.destination), symlinks=True, dirs_exist_ok=True)

    def _run(self, step: Run, root: Path) -> None:
        arguments = as_user(root, step.user, step.folder, ["/bin/sh", "-c", step.command])
        done = attempt(arguments, PIP_SECONDS, step.environment | _PIP)
        assert done.returncode == 0, f"RUN {step.command}\nended with exit code {done.returncode}:\n{done.stdout}"
        warns = re.search(r"\bwarning\b", done.stdout, re.IGNORECASE)
        assert not warns, f"RUN {step.command}\nwarns:\n{done.stdout}"


class Confined:
    """A container as compose.yaml has it: read-only but for its volumes and /tmp, and without capabilities."""

    def __init__(self, image: Stage, built: Path, work: Path) -> None:
        self._image, self._log = image, work / "log"
        self._root = work / "root"
        self._root.mkdir()
        mount("--bind", built, self._root)
        mount("--options=remount,bind,ro", self._root)
        mount("--types=tmpfs", "--options=mode=1777", "tmpfs", self._root / "tmp")
        for number, path in enumerate(image.volumes):
            volume = work / f"volume-{number}"
            run(["cp", "--archive", str(inside(built, path)), str(volume)], work, RUN_SECONDS)
            mount("--bind", volume, inside(self._root, path))
        unshare = [_UNSHARE, "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self._root / 'proc'}"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*unshare, *self._as_user(*image.entrypoint, *image.command)],
                env=image.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def execute(self, *arguments: str, seconds: float, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a program beside the worker."""
        enter = [_NSENTER, f"--target={self._worker()}", "--mount", "--pid"]
        return attempt([*enter, *self._as_user(*arguments)], seconds, self._image.environment | environment)

    def log(self) -> str:
        """Return what the worker wrote."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """Send the worker the image's signal, and return its exit code."""
        os.kill(self._worker(), self._image.stop)
        deadline = time.monotonic() + RUN_SECONDS
        while (code := self._process.poll()) is None:
            assert time.monotonic() < deadline, f"the worker does not end:\n{self.log()}"
            self._reap_others()
            time.sleep(0.02)
        return code

    def _reap_others(self) -> None:
        """Reap what was left by a check that took too long: the worker's namespace ends with its last process."""
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == self._process.pid:
                return
            os.waitpid(ended.si_pid, 0)

    def _as_user(self, *arguments: str) -> list[str]:
        return as_user(self._root, self._image.user, self._image.folder, arguments, confined=True)

    def _worker(self) -> int:
        """Return the id of the child of `unshare`, which is the first process in its namespace."""
        while self._process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/stat"):
                with suppress(OSError):  # it has ended
                    if path.read_text(encoding="utf-8").rpartition(")")[2].split()[1] == str(self._process.pid):
                        return int(path.parent.name)
        raise AssertionError(f"the worker ended with exit code {self._process.returncode}:\n{self.log()}")


def inside(root: Path, path: str) -> Path:
    """Return where a path of a root is."""
    return root / path.removeprefix("/")


def mount(*arguments: str | Path) -> None:
    """Mount something, in this namespace alone."""
    run(["mount", *map(str, arguments)], Path("/"), RUN_SECONDS)


def furnish(folder: Path) -> None:
    """Add the devices that programs expect."""
    for name, minor in _DEVICES.items():
        device = folder / name
        os.mknod(device, stat.S_IFCHR, os.makedev(1, minor))
        device.chmod(0o666)


def raise_loopback() -> None:
    """Let the processes of this network reach each other."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def main(base: Path, context: Path, wheels: Path, work: Path) -> None:
    """Build the image and check a container of it."""
    raise_loopback()
    mount("--types=tmpfs", "tmpfs", work)
    building = Building(base, context, wheels, work)
    stages = read_dockerfile()
    [*_, root] = [building.build(stage) for stage in stages]
    check_container(Confined(stages[-1], root, work), stages[-1])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
