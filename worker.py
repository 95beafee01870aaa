"""The worker: settings, store, broker and signals together.

Ends with 0 after a graceful stop, and otherwise with the codes of `bus.cli.exit_codes`. Every refusal to start is
one line on standard error that says what is wrong and what to do.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    from bus.__main__ import begin

    begin()

import gc
import hashlib
import platform
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import rich_click as click
import structlog
import uuid_utils
import zmq
from anyio import to_thread

import store as stores
from bus.__main__ import OBJECTS_A_COLLECTION
from bus.broker.broker import Broker
from bus.broker.listening import open_sockets
from bus.broker.membership import Membership
from bus.broker.opening import keyed, open_broker
from bus.broker.worker_log import WorkerLog
from bus.cli.configured import configured
from bus.cli.exit_codes import exit_codes
from bus.cli.program import main, program
from bus.client.credentials import Credentials, read_credentials, write_credentials
from bus.configuration import Given, Rereading
from bus.curve import curve_fault, new_secret, public_of
from bus.errors import CredentialsError
from bus.house_key import check_house_key, note_house_key
from bus.model.databases import Databases
from bus.model.leadership import Candidate, Leader
from bus.model.repository import Store, StoreWatch
from bus.service_manager import ServiceManager
from bus.settings import Settings, SettingsError
from bus.transport import Gate
from bus.wire.addresses import advertisable, nearest
from bus.wire.codes import Refusal
from bus.wire.keys import canonical_public, public_text, read_secret, secret_text
from bus.worker_key import WorkerKey, find_admin_file, find_key_file, open_worker_key
from store import database_path, described, open_election, open_store

if TYPE_CHECKING:
    from bus.broker.health import HealthServer

__all__ = ["databases", "main", "program", "serve", "worker_key"]

databases: Databases = stores
"""What the commands about whole databases use (`bus.cli.joined`)."""

T = TypeVar("T")

_SWITCH_SECONDS = 0.0001
"""How long one thread may keep the interpreter from another: Python's default is 5 ms."""

_UMASK = 0o077
"""Files that the worker makes are for its user alone: they hold every message."""

_ADMIN = "posthouse-admin"
"""The bot of the first key that may manage keys."""

_OTHER_DESCRIPTORS = 100
"""Descriptors for other things than bots' connections: the database, the sockets, and some listeners at the tap."""

_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
"""The signals that a worker handles: the first two stop it."""

_log = structlog.get_logger("posthouse")


@click.command()
@configured
def serve(given: Given) -> None:
    """Run the worker until SIGTERM or SIGINT.

    The options override the environment, which has a variable for each key (POSTHOUSE_LIMITS_SESSIONS_MAX for
    sessions_max in [limits]), and overrides the configuration. `posthouse config` shows what that comes to.

    A first signal stops gracefully: accepted messages are written, and every bot is notified. A second one exits at
    once. After SIGHUP, rights and the log are as the configuration says then; if that is invalid, nothing changes.

    To upgrade, make a backup, install the new version, and restart. It migrates the database at its start; an older
    version refuses it from then on. Bots reconnect by themselves.
    """
    if os.name == "nt":
        raise click.ClickException("the worker does not run on Windows: run it on Linux or macOS and connect to it")
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    os.umask(_UMASK)
    log = WorkerLog()
    with exit_codes():
        settings = given.read()
        log.configure(settings.log)
        reread = None if given.config is None else Rereading(given.read, settings)
        anyio.run(_serve, settings, log, reread, backend="asyncio", backend_options={"use_uvloop": _has_uvloop()})


async def _serve(settings: Settings, log: WorkerLog, reread: Rereading | None) -> None:
    with anyio.open_signal_receiver(*_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        try:
            stop = _Stop()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_obey, signals, stop, log, tasks)
                tasks.start_soon(stop.manager.stay_alive)
                async with _health(settings.listen.metrics) as health:
                    stop.health = health
                    await _serve_until(
                        stop, settings, lambda broker: broker.reloading.begin(reread, log.configure), reread
                    )
                tasks.cancel_scope.cancel()
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # signals must not interrupt the rest
    _log.info("stopped")


