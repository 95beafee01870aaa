"""The socket file of an `ipc://` address: binding, taking it over, and removing it.

ZeroMQ would remove whatever is at the path, even a regular file or the socket of a running worker, and bind its
own. So the socket is bound here and passed to ZeroMQ: a running worker keeps its address, a regular file stays, and
the socket of a worker that died is taken over. A lock on `<path>.lock`, which the worker holds as long as it
listens, keeps others away even if somebody removed the socket. Only this user may connect, and open the lock.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import suppress

from ..errors import BindError

__all__ = ["UnixListener"]

_MODE = 0o600


class UnixListener:
    """A socket that listens at a path."""

    def __init__(self, address: str, backlog: int) -> None:
        """Bind it. Raises BindError if that is impossible."""
        self._address = address
        self._path = address.removeprefix("ipc://")
        self._lock_path = f"{self._path}.lock"
        self._lock: int | None = None
        self._identity: tuple[int, int] | None = None
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._refuse_other_kinds()
            self._lock = self._take_lock()
            self._listen(backlog)
        except OSError as error:
            self._give_up()
            raise self._explain(error) from error
        except BaseException:
            self._give_up()
            raise

    def __repr__(self) -> str:
        return f"<UnixListener {self._address}>"

    def detach(self) -> int:
        """Return the descriptor, which the caller must close."""
        return self._socket.detach()

    def remove(self) -> None:
        """Remove the socket's file, unless another one is there, and the lock."""
        with suppress(OSError):
            if self._identity is not None and _identity(os.lstat(self._path)) == self._identity:
                os.unlink(self._path)
        self._release()

    def _listen(self, backlog: int) -> None:
        self._clear()
        self._socket.bind(self._path)
        os.chmod(self._path, _MODE)  # nobody can connect before `listen`
        self._socket.listen(backlog)
        self._identity = _identity(os.lstat(self._path))

    def _refuse_other_kinds(self) -> bool:
        """Return True if a socket is at the path. Raise BindError if something else is."""
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return False
        if not stat.S_ISSOCK(found.st_mode):
            raise self._error("the path exists and is not a socket", "move it away, or choose another path")
        return True

    def _clear(self) -> None:
        """Remove the socket of a worker that died. Raise BindError if something else is there."""
        if not self._refuse_other_kinds():
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            code = probe.connect_ex(self._path)
        if code in (errno.EACCES, errno.EPERM):
            raise PermissionError(code, os.strerror(code))
        if code not in (errno.ECONNREFUSED, errno.ENOENT):
            raise self._in_use()
        with suppress(FileNotFoundError):
            os.unlink(self._path)

    # ── The lock ─────────────────────────────────────────────────────────────────────────────────────────

    def _take_lock(self) -> int:
        """Return the descriptor of the locked lock file. Who stops removes it, so it may have to be made again."""
        import fcntl  # which Windows lacks: bots run there, too

        while True:
            lock = self._open_lock()
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if _identity(os.lstat(self._lock_path)) == _identity(os.fstat(lock)):
                        return lock
            except BlockingIOError:
                os.close(lock)
                raise self._in_use() from None
            os.close(lock)

    def _open_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            lock = os.open(self._lock_path, flags, _MODE)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise self._not_ours() from error
            raise
        found = os.fstat(lock)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_size:
            os.close(lock)
            raise self._not_ours()
        return lock

    def _release(self) -> None:
        """Remove the lock file, and only then let go of it."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        with suppress(OSError):
            if _identity(os.lstat(self._lock_path)) == _identity(os.fstat(lock)):
                os.unlink(self._lock_path)
        os.close(lock)

    def _give_up(self) -> None:
        self._socket.close()
        self._release()

    # ── Refusals ─────────────────────────────────────────────────────────────────────────────────────────

    def _explain(self, error: OSError) -> BindError:
        folder = os.path.dirname(self._path) or "."
        match error.errno:
            case errno.EADDRINUSE:
                return self._in_use()
            case errno.ENOENT | errno.ENOTDIR:
                return self._error(f"{folder} is not an existing folder", "create it, or choose another path")
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return self._error(
                    f"{error.strerror}",
                    f"give this user write access to {folder} and to the socket, or choose another path",
                )
        return self._error(error.strerror or str(error), "check the path")

    def _in_use(self) -> BindError:
        return BindError(self._address, "another program is listening there", in_use=True)

    def _not_ours(self) -> BindError:
        return self._error(
            f"{self._lock_path} is not a lock of this user", "look what it is, move it away, or choose another path"
        )

    def _error(self, reason: str, hint: str) -> BindError:
        return BindError(self._address, reason, in_use=False, hint=hint)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
