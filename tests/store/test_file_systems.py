"""Kinds of file systems that lose a database, from Linux's list of mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.sqlite.file.file_systems import file_system_of, file_system_warning

MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:30 / /home rw - nfs4 server:/home rw
31 22 0:31 / /home/my\040disk rw shared:1 - xfs /dev/vdb rw
32 22 0:32 / /run rw - tmpfs tmpfs rw
33 22 0:33 / /layer rw - overlay overlay rw
34 22 0:34 / /twice rw - ext4 /dev/vdc rw
35 22 0:35 / /twice rw - cifs //server/share rw
36 22 0:36 / /ssh rw - fuse.sshfs me@server: rw
a line that nobody understands
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS)
    return path


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/var/posthouse.db", "ext4", None),
        ("/home/posthouse.db", "nfs4", "on a network file system (nfs4)"),
        ("/homes/posthouse.db", "ext4", None),
        ("/home/my disk/posthouse.db", "xfs", None),
        ("/run/posthouse.db", "tmpfs", "in memory (tmpfs)"),
        ("/layer/deep/posthouse.db", "overlay", "put it on a volume"),
        ("/twice/posthouse.db", "cifs", "on a network file system (cifs)"),
        ("/ssh/posthouse.db", "fuse.sshfs", "on a network file system (fuse.sshfs)"),
    ],
)
def test_a_database_is_warned_of_where_it_could_be_lost(
    mounts: Path, path: str, kind: str, words: str | None
) -> None:
    assert file_system_of(Path(path), mounts) == kind
    warning = file_system_warning(Path(path), mounts)
    assert warning is None if words is None else words in str(warning)


def test_where_mounts_are_not_listed_nothing_is_known(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, tmp_path / "none") is None
    assert file_system_warning(tmp_path, tmp_path / "none") is None
