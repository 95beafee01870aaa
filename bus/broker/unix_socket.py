"""The socket file of an `ipc://` address: who may have it, and whose it is at the end.

ZeroMQ would remove whatever lies at the path, be it a file or the socket of a worker that runs, and bind its own.
So the socket is bound here and given to ZeroMQ: a worker that runs keeps its address, a file stays, and the socket
of one that died is taken over. Workers that start at once take turns, by a lock on the folder.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..errors import BindError
from ..wire.limits import SOCKET_PATH_BYTES_MAX

__all__ = ["UnixListener"]

_LOCK_SECONDS = 2.0
"""How long the lock of the folder is waited for: whoever has it needs some milliseconds."""

_LOCK_POLL_SECONDS = 0.02


class UnixListener:
    """A socket that listens at a path, or at an abstract name (`@name`, Linux only)."""

    def __init__(self, address: str, backlog: int) -> None:
        """Bind it; raises BindError where that may not be."""
        self._address = address
        self._path = address.removeprefix("ipc://")
        self._identity: tuple[int, int] | None = None
        if len(os.fsencode(self._path)) > SOCKET_PATH_BYTES_MAX:
            raise self._error(f"a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes", "choose a shorter one")
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._listen(backlog)
        except OSError as error:
            self._socket.close()
            raise self._explain(error) from error
        except BaseException:
            self._socket.close()
            raise

    def __repr__(self) -> str:
        return f"<UnixListener {self._address}>"

    def detach(self) -> int:
        """Return the descriptor; whoever takes it closes it."""
        return self._socket.detach()

    def remove(self) -> None:
        """Remove the socket's file, unless another worker has taken the path over."""
        with suppress(OSError, BindError), self._turn():
            if self._identity is not None and _identity(os.lstat(self._path)) == self._identity:
                os.unlink(self._path)

    def _listen(self, backlog: int) -> None:
        if self._path.startswith("@"):
            self._socket.bind(f"\0{self._path[1:]}")
            self._socket.listen(backlog)
            return
        with self._turn():
            self._clear()
            self._socket.bind(self._path)
            self._socket.listen(backlog)
            self._identity = _identity(os.lstat(self._path))

    def _clear(self) -> None:
        """Remove the socket of a worker that died; raise BindError where something else is there."""
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return  # the folder may be missing, too, and then nothing can be bound
        if not stat.S_ISSOCK(found.st_mode):
            raise self._error("something that is not a socket is there", "move it away, or choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            code = probe.connect_ex(self._path)
        if code in (errno.EACCES, errno.EPERM):
            raise PermissionError(code, os.strerror(code))
        if code not in (errno.ECONNREFUSED, errno.ENOENT):
            raise BindError(self._address, "another program listens there", in_use=True)
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Keep other workers from the folder. One that cannot be read is not locked."""
        import fcntl  # which Windows lacks: bots run there, too

        try:
            folder = os.open(os.path.dirname(self._path) or ".", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            yield
            return
        try:
            deadline = time.monotonic() + _LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BindError(self._address, "another program holds its folder", in_use=True) from None
                    time.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(folder)

    def _explain(self, error: OSError) -> BindError:
        folder = os.path.dirname(self._path) or "."
        match error.errno:
            case errno.EADDRINUSE:
                return BindError(self._address, "another program listens there", in_use=True)
            case errno.ENOENT | errno.ENOTDIR:
                return self._error(f"there is no folder {folder}", "make it, or choose another path")
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return self._error(
                    f"{error.strerror}",
                    f"let this user write to {folder}, and to the socket, or choose another path",
                )
        return self._error(error.strerror or str(error), "check the path")

    def _error(self, reason: str, hint: str) -> BindError:
        return BindError(self._address, reason, in_use=False, hint=hint)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
