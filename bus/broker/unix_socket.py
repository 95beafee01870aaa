"""The socket file of an `ipc://` address: binding, taking it over, and removing it.

ZeroMQ would remove whatever is at the path, even a regular file or the socket of a running worker, and bind its
own. So the socket is bound here and passed to ZeroMQ: a running worker keeps its address, a regular file stays, and
the socket of a worker that died is taken over. Workers that start at the same time take turns, by a lock on the
folder.
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

__all__ = ["UnixListener"]

_LOCK_SECONDS = 2.0
"""How long to wait for the lock on the folder: it is held for some milliseconds."""

_LOCK_POLL_SECONDS = 0.02


class UnixListener:
    """A socket that listens at a path, or at an abstract name (`@name`, Linux only)."""

    def __init__(self, address: str, backlog: int) -> None:
        """Bind it. Raises BindError if that is impossible."""
        self._address = address
        self._path = address.removeprefix("ipc://")
        self._identity: tuple[int, int] | None = None
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
        """Return the descriptor, which the caller must close."""
        return self._socket.detach()

    def remove(self) -> None:
        """Remove the socket's file, unless another worker has taken over the path."""
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
        """Remove the socket of a worker that died. Raise BindError if something else is there."""
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return  # the folder may be missing too: then binding fails
        if not stat.S_ISSOCK(found.st_mode):
            raise self._error("the path exists and is not a socket", "move it away, or choose another path")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            code = probe.connect_ex(self._path)
        if code in (errno.EACCES, errno.EPERM):
            raise PermissionError(code, os.strerror(code))
        if code not in (errno.ECONNREFUSED, errno.ENOENT):
            raise BindError(self._address, "another program is listening there", in_use=True)
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Lock the folder against other workers. A folder that cannot be read is not locked."""
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
                        raise BindError(
                            self._address, "another program has locked its folder", in_use=True
                        ) from None
                    time.sleep(_LOCK_POLL_SECONDS)
            yield
        finally:
            os.close(folder)

    def _explain(self, error: OSError) -> BindError:
        folder = os.path.dirname(self._path) or "."
        match error.errno:
            case errno.EADDRINUSE:
                return BindError(self._address, "another program is listening there", in_use=True)
            case errno.ENOENT | errno.ENOTDIR:
                return self._error(f"{folder} is not an existing folder", "create it, or choose another path")
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return self._error(
                    f"{error.strerror}",
                    f"give this user write access to {folder} and to the socket, or choose another path",
                )
        return self._error(error.strerror or str(error), "check the path")

    def _error(self, reason: str, hint: str) -> BindError:
        return BindError(self._address, reason, in_use=False, hint=hint)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