@asynccontextmanager
async def _health(address: str) -> AsyncIterator[HealthServer | None]:
    if not address:
        yield None
        return
    try:
        from bus.broker.health import open_health_server
    except ImportError:
        raise SettingsError("listen.metrics needs more packages: pip install 'posthouse[metrics]'") from None
    async with open_health_server(address) as server:
        yield server


async def _serve_until(
    stop: _Stop, settings: Settings, prepare: Callable[[Broker], None], reread: Rereading | None
) -> None:
    with zmq.Context() as context:
        if settings.store.engine:
            await _serve_in_turns(stop, settings, context, prepare, reread)
        else:
            async with _store(settings) as store:
                await _serve_store(stop, settings, context, prepare, store=store, key=worker_key(settings))


async def _serve_in_turns(
    stop: _Stop,
    settings: Settings,
    context: zmq.Context[zmq.Socket[bytes]],
    prepare: Callable[[Broker], None],
    reread: Rereading | None,
) -> None:
    """Serve while this worker leads its house, and stand by meanwhile."""
    election = partial(_opened, settings, open_election)
    election()  # which refuses a URL that is none
    if settings.security.has_keys:
        with stop.interrupting():
            await check_house_key(databases, settings)
        if stop.requested:
            return
    key = worker_key(settings)
    sockets = open_sockets(context, settings, keyed(None if key is None else key.secret, None), gate=Gate())
    try:
        _allow_descriptors(settings.limits.sessions_max)
        _tune_python()
        candidate = _candidate(settings, sockets.command.address, sockets.tap.address)
        frame_bytes_max = settings.limits.frame_bytes_max

        def stand_by(leader: Leader | None) -> None:
            stop.stand_by(leader)
            _tune_python()  # also after leading: what was in memory then may go

        membership = Membership(election, candidate, sockets, frame_bytes_max=frame_bytes_max, standing_by=stand_by)

        async def lead(candidate: Candidate) -> None:
            now = settings if reread is None else await to_thread.run_sync(reread.latest, settings)
            async with _store(now, candidate) as store:
                assert store.tenure is not None, "it was opened for a candidate"
                membership.began(store.tenure)
                await _serve_store(stop, now, context, prepare, store=store, key=key, membership=membership)

        stop.join(membership)
        await membership.run(lead)
    finally:
        sockets.close(linger=True)


def _candidate(settings: Settings, command: str, tap: str) -> Candidate:
    listen, leadership = settings.listen, settings.leadership
    url = listen.advertised or advertisable(command)
    if url is None:
        _warn(
            f"other workers cannot send bots here, because {command} says not where that is: set listen.advertised,"
            " for instance to tcp://this-host:7710"
        )
    return Candidate(
        worker_id=f"{str(uuid_utils.uuid7())[:-12]}{_machine()}",
        url=url,
        is_bound=not listen.advertised,
        tap=listen.advertised_tap or advertisable(tap),
        lease_seconds=leadership.lease_seconds,
        renew_seconds=leadership.renew_seconds,
    )


def _machine() -> str:
    """Return twelve digits that are the same for all processes among which a bound address is unique."""
    try:
        network = os.stat("/proc/self/ns/net").st_ino
        found = f"{Path('/proc/sys/kernel/random/boot_id').read_text()} {network}"
    except OSError:  # not on Linux
        found = f"{platform.node()} {uuid.getnode()}"
    return hashlib.sha256(found.encode()).hexdigest()[:12]


