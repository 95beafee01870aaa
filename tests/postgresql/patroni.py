"""Three PostgreSQL nodes that Patroni watches over, and three members of etcd for it, from Debian's packages.

Owns the processes of a node, which are Patroni and the server that it starts, and how they are killed, frozen and
started again. Nodes are configured by config/postgresql/patroni.yml, as the guide says, and by their environment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from . import cluster
from .cluster import HOST, USER, as_owner, free_ports, guarded, programs

__all__ = ["Etcd", "Member", "Patroni", "eventually", "missing", "patroni"]

_CONFIGURATION = Path(__file__).parents[2] / "config" / "postgresql"

_PASSWORD = "only for tests"

_REST = {"PATRONI_RESTAPI_USERNAME": "patroni", "PATRONI_RESTAPI_PASSWORD": _PASSWORD}
"""Without it, everybody who reaches Patroni may start a failover."""

_HAPPENS_SECONDS_MAX = 180.0
"""Until there is a leader, or a standby follows: several of Patroni's turns, on a busy machine."""

_ENDED_SECONDS_MAX = 60.0
_ASKED_SECONDS_MAX = 5.0
_PAUSE_SECONDS = 0.1

T = TypeVar("T")


def missing() -> str | None:
    """Say why no such cluster can be started here; None if one can."""
    for program, package in (("patroni", "patroni"), ("etcd", "etcd-server")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    return cluster.missing()


@cache
def _takes_v3() -> bool:
    """Return True if Patroni may use etcd's third interface: before 3.0.3 a leader took its key back."""
    said = subprocess.run(["patroni", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, said.split()[-1].split("."))) >= (3, 0, 3)


def _etcd_hosts() -> str:
    return "PATRONI_ETCD3_HOSTS" if _takes_v3() else "PATRONI_ETCD_HOSTS"


class _Process:
    """A program that belongs to the nodes' user, with its own environment and log."""

    def __init__(self, folder: Path, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._command = command
        self._environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(folder), **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} pid={self._process.pid if self._process else None}>"

    @property
    def runs(self) -> bool:
        """Whether it was started, and not killed since."""
        return self._process is not None

    def start(self) -> None:
        """Start it, and wait for nothing."""
        assert self._process is None, f"{self.name} runs already"
        command = as_owner(*self._command)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """End all its processes at once."""
        assert self._process is not None, f"{self.name} does not run"
        self._signal(signal.SIGKILL)
        self._process.wait(_ENDED_SECONDS_MAX)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Etcd(_Process):
    """One member of etcd."""

    def __init__(self, folder: Path, name: str, ports: tuple[int, int], members: str) -> None:
        clients, peers = (f"http://{HOST}:{port}" for port in ports)
        self.address = f"{HOST}:{ports[0]}"
        environment = {
            "ETCD_NAME": name,
            "ETCD_DATA_DIR": str(folder / name),
            "ETCD_LISTEN_CLIENT_URLS": clients,
            "ETCD_ADVERTISE_CLIENT_URLS": clients,
            "ETCD_LISTEN_PEER_URLS": peers,
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": peers,
            "ETCD_INITIAL_CLUSTER": members,
            "ETCD_INITIAL_CLUSTER_STATE": "new",
            **({} if _takes_v3() else {"ETCD_ENABLE_V2": "true"}),
            # A machine that is busy with tests answers late, and is not gone.
            "ETCD_HEARTBEAT_INTERVAL": "200",
            "ETCD_ELECTION_TIMEOUT": "2000",
        }
        super().__init__(folder, name, ["etcd"], environment)


class Member(_Process):
    """One node: Patroni, and the server that it starts."""

    def __init__(self, folder: Path, name: str, ports: tuple[int, int], etcd: str) -> None:
        self.port, self._rest_port = ports
        self._data = folder / name
        self.frozen = False
        rest, server = f"{HOST}:{self._rest_port}", f"{HOST}:{self.port}"
        environment = {
            "PATRONI_NAME": name,
            _etcd_hosts(): etcd,
            "PATRONI_RESTAPI_LISTEN": rest,
            "PATRONI_RESTAPI_CONNECT_ADDRESS": rest,
            **_REST,
            "PATRONI_POSTGRESQL_LISTEN": server,
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": server,
            "PATRONI_POSTGRESQL_DATA_DIR": str(self._data),
            "PATRONI_POSTGRESQL_BIN_DIR": str(programs()),
            "PATRONI_POSTGRESQL_PGPASS": str(folder / f"{name}.pgpass"),
            "PATRONI_SUPERUSER_USERNAME": USER,
            "PATRONI_SUPERUSER_PASSWORD": _PASSWORD,
            "PATRONI_REPLICATION_USERNAME": "replicator",
            "PATRONI_REPLICATION_PASSWORD": _PASSWORD,
            "PATRONI_REWIND_USERNAME": "rewinder",
            "PATRONI_REWIND_PASSWORD": _PASSWORD,
        }
        super().__init__(folder, name, ["patroni", str(folder / "patroni.yml")], environment)

    def ask(self, path: str) -> Any:
        """Return what its Patroni answers; None if it does not."""
        if not self.runs or self.frozen:
            return None
        with suppress(OSError, ValueError):
            url = f"http://{HOST}:{self._rest_port}/{path}"
            with urllib.request.urlopen(url, timeout=_ASKED_SECONDS_MAX) as answer:
                return json.load(answer)
        return None

    def query(self, sql: str, database: str = USER) -> list[str]:
        """Carry out SQL at its server as the superuser, and return the rows, with `|` between columns."""
        return self._psql("-d", database, "-c", sql).splitlines()

    def run_file(self, path: Path, **variables: str) -> None:
        """Carry out a file of SQL at its server as the superuser."""
        values = [part for name, value in variables.items() for part in ("-v", f"{name}={value}")]
        self._psql("-v", "ON_ERROR_STOP=1", *values, "-d", USER, "-f", str(path))

    def _psql(self, *arguments: str) -> str:
        command = [f"{programs()}/psql", "-qAtX", "-h", HOST, "-p", str(self.port), "-U", USER, *arguments]
        ended = subprocess.run(command, env={"PGPASSWORD": _PASSWORD}, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def freeze(self) -> None:
        """Stop all its processes where they are."""
        self._signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        """End all its processes at once: Patroni first, which would start a server that has ended."""
        postmaster = self._postmaster()
        super().kill()
        self.frozen = False
        eventually(f"the end of {self.name}", lambda: postmaster is None or _has_ended(postmaster) or None)

    def kill_patroni(self) -> None:
        """End Patroni alone: its server goes on, and nobody tells it when another one is promoted."""
        assert self._process is not None, f"{self.name} does not run"
        for pid in (self._process.pid, *_children(self._process.pid)):
            _send(pid, signal.SIGKILL)
        self._process.wait(_ENDED_SECONDS_MAX)
        self._process = None

    def kill_server(self) -> None:
        """End the server alone, which its Patroni notices."""
        postmaster = self._postmaster()
        assert postmaster is not None, f"{self.name} has no server"
        for pid in (postmaster, *_children(postmaster)):
            _send(pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # Whoever starts others comes first, so that none is missed. Patroni does not start a server meanwhile.
        assert self._process is not None
        _send(self._process.pid, number)
        helpers = _children(self._process.pid)
        postmaster = self._postmaster()
        if postmaster is not None:
            _send(postmaster, number)
            helpers += _children(postmaster)
        for pid in helpers:
            _send(pid, number)

    def _postmaster(self) -> int | None:
        """Return the process id of its server; None if it has none."""
        try:
            pid = int((self._data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, IndexError, ValueError):
            return None
        return pid if os.fsencode(self._data) in command else None


class Patroni:
    """The cluster as a whole: its nodes, and etcd."""

    def __init__(self, folder: Path, members: Sequence[Member], etcd: Sequence[Etcd]) -> None:
        self.members = members
        self.etcd = etcd
        self._folder = folder

    def __repr__(self) -> str:
        return f"<Patroni {self.members} {self.etcd}>"

    @property
    def url(self) -> str:
        """The database that posthouse has, as its own role reaches it."""
        hosts = ",".join(f"{HOST}:{member.port}" for member in self.members)
        return f"postgresql://posthouse:{quote(_PASSWORD)}@{hosts}/house"

    def start(self) -> None:
        """Start everything, and make the role and the database."""
        for process in (*self.etcd, *self.members):
            process.start()
        self.when_whole()
        self.leader().run_file(_CONFIGURATION / "database.sql", password=_PASSWORD)

    def roles(self) -> dict[str, str]:
        """Return the roles of the members whose servers run, as a Patroni that answers knows them."""
        for member in self.members:
            answer = member.ask("cluster")
            if answer is not None:
                return {each["name"]: each["role"] for each in answer["members"] if each["state"] in _RUNNING}
        return {}

    def leader(self) -> Member:
        """Wait for a leader whose Patroni says so itself, and return it."""
        return eventually("the choice of a leader", self._leader)

    def _leader(self) -> Member | None:
        for member in self.members:
            answer = member.ask("patroni")
            if answer is not None and answer["role"] in _LEADING and answer["state"] == "running":
                return member
        return None

    def when_leaderless(self) -> None:
        """Wait until no member says that it leads."""
        eventually("the end of the leader", lambda: True if self._leader() is None else None)

    def standby(self) -> Member:
        """Wait for the standby whose disk commits wait for, and return it."""
        return eventually("the choice of a standby", lambda: self._with_role("sync_standby"))

    def _with_role(self, role: str) -> Member | None:
        roles = self.roles()
        return next((member for member in self.members if roles.get(member.name) == role), None)

    def when_whole(self) -> None:
        """Wait until one member leads, commits wait for another one, and the third one follows."""
        wanted = ["leader", "replica", "sync_standby"]
        eventually("the start of all members", lambda: sorted(self.roles().values()) == wanted or None)

    def switch_over(self) -> None:
        """Let the standby take over in order, as an operator does."""
        leader, standby = self.leader(), self.standby()
        self.control("switchover", "--force", "--leader", leader.name, "--candidate", standby.name)

    def control(self, *arguments: str) -> str:
        """Run `patronictl`, and return what it says."""
        command = ["patronictl", "-c", str(self._folder / "patroni.yml"), *arguments]
        own = {"LANG": "C.UTF-8", "HOME": str(self._folder), _etcd_hosts(): _addresses(self.etcd), **_REST}
        ended = subprocess.run(
            command, env={"PATH": "/usr/bin:/bin", **own}, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


_RUNNING = ("running", "streaming")
"""The states of a member whose server runs: what newer versions of Patroni say of a standby is the second."""

_LEADING = ("master", "primary")
"""What Patroni says of a leader: the first before version 4."""


def eventually(what: str, ask: Callable[[], T | None]) -> T:
    """Ask until there is an answer, and return it; AssertionError if there is none for long."""
    deadline = time.monotonic() + _HAPPENS_SECONDS_MAX
    while True:
        answer = ask()
        if answer is not None:
            return answer
        assert time.monotonic() < deadline, f"{_HAPPENS_SECONDS_MAX:.0f} seconds were not enough for {what}"
        time.sleep(_PAUSE_SECONDS)


def _addresses(etcd: Sequence[Etcd]) -> str:
    return ",".join(each.address for each in etcd)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
    except OSError:
        return []


def _has_ended(pid: int) -> bool:
    """Return True if a process is gone, or is only there to be asked how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@contextmanager
def patroni() -> Iterator[Patroni]:
    """Start three nodes and three members of etcd, and end them all."""
    with tempfile.TemporaryDirectory(prefix="posthouse-patroni-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        shutil.copy(_CONFIGURATION / "patroni.yml", folder)
        if os.geteuid() == 0:
            shutil.chown(folder, USER, USER)
            folder.chmod(0o755)
        found = Patroni(folder, *_processes(folder))
        with guarded(folder):
            try:
                found.start()
                yield found
            finally:
                for process in (*found.members, *found.etcd):
                    if process.runs:
                        process.kill()


def _processes(folder: Path) -> tuple[list[Member], list[Etcd]]:
    ports = iter(free_ports(12))
    pairs = {f"e{number}": (next(ports), next(ports)) for number in (1, 2, 3)}
    peers = ",".join(f"{name}=http://{HOST}:{peer}" for name, (_, peer) in pairs.items())
    etcd = [Etcd(folder, name, pair, peers) for name, pair in pairs.items()]
    addresses = _addresses(etcd)
    return [Member(folder, f"n{n}", (next(ports), next(ports)), addresses) for n in (1, 2, 3)], etcd
