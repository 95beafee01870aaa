"""PostgreSQL from Debian's packages: nodes on the loopback interface, started in seconds and ended by process id.

Owns where the programs are found, a node's files and settings, and its process. PostgreSQL refuses to be root's, so
as root it is started as the user `postgres`. A node ends with the process that started it, even if that is killed
while the node is frozen (`guardian`).
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

__all__ = [
    "HOST",
    "USER",
    "Node",
    "as_owner",
    "free_ports",
    "guarded",
    "missing",
    "programs",
    "quorum",
    "single",
    "version",
]

HOST = "127.0.0.1"
USER = "postgres"
"""Both the system's user that a node belongs to, if the tests run as root, and the node's own superuser."""

VERSION_MIN = 15

_PROGRAMS = Path("/usr/lib/postgresql")
"""Where Debian puts each version's programs, which are on nobody's path."""

_STARTED_SECONDS_MAX = 60.0
_ENDED_SECONDS_MAX = 60.0

_GONE = "-"
_ENDED = {_GONE, "X", "Z"}
_STANDING = {*_ENDED, "T", "t"}
"""States of processes: a zombie has ended, though nobody has asked for its end."""

_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 32MB
max_connections = 60
max_wal_senders = 8
wal_sync_method = fdatasync
checkpoint_timeout = 30min
log_min_messages = warning
jit = off
"""
"""With the defaults of what keeps data safe: `fsync`, `full_page_writes` and `synchronous_commit` are on."""


def programs() -> Path | None:
    """Return the folder of the newest version's programs."""
    found = [path.parent for path in _PROGRAMS.glob("*/bin/initdb")]
    if not found:
        on_path = shutil.which("initdb")
        return None if on_path is None else Path(on_path).resolve().parent
    return max(found, key=lambda path: int(path.parent.name))


def missing() -> str | None:
    """Say why no node can be started here; None if one can."""
    if programs() is None:
        return "PostgreSQL is not installed (apt-get install postgresql)"
    if int(version().partition(".")[0]) < VERSION_MIN:
        return f"PostgreSQL {version()} is too old: version {VERSION_MIN} or newer is needed"
    if shutil.which("setpriv") is None:
        return "setpriv is not installed (apt-get install util-linux)"
    return None