async def _serve_store(
    stop: _Stop,
    settings: Settings,
    context: zmq.Context[zmq.Socket[bytes]],
    prepare: Callable[[Broker], None],
    *,
    store: Store,
    key: WorkerKey | None,
    membership: Membership | None = None,
) -> None:
    versions = _versions() | store.versions
    worker = f"posthouse/{versions['posthouse']}"
    secret = None if key is None else key.secret
    broker = await open_broker(
        store, settings, context, worker=worker, versions=versions, secret=secret, membership=membership
    )
    if key is not None:
        await note_house_key(databases, settings, key)
        await _introduce_admin(broker, key, find_admin_file(_file(settings)))
    prepare(broker)
    if membership is None:
        _allow_descriptors(settings.limits.sessions_max)
    for warning in (*store.warnings, *broker.warnings):
        _warn(warning)
    if membership is None:
        _tune_python()
    else:
        gc.freeze()  # it was tuned before: bots may be waiting for it to take over
    if not stop.requested:
        command, tap = broker.addresses
        places = {"database": described(settings.store.url), "command": command, "tap": tap}
        if settings.listen.metrics:
            places["metrics"] = settings.listen.metrics
        mode, known_by = settings.security.mode, {} if key is None else {"key": key.public}
        broker.announce(**places, mode=mode, **known_by, **versions)
    stop.serve(broker)
    await broker.run()


def worker_key(settings: Settings) -> WorkerKey | None:
    """Return the worker's own pair of keys, which is made at the first start with keys; None without keys.

    Raise SettingsError if this libzmq has no keys, and KeyFileUnusable.
    """
    if not settings.security.has_keys:
        return None
    if (fault := curve_fault()) is not None:
        raise SettingsError(f'security.mode is "keys", but {fault}')
    path = find_key_file(_file(settings), settings.security.key_file)
    key = open_worker_key(path)
    if key.is_new:
        _log.warning("worker_key_made", file=path.name, key=key.public)
    return key


def _file(settings: Settings) -> str | None:
    """Return the path of the database's file; None with an engine."""
    return None if settings.store.engine else database_path(settings.store.database)


async def _introduce_admin(broker: Broker, key: WorkerKey, path: Path) -> None:
    """If nobody may manage keys, let the user of the worker do so, with credentials in a file."""
    if broker.has_admin:
        return
    credentials = _admin_credentials(path, broker.addresses, key)
    try:
        await broker.introduce(credentials.bot, public_text(public_of(read_secret(credentials.secret))))
    except Refusal:
        text = "their key has ended, and no other one may manage keys; move them away, and start again"
        raise CredentialsError(str(path), text) from None
    _log.warning("admin_key_made", file=path.name, bot=credentials.bot)


def _admin_credentials(path: Path, addresses: tuple[str, str], key: WorkerKey) -> Credentials:
    """Return the credentials in a file, or new ones, which are written to it.

    They are in the file before they are introduced: if the worker ends in between, the next start introduces them.
    """
    if path.exists():
        credentials = read_credentials(path)
        if canonical_public(credentials.worker) != key.public:
            raise CredentialsError(str(path), "they are for another worker; move them away, and start again")
        return credentials
    url, tap = map(_address_here, addresses)
    secret = secret_text(new_secret())
    credentials = Credentials(url=url, tap=tap, bot=_ADMIN, secret=secret, worker=key.public)
    write_credentials(path, credentials)
    return credentials


def _address_here(address: str) -> str:
    """Return where programs of this machine connect, wherever they are started."""
    if address.startswith("ipc://"):
        return f"ipc://{Path(address.removeprefix('ipc://')).absolute()}"
    return nearest(address)


