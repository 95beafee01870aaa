"""A disk whose power can be cut: an ext4 file system in a file, and what of it would be left.

Owns the images, where they are mounted, and that nothing of them stays. What a program wrote and did not sync is in
the memory of the mounted file system; the file behind the loop device has only what was handed to the disk. A copy
of that file is what a power cut leaves, and mounting the copy is what a machine does when it comes back.

Everything lies in folders whose names begin with `PREFIX` and this process's id. Those of processes that are no
more are unmounted and removed when the next one begins.
"""

from __future__ import annotations

import ctypes
import filecmp
import os
import re
import shutil
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["PREFIX", "Disk", "Disks", "why_not", "write_back"]

PREFIX = "posthouse-disk-"

_SECONDS = 30.0

_MOUNTED = re.compile(rf"^\S+ (\S*/{PREFIX}(\d+)-\S*) ", re.MULTILINE)

_WRITE_AND_WAIT = 0b111
"""SYNC_FILE_RANGE_WAIT_BEFORE, _WRITE and _WAIT_AFTER: see sync_file_range(2)."""

_FORMAT = [
    "mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-O", "^resize_inode,^metadata_csum",
    "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
]  # fmt: skip
"""What makes a file system soon: nothing is prepared that nobody reads. Its blocks are those of a larger one: with
the smaller ones that such a small one would get, SQLite's -shm file is a SIGBUS when the disk is full."""

_OPTIONS = "loop,noatime,commit=300"
"""The journal is committed by a sync alone: the five seconds of the default would help one that forgot to."""


@cache
def why_not() -> str | None:
    """Say why no power can be cut here; None where it can."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    try:
        with Disks() as disks:
            disks.new(8).unmount()
    except subprocess.CalledProcessError as error:
        return f"nothing can be mounted here: {error.stderr.strip()}"
    return None


class Disk:
    """One image, and where it is mounted."""

    def __init__(self, image: Path) -> None:
        self.image = image
        self.folder = image.with_suffix(".mounted")
        """Its root, while it is mounted."""
        self.mounted = False

    def __repr__(self) -> str:
        return f"<Disk {self.image} {'mounted' if self.mounted else 'not mounted'}>"

    def mount(self) -> None:
        """Mount it, replaying its journal."""
        self.folder.mkdir(exist_ok=True)
        _run("mount", "-o", _OPTIONS, str(self.image), str(self.folder))
        self.mounted = True

    def unmount(self) -> None:
        """Unmount it, which writes everything back. Every file on it has to be closed."""
        if self.mounted:
            _run("umount", str(self.folder))
            self.mounted = False

    def copy_to(self, image: Path) -> None:
        """Copy what the disk has at one moment: it is read until nothing of it changes meanwhile."""
        deadline = time.monotonic() + _SECONDS
        while True:
            _run("cp", "--sparse=always", str(self.image), str(image))
            if filecmp.cmp(self.image, image, shallow=False):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.image} does not cease to change: is its worker still running?")

    def remove(self) -> None:
        """Unmount it, and forget what is on it."""
        self.unmount()
        self.image.unlink()
        self.folder.rmdir()


class Disks:
    """The disks of one test: `with Disks() as disks:`. All are gone when it is left, however it is left."""

    def __init__(self) -> None:
        self.folder: Path
        self._disks: list[Disk] = []

    def __enter__(self) -> Self:
        _remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for disk in self._disks:
            if disk.mounted:
                _detach(disk.folder)
        shutil.rmtree(self.folder)

    def new(self, size_mebibytes: int = 64) -> Disk:
        """Make an empty disk and mount it."""
        disk = self._disk()
        with disk.image.open("wb") as file:
            file.truncate(size_mebibytes * 1024 * 1024)
        _run(*_FORMAT, str(disk.image))
        disk.mount()
        return disk

    def cut(self, disk: Disk) -> Disk:
        """Give what a power cut leaves of a disk, mounted. The disk itself goes on."""
        left = self._disk()
        disk.copy_to(left.image)
        left.mount()
        return left

    def _disk(self) -> Disk:
        disk = Disk(self.folder / f"disk-{len(self._disks)}.img")
        self._disks.append(disk)
        return disk


def write_back(path: Path, start: int, size_bytes: int) -> None:
    """Hand a part of a file to the disk, as the kernel may do at any time with what was not synced."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.open(path, os.O_RDONLY)
    try:
        arguments = (ctypes.c_int64(start), ctypes.c_int64(size_bytes), ctypes.c_uint(_WRITE_AND_WAIT))
        if libc.sync_file_range(file, *arguments) != 0:
            raise OSError(ctypes.get_errno(), f"sync_file_range on {path}")
    finally:
        os.close(file)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)


def _detach(folder: Path) -> None:
    """Unmount what may still be in use; its loop device is free when the last file on it is closed.

    Another process of the tests may remove the same leftover at the same time.
    """
    try:
        _run("umount", str(folder))
    except subprocess.CalledProcessError:
        try:
            _run("umount", "--lazy", str(folder))
        except subprocess.CalledProcessError:
            if os.path.ismount(folder):
                raise


def _remove_leftovers() -> None:
    """Remove what tests of processes that are no more have left behind."""
    for folder, pid in _MOUNTED.findall(Path("/proc/mounts").read_text(encoding="utf-8")):
        if not Path("/proc", pid).exists():
            _detach(Path(folder))
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)