def version() -> str:
    """Return the version of the programs, which must be there."""
    command = [f"{programs()}/postgres", "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[2]


def as_owner(*command: str | Path) -> list[str]:
    """Return a command that is run as the owner of a node's files, and ends with its parent."""
    owner = ["--reuid", USER, "--regid", USER, "--init-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *owner, "--pdeathsig", "KILL", "--", *map(str, command)]


def _run(folder: Path, program: str, *arguments: str | Path) -> str:
    command = as_owner(f"{programs()}/{program}", *arguments)
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise AssertionError(f"{program} failed: {ended.stdout}{ended.stderr}")
    return ended.stdout


class Node:
    """One server with its own data folder."""

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.name = name
        self.port = port
        self.folder = folder
        self._data = folder / name
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Node {self.name} port={self.port} pid={self._process.pid if self._process else None}>"

    def url(self, database: str = USER) -> str:
        """Return the URL of one of its databases."""
        return f"postgresql://{USER}@{HOST}:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """The id of its main process."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The ids of all its processes."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        return [self.pid, *map(int, children)]

    def create(self) -> None:
        """Make a new, empty cluster."""
        options = ["-U", USER, "-A", "trust", "-E", "UTF8", "--locale", "C", "--no-sync"]
        _run(self.folder, "initdb", "-D", self._data, *options)
        self.configure(_SETTINGS)
        self.configure(f"port = {self.port}")

    def resemble(self, node: Node) -> None:
        """Be as another node is, which does not run."""
        subprocess.run(as_owner("cp", "-a", node._data, self._data), check=True)
        self.configure(f"port = {self.port}")

    def stand_by(self, primary: Node) -> None:
        """Follow a primary that resembles the one that was followed, from the start on."""
        with (self._data / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
            file.write(f"primary_conninfo = '{self._source(primary)}'\n")

    def copy(self, primary: Node) -> None:
        """Become a standby of a node that runs, with a replication slot of its own. What was here is removed."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._reserve(primary)
        options = ["-R", "-S", self.name, "-c", "fast", "--no-sync"]
        _run(self.folder, "pg_basebackup", "-d", self._source(primary), "-D", self._data, *options)
        self.configure(f"port = {self.port}")

    def follow(self, primary: Node) -> None:
        """Follow another primary, as a standby that runs."""
        self._reserve(primary)
        self.query(f"ALTER SYSTEM SET primary_conninfo = '{self._source(primary)}'")
        self.reload()

    def _source(self, primary: Node) -> str:
        return f"host={HOST} port={primary.port} user={USER} application_name={self.name}"

    def _reserve(self, primary: Node) -> None:
        """Let a primary keep what this node has not received."""
        primary.query(
            f"SELECT pg_create_physical_replication_slot('{self.name}') WHERE NOT EXISTS"
            f" (SELECT FROM pg_replication_slots WHERE slot_name = '{self.name}')"
        )

    def query(self, sql: str, database: str = USER) -> list[str]:
        """Carry out SQL as its superuser and return the rows, with `|` between columns."""
        return _run(self.folder, "psql", "-qAt", "-d", self.url(database), "-c", sql).splitlines()

    def configure(self, lines: str) -> None:
        """Add settings, which count when the node starts or is told to `reload`."""
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"{lines.strip()}\n")

    def ask_for_passwords(self, role: str) -> None:
        """Let a role in with its password only."""
        path = self._data / "pg_hba.conf"
        rest = path.read_text(encoding="utf-8")
        path.write_text(f"host all {role} {HOST}/32 scram-sha-256\n{rest}", encoding="utf-8")
        self.reload()

    def start(self) -> None:
        """Start it, and return when it accepts connections."""
        with self._log.open("ab") as log:
            command = as_owner(f"{programs()}/postgres", "-D", self._data)
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        status = self._data / "postmaster.pid"
        deadline = time.monotonic() + _STARTED_SECONDS_MAX
        while True:
            lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
            if len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby"):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.name} did not start: {self._log.read_text(encoding='utf-8')[-2000:]}")
            time.sleep(0.01)

    def reload(self) -> None:
        """Let it read its settings again."""
        os.kill(self.pid, signal.SIGHUP)

    def promote(self) -> None:
        """Make a standby the primary, and return when it is."""
        _run(self.folder, "pg_ctl", "promote", "-D", self._data, "-w")

    @property
    def is_running(self) -> bool:
        """Return True from its start until it is killed or stopped."""
        return self._process is not None

    def freeze(self) -> None:
        """Stop all its processes where they are, and return when none takes another step."""
        self._send(self.pid, signal.SIGSTOP, _STANDING)  # so that it makes no more of them
        for pid in self.pids[1:]:
            self._send(pid, signal.SIGSTOP, _STANDING)

    def _send(self, pid: int, number: signal.Signals, states: set[str]) -> None:
        """Send a signal to a process, and wait until it is in one of these states."""
        _signal(pid, number)
        _until(lambda: _state(pid) in states, f"process {pid} of {self.name} did not heed {number.name}")

    def thaw(self) -> None:
        """Let them go on."""
        for pid in self.pids:
            _signal(pid, signal.SIGCONT)

    def kill(self) -> None:
        """End all its processes at once, as a power cut would, but for what the system still writes."""
        pids = self.pids
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        self._wait()
        _until(lambda: {*map(_state, pids)} <= _ENDED, f"processes of {self.name} are left of {pids}")

    def stop(self) -> None:
        """End it, if it runs: its connections are closed, and what was committed is kept."""
        if self._process is None:
            return
        self.thaw()
        os.kill(self.pid, signal.SIGINT)
        try:
            self._wait()
        except subprocess.TimeoutExpired:
            self.kill()

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait(_ENDED_SECONDS_MAX)
        self._process = None


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # one that serves a session may have ended
        os.kill(pid, number)


def _state(pid: int) -> str:
    """Return the letter of a process's state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return _GONE


def _until(happened: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _ENDED_SECONDS_MAX
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(otherwise)
        time.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Find ports that are free now, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Let another process end whatever works in a folder, should this one be killed."""
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guardian.py")), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield


@contextmanager
def _nodes(names: Sequence[str], parent: Path | None) -> Iterator[list[Node]]:
    """Yield nodes with a folder and a port each, and remove them in the end."""
    prefix = "posthouse-postgresql-" if parent is None else ".bench-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
        nodes = [Node(folder, name, port) for name, port in zip(names, free_ports(len(names)), strict=True)]
        with guarded(folder):
            try:
                yield nodes
            finally:
                for node in reversed(nodes):
                    node.stop()


@cache
def _kept() -> ExitStack:
    """Return what is closed when the process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack


@cache
def _empty_model() -> Node:
    """Return a node that was never started: to copy it takes less time than to make another one.

    So all nodes that a process makes have the same identifier.
    """
    [node] = _kept().enter_context(_nodes(["model"], None))
    node.create()
    return node


@cache
def _quorum_model() -> list[Node]:
    """Return a primary and two standbys of it, which have stopped."""
    primary, *standbys = nodes = _kept().enter_context(_nodes(["primary", "s1", "s2"], None))
    primary.resemble(_empty_model())
    primary.start()
    for standby in standbys:
        standby.copy(primary)
        standby.start()
    for node in nodes:
        node.stop()
    return nodes


@contextmanager
def single(parent: Path | None = None, settings: str = "") -> Iterator[Node]:
    """Start one node, and end it. Its files are in a folder of `parent`, or of the system's for temporary files."""
    with _nodes(["single"], parent) as [node]:
        node.resemble(_empty_model())
        node.configure(settings)
        node.start()
        yield node


@contextmanager
def quorum(parent: Path | None = None, settings: str = "") -> Iterator[tuple[Node, Node, Node]]:
    """Start a primary whose commits wait for one of its two standbys; end them all. The arguments are as above."""
    with _nodes(["primary", "s1", "s2"], parent) as [primary, *standbys]:
        for node, model in zip([primary, *standbys], _quorum_model(), strict=True):
            node.resemble(model)
        primary.configure(settings)
        primary.start()
        for standby in standbys:
            standby.configure(settings)
            standby.stand_by(primary)
            standby.start()
        primary.configure("synchronous_standby_names = 'ANY 1 (s1, s2)'")
        primary.reload()
        following = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'quorum'"
        _until(lambda: primary.query(following) == ["2"], "a standby did not follow its primary")
        yield primary, standbys[0], standbys[1]