class _Stop:
    """Whether the worker is to stop. If requested while it starts, it stops as soon as it serves."""

    def __init__(self) -> None:
        self.requested = False
        self.manager = ServiceManager()
        self.health: HealthServer | None = None
        self._broker: Broker | None = None
        self._membership: Membership | None = None
        self._waiting = anyio.CancelScope()

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Cancel what is done within, as soon as the worker is to stop."""
        with anyio.CancelScope() as self._waiting:
            if self.requested:
                self._waiting.cancel()
            yield

    def request(self) -> None:
        self.requested = True
        self.manager.stopping("writes what it accepted, and notifies every bot")
        self._waiting.cancel()
        if self._broker is not None:
            self._broker.stop()
        if self._membership is not None:
            self._membership.stop()

    def join(self, membership: Membership) -> None:
        self._membership = membership
        if self.requested:
            membership.stop()

    def stand_by(self, leader: Leader | None) -> None:
        self._broker = None
        serves = "no worker serves" if leader is None else f"{leader.url or leader.worker_id} serves"
        if self.health is not None:
            self.health.broker, self.health.instead = None, f"standing by: {serves}"
        if not self.requested:
            self.manager.ready(f"stands by; {serves}")

    def serve(self, broker: Broker) -> None:
        self._broker = broker
        if self.health is not None:
            self.health.broker = broker
        if self.requested:
            broker.stop()
        self._ready(broker)

    def _ready(self, broker: Broker) -> None:
        if not self.requested:
            self.manager.ready(f"serves bots at {broker.addresses[0]}")

    async def reload(self) -> None:
        """Read the configuration again, if there is one; a worker that only starts has just read it."""
        if self._broker is None or not self._broker.reloading.is_possible:
            _log.info(
                "signal_ignored",
                signal="SIGHUP",
                message="there is no configuration to read again, or not before this worker leads",
            )
            return
        self.manager.reloading()
        with suppress(SettingsError):  # which is in the log
            await self._broker.reloading.reload()
        self._ready(self._broker)


async def _obey(
    signals: AsyncIterator[signal.Signals], stop: _Stop, log: WorkerLog, tasks: anyio.abc.TaskGroup
) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            tasks.start_soon(stop.reload)  # its file may be slow, and must not keep the worker from stopping
        elif stop.requested:
            log.finish()
            os._exit(128 + number)
        else:
            _log.info("stopping", signal=number.name)
            stop.request()


def _store(settings: Settings, candidate: Candidate | None = None) -> AbstractAsyncContextManager[Store]:
    watch = StoreWatch(warn=_warn, migrated=_migrated, wal_warning_bytes=settings.store.wal_warning_bytes)
    opening = partial(open_store, rules=settings.workflow_rules, watch=watch, candidate=candidate)
    return _opened(settings, opening)


def _opened(settings: Settings, opening: Callable[[str], T]) -> T:
    """Open something of the store that the settings name."""
    try:
        return opening(settings.store.url)
    except ValueError as error:
        raise SettingsError(f"{settings.store.setting}: {error}") from error


def _has_uvloop() -> bool:
    try:
        import_module("uvloop")
    except ImportError:
        return False
    return True


def _tune_python() -> None:
    """Change Python's defaults, which suit other programs; docs/performance/tried.md has the figures.

    Cycles are collected rarely, and never among the objects of the start: the worker creates almost none. The
    database's thread, which needs the interpreter between two statements, gets it from a busy loop at once.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_A_COLLECTION)
    sys.setswitchinterval(_SWITCH_SECONDS)


def _allow_descriptors(sessions_max: int) -> None:
    """Allow as many open files as the system permits: each connection is one, and a shell's limit is often 1024."""
    import resource  # not on Windows, where other commands run

    wanted = sessions_max + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = max(soft, wanted) if hard == resource.RLIM_INFINITY else hard
        with suppress(OSError, ValueError):  # some systems allow less than they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        _warn(
            f"the process may open {soft} files, but limits.sessions_max is {sessions_max}: bots that connect"
            " beyond that wait without an answer; raise the limit (LimitNOFILE, ulimit -Hn), or lower sessions_max"
        )


def _warn(sentence: str) -> None:
    _log.warning("store", message=sentence)


def _migrated(before: str, after: str) -> None:
    _log.info("schema_migrated", before=before, after=after)


def _versions() -> dict[str, str]:
    names = ("posthouse", "pyzmq", "msgspec", "anyio")
    versions = {name: metadata.version(name) for name in names}
    return versions | {"python": platform.python_version(), "zeromq": zmq.zmq_version()}


if __name__ == "__main__":
    sys.modules["worker"] = sys.modules["__main__"]  # the name by which the program finds its commands
    program()
