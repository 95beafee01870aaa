"""The disk itself: what a cut leaves, and that nothing of a test stays behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from .disk import PREFIX, Disk, Disks, why_not, write_back

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def write(path: Path, content: bytes, *, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fdatasync(file.fileno())


def test_a_cut_leaves_what_was_synced_and_nothing_else() -> None:
    with Disks() as disks:
        disk = disks.new(8)
        write(disk.folder / "synced", b"kept", sync=True)
        write(disk.folder / "unsynced", b"lost", sync=False)
        left = disks.cut(disk)
        assert (left.folder / "synced").read_bytes() == b"kept"
        assert not (left.folder / "unsynced").exists()
        assert (disk.folder / "unsynced").read_bytes() == b"lost", "the disk that was copied goes on"


def test_what_the_kernel_wrote_by_itself_is_left_too() -> None:
    with Disks() as disks:
        disk = disks.new(8)
        for name in ("one", "other"):
            write(disk.folder / name, b"a" * 4096, sync=True)
            with (disk.folder / name).open("r+b") as file:
                file.write(b"b" * 4096)
        write_back(disk.folder / "other", 0, 4096)
        left = disks.cut(disk).folder
        assert (left / "one").read_bytes() == b"a" * 4096
        assert (left / "other").read_bytes() == b"b" * 4096


def fail(disks: Disks) -> None:
    with disks:
        disks.new(8)
        raise ZeroDivisionError


def test_nothing_stays_of_a_test_that_fails() -> None:
    disks = Disks()
    with pytest.raises(ZeroDivisionError):
        fail(disks)
    assert str(disks.folder) not in Path("/proc/mounts").read_text(encoding="utf-8")
    assert not disks.folder.exists()


def test_what_a_process_left_that_is_no_more_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where no other test looks for what is left
    with subprocess.Popen(["true"]) as process:
        pass
    other = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    with Disks() as disks:
        left = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{process.pid}-"))
        image = left / "disk-0.img"
        disks.new(8).copy_to(image)
        Disk(image).mount()
    with Disks():
        assert not left.exists()
        assert str(left) not in Path("/proc/mounts").read_text(encoding="utf-8")
        assert other.exists()
    other.rmdir()
