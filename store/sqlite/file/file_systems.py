"""On what kind of file system a database is: some lose it.

Owns the kinds that are warned of. They are those of Linux, which lists its mounts; elsewhere nothing is known.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["file_system_of", "file_system_warning"]

_MOUNTS = Path("/proc/self/mountinfo")

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|glusterfs|lustre|gfs2?|ocfs2|fuse\.(sshfs|s3fs|rclone|glusterfs)"
)

_MEMORY = {"tmpfs", "ramfs"}

_LAYERS = {"overlay", "aufs"}

_ESCAPED = re.compile(r"\\([0-7]{3})")


def file_system_of(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return the kind of the file system that has a path, such as ext4; None if it is unknown."""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    found, kind = -1, None
    for line in lines:
        mount, _, rest = line.partition(" - ")
        fields = mount.split()
        if len(fields) < 5 or not rest:
            continue
        point = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[4]))
        if (
            path.is_relative_to(point) and len(point.parts) >= found
        ):  # of two at one place, the later covers the other
            found, kind = len(point.parts), rest.split()[0]
    return kind


def file_system_warning(database: Path, mounts: Path = _MOUNTS) -> str | None:
    """Return what may happen to a database where it is, and what to do; None if nothing is known against it."""
    kind = file_system_of(database, mounts)
    if kind is None:
        return None
    if _NETWORK.fullmatch(kind):
        return (
            f"{database} is on a network file system ({kind}), where neither locks nor syncs can be relied on:"
            " another worker could write to it too, and what was acknowledged be lost; move it to a local disk"
        )
    if kind in _MEMORY:
        return f"{database} is in memory ({kind}): a restart of the machine loses it; move it to a disk"
    if kind in _LAYERS:
        return (
            f"{database} is in a container's own layer ({kind}), which is removed with the container: put it on a"
            " volume"
        )
    return None
