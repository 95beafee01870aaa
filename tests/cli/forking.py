"""Commands that start in a few milliseconds: one process imports everything, and forks each of them.

What takes time at a start is importing. The child is the whole command: a process with streams, an environment and
an exit code of its own. What is tested of the interpreter itself, its start and its end, takes a process that is
started as usual (see `test_streams`).

Run as a program with the descriptor of a socket it takes one JSON object a message, `arguments`, `environment` and
`directory`, with four descriptors: the three streams of the command, and where its process id and its exit code are
to be written. It ends when nobody has the other end of the socket any more.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["REPOSITORY", "fork", "run_forked"]

REPOSITORY = Path(__file__).resolve().parents[2]
_STDIN_BYTES_MAX = 65_536
"""What a pipe takes while nobody reads."""
_REQUEST_BYTES_MAX = 1_000_000


def run_forked(
    arguments: Sequence[str],
    *,
    stdin: str = "",
    environment: Mapping[str, str],
    directory: Path = REPOSITORY,
    timeout_seconds: float,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as `subprocess.run` would."""
    given = stdin.encode()
    assert len(given) <= _STDIN_BYTES_MAX
    (source, pipe), *outputs = (os.pipe() for _ in range(3))
    streams = [source, *(writing for _, writing in outputs)]
    answer = fork(arguments, environment, streams, directory=directory)
    os.write(pipe, given)
    os.close(pipe)
    found = _read_to_the_end([*(reading for reading, _ in outputs), answer], timeout_seconds)
    output, errors, answered = (each.decode() for each in found)
    return subprocess.CompletedProcess(list(arguments), int(answered.split()[1]), output, errors)


def fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: Sequence[int],
    *,
    directory: Path = REPOSITORY,
) -> int:
    """Begin a command with these streams, which are closed here; give a descriptor from which to read its answer.

    That is two lines: the process id when it has begun, and the exit code when it has ended.
    """
    asked = {"arguments": list(arguments), "environment": dict(environment), "directory": str(directory)}
    request = json.dumps(asked).encode()
    reading, writing = os.pipe()
    try:
        socket.send_fds(_forker(), [request], [*streams, writing])
    finally:
        for each in {*streams, writing}:
            os.close(each)
    return reading


def _read_to_the_end(descriptors: Sequence[int], timeout_seconds: float) -> list[bytes]:
    deadline = time.monotonic() + timeout_seconds
    found = dict.fromkeys(descriptors, b"")
    with selectors.DefaultSelector() as selector:
        for each in descriptors:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                if pid := found[descriptors[-1]]:
                    os.kill(int(pid), signal.SIGKILL)
                raise AssertionError(f"the command did not end within {timeout_seconds} s, but wrote {found}")
            for key, _ in ready:
                part = os.read(key.fd, 65_536)
                found[key.fd] += part
                if not part:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return list(found.values())


@cache
def _forker() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.forking", str(theirs.fileno())],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# ── The program ──────────────────────────────────────────────────────────────────────────────────────────


def _serve(requests: socket.socket) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 4)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(message), descriptors)
        for each in descriptors:
            os.close(each)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


def _watch(request: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Fork the command, and say what it exited with."""
    *streams, answer = descriptors
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        for number, each in enumerate(streams):
            os.dup2(each, number)
            os.close(each)
        _be_the_command(request)
    os.write(answer, f"{pid}\n".encode())
    for each in streams:
        os.close(each)
    _, status = os.waitpid(pid, 0)
    os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _be_the_command(request: dict[str, Any]) -> None:
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = ["posthouse", *request["arguments"]]
    # The interpreter's own know what they were opened on.
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    from bus.__main__ import begin
    from bus.broker.log_stream import LogStream
    from bus.cli.program import program

    code = 1
    try:
        begin()
        program()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    if isinstance(sys.stderr, LogStream):
        sys.stderr.finish()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _main() -> None:
    from bus.cli.commands import COMMANDS

    for place in COMMANDS.values():
        import_module(place.partition(":")[0])
    import_module("anyio._backends._asyncio")
    gc.collect()
    gc.freeze()  # a child's collections would copy the memory that both share
    _serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    _main()
