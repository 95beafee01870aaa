"""The shell around the core: frames in, decisions requested, effects carried out. It decides nothing.

Owns the sockets and the tasks that connect them with the core and the log:

- frames are read from the command socket and passed to the core, unless the next batch is full;
- one batch at a time is written, while the next one fills;
- pages are read one after another, and so are the answers to queries; workflow calls are carried out concurrently;
- the core is told the time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple, assert_never

import anyio
import anyio.abc
import anyio.lowlevel
import structlog

from ..core.batches import Batch
from ..core.core import Core
from ..core.effects import (
    Ask,
    Count,
    Effect,
    EmptyTap,
    EndPlaces,
    FindRuns,
    FindStart,
    Locate,
    LookUp,
    Moment,
    Note,
    Read,
    Reconfigure,
    Send,
    Silence,
    Survey,
    Tap,
    unsent,
)
from ..errors import Refused, StorageBusy, StorageFull, StoreFailure
from ..model.records import timestamp
from ..model.repository import PageRequest, Store
from ..model.room import RoomLevel
from ..settings import Settings
from ..wire.answers import WorkerStatus
from ..wire.codec import decode_request, encode
from ..wire.frames import Closing, Code, Hello, Refusal, Workflow, begins_a_wait
from .answering import Answering
from .calls import WorkflowAnswers
from .calls_in_progress import CallsInProgress
from .keyed import KeyedAnswers
from .listening import Sockets
from .lookups import Lookups
from .measures import Measurement, Measures
from .membership import Membership
from .noting import Noting
from .outgoing import Outgoing
from .queries import Queries
from .reloading import Reloading
from .reporting import Report, report
from .room import RoomWatch
from .waking import RunWaking

__all__ = ["Broker", "Held", "system_moment"]

_TICK_SECONDS = 0.05
"""How often time advances: an ack_wait or a flush is late by at most this."""

_STALE_SECONDS = 0.001
"""How long one reading of the clocks is used for the frames that are read."""

_FRAMES_A_TURN = 500
"""Frames read before other tasks get a turn."""

_log = structlog.get_logger("posthouse")


def system_moment() -> Moment:
    """Return the current monotonic and wall-clock time."""
    return Moment(time.monotonic(), timestamp(datetime.now(UTC)))


class Held(NamedTuple):
    """How many deliveries are not settled, and how many mailboxes wait for credit of a bot that is connected."""

    unsettled: int
    waiting: int


class Broker:
    """Runs until `stop` is called, or until the store fails."""

    def __init__(
        self,
        core: Core,
        store: Store,
        settings: Settings,
        *,
        sockets: Sockets,
        versions: dict[str, str],
        moment: Callable[[], Moment] = system_moment,
        report: Report = report,
        membership: Membership | None = None,
    ) -> None:
        self._core = core
        self._store = store.log
        self._settings = settings
        self.measures = Measures()
        self._sockets = sockets
        self._command, self._tap, self._watch = sockets.command, sockets.tap, sockets.watch
        self._moment = moment
        self._report = report
        self._membership = membership
        self._outgoing = Outgoing(sockets.command, settings.limits)
        self._noting = Noting(core, moment=moment, carry_out=self._carry_out)
        self._room = RoomWatch(store.log, settings.store.room, self._noting.note)
        self._queries = Queries(
            core,
            store.log,
            versions=versions,
            frame_bytes_max=settings.limits.frame_bytes_max,
            moment=moment,
            peer=sockets.watch.connections.peer,
            leads=None if membership is None else membership.leads,
            room=self._room,
            fault=lambda: self.measures.fault,
            backlog_messages_max=settings.limits.backlog_messages_max,
        )
        self._answering = Answering(
            core, store.log, queries=self._queries, outgoing=self._outgoing, limits=settings.limits, moment=moment
        )
        self._waking = RunWaking(core, store.workflows, store.log, moment=moment, carry_out=self._carry_out)
        workflows = WorkflowAnswers(
            store.workflows,
            core.permitting.access,
            limits=settings.limits,
            noted=self._noting.deed,
            waking=self._waking,
            keyed=KeyedAnswers(core, store.keyed, settings.limits, moment=moment, carry_out=self._carry_out),
            large=core.large,
            now=lambda: moment().now,
        )
        self.reloading = Reloading(core, settings, moment=moment, carry_out=self._carry_out, note=self._noting.note)
        self._calls = CallsInProgress(
            core,
            workflows,
            limits=settings.limits,
            outgoing=self._outgoing,
            noting=self._noting,
            carry_out=self._carry_out,
        )
        self._lookups = Lookups(core, store.log, moment=moment, carry_out=self._carry_out)
        self._reads: deque[PageRequest] = deque()
        self._read_wake = anyio.Event()
        self._work = anyio.Event()
        self._silent: set[bytes] = set()
        """Connections that are sent nothing more."""
        self._draining = False
        self._more = False
        """Whether another turn of draining is scheduled: one is enough."""
        self._stopping = False
        self._tasks: anyio.abc.TaskGroup

    def __repr__(self) -> str:
        return f"<Broker {'stopping' if self._stopping else 'running'} {self._core}>"

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    @property
    def degraded(self) -> list[str]:
        """What is going wrong although the worker serves and stores, one line each."""
        found = []
        if self._room.level is not RoomLevel.ENOUGH:
            found.append(f"room is {self._room.level.in_words}: see `posthouse doctor`")
        if self._room.wal_bytes >= self._settings.store.wal_warning_bytes:
            found.append(f"the WAL has {self._room.wal_bytes / 2**20:,.0f} MiB, and grows: see the worker's log")
        return found

    @property
    def addresses(self) -> tuple[str, str]:
        """The addresses for commands and of the tap."""
        return self._command.address, self._tap.address

    @property
    def has_admin(self) -> bool:
        """Whether somebody may manage keys; True without keys."""
        keyring = self._core.keyring
        return keyring is None or bool(keyring.admins(self._moment().wall))

    @property
    def warnings(self) -> list[str]:
        """Sentences for operators about the house that is served."""
        return self._core.audience.warnings

    async def introduce(self, bot: str, public_key: str) -> None:
        """Add a key that may manage keys, before `run`; it is on disk when this returns.

        Raise Refusal if it was added before, and has ended.
        """
        self._carry_out(self._core.introduce(bot, public_key, self._moment()))
        while (batch := self._core.take_batch(self._moment())) is not None:
            await self._apply(batch, self.measures.begin())

    async def status(self) -> WorkerStatus:
        """Return what `status` tells those who may read everything."""
        return await self._queries.status(self._moment().now)

    def held(self) -> Held:
        """Return what the mailboxes hold. It looks at each of them."""
        mailboxes = self._core.directory.mailboxes.values()
        return Held(
            unsettled=sum(len(mailbox.outstanding) for mailbox in mailboxes),
            waiting=sum(bool(mailbox.sessions) and mailbox.waits for mailbox in mailboxes),
        )

    def announce(self, **fields: Any) -> None:
        """Log and record that the worker serves, with these fields."""
        self._noting.note("serving", **fields)

    async def run(self) -> None:
        """Serve until stopped, then finish the batch, save every mailbox and send `closing` to every session.

        In a house, the sockets stay open, and every session ends in any case.

        Raises StoreFailure if the store failed: nothing was acknowledged after that, and the process must end.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                if self._sockets.zap is not None:
                    self._tasks.start_soon(self._sockets.zap.serve, self._noting.refused)
                self._tasks.start_soon(self._receive)
                self._tasks.start_soon(self._watch_connections)
                self._tasks.start_soon(self._read)
                self._tasks.start_soon(self._tap.run, self._hear_tap)
                self._tasks.start_soon(self._tick)
                self._tasks.start_soon(self._room.run)
                self._tasks.start_soon(self._answering.run, self._carry_out)
                self._tasks.start_soon(self._answering.run_scrubs, self._carry_out)
                await self._write()
                self._tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await self._close()
        finally:
            if self._membership is None:
                self._sockets.close(linger=True)
            else:
                self._part()

    def _part(self) -> None:
        """Send `closing` to the sessions that are left, now that this worker does not lead any more."""
        self._sockets.gate.is_shut = lambda: False
        for session in self._core.sessions:
            self._command.send((session.address, encode(Closing())))

    def stop(self) -> None:
        """Accept no more frames, and let `run` end gracefully."""
        self._stopping = True
        self._work.set()

    # ── Frames ───────────────────────────────────────────────────────────────────────────────────────────

    async def _receive(self) -> None:
        while True:
            self._drain()
            if not self._command.has_input or self._core.full or self._stopping:
                await self._command.wait()
            else:
                await anyio.lowlevel.checkpoint()

    def _drain(self) -> None:
        """Read what the socket has. Also called after every send: sending can consume the socket's readiness."""
        if self._draining:
            return
        if self._stopping:
            return
        if not self._command.has_input:  # checking first costs half of an empty receive
            self._end_lost(empty=True)
            return
        self._draining = True
        looked, moment = time.monotonic(), self._moment()
        frames, empty = 0, False
        try:
            for _ in range(_FRAMES_A_TURN):
                if self._core.full:
                    return
                if (parts := self._command.receive()) is None:
                    empty = True
                    return
                frames += 1
                if time.monotonic() - looked > _STALE_SECONDS:
                    looked, moment = time.monotonic(), self._moment()
                if effects := self._take(parts, moment):  # mostly none: the batch will have them
                    self._carry_out(effects)
            if not self._more:
                self._more = True
                self._tasks.start_soon(self._drain_more)
        finally:
            self._draining = False
            self._watch.connections.read(frames)
            self._end_lost(empty=empty)
            self._wake_writer()

    async def _drain_more(self) -> None:
        self._more = False
        self._drain()

    def _take(self, parts: list[bytes], moment: Moment) -> list[Effect]:
        address, principal = parts[0], None
        if self._core.keyring is not None:
            principal = self._core.keyring.principal(self._command.user, moment.wall)
            if principal is None:
                return self._core.ignore(address, moment)
        try:
            if len(parts) != 2:
                raise Refusal(Code.BAD_FRAME, f"a message must be one frame, not {len(parts) - 1}")
            request = decode_request(parts[1], self._settings.limits.frame_bytes_max)
        except Refusal as error:
            return self._core.reject(address, error, moment, principal)
        if isinstance(request, Hello):
            self._greet(address)
        elif begins_a_wait(request):
            moment = self._moment()  # not before it was received
        return self._core.receive(address, request, moment, principal)

    def _greet(self, address: bytes) -> None:
        """Note which connection says hello, after the ends of earlier ones that had its descriptor or address."""
        self._watch.hear(self._moment().now)
        if self._watch.connections.returned(address):
            self._lose(address)
        self._watch.connections.greeted(address, self._command.source, self._command.peer)

    async def _watch_connections(self) -> None:
        while True:
            self._watch.hear(self._moment().now)
            self._drain()
            if not self._watch.has_input:
                await self._watch.wait()
            await anyio.lowlevel.checkpoint()

    def _end_lost(self, *, empty: bool) -> None:
        """End the sessions whose connections are gone, once all their frames were read."""
        for address in self._watch.connections.take_lost(empty=empty):
            self._lose(address)

    def _lose(self, address: bytes) -> None:
        self._silent.discard(address)
        self._carry_out(self._core.unreachable(address, self._moment()))

    def _carry_out(self, effects: Iterable[Effect]) -> None:
        queue = deque(effects)
        sent = False
        while queue:
            effect = queue.popleft()
            match effect:
                case Send(address, frame, seqs):
                    if self._silent and address in self._silent:
                        continue
                    sent = True
                    if not (self._command.send((address, frame)) if seqs else self._outgoing.send(address, frame)):
                        lost = unsent(effect, queue)
                        queue.extend(self._core.unreachable(address, self._moment(), lost))
                case Note():
                    self._report(effect, self._core.sessions)
                case Tap(topic, frame):
                    self._tap.send(topic, frame)
                case EmptyTap(reason):
                    self._tap.empty(reason)
                case Silence(address):
                    self._silent.add(address)
                case Read(request):
                    self._reads.append(request)
                    self._read_wake.set()
                case Ask(query=Workflow() as call):
                    self._calls.begin(effect, call, self._tasks)
                case Ask() | FindStart():
                    queue.extend(self._answering.add(effect))
                case Count() | LookUp() | Survey() | Locate():
                    self._tasks.start_soon(self._lookups.do, effect)
                case Reconfigure(address, request):
                    self._tasks.start_soon(self.reloading.answer, address, request)
                case FindRuns() | EndPlaces():
                    self._tasks.start_soon(self._waking.do, effect)
                case _:
                    assert_never(effect)
        if not self._draining:
            self._wake_writer()
            if sent:
                self._drain()

    def _wake_writer(self) -> None:
        if (not self._work.is_set() or not self.measures.is_waiting) and self._core.has_batch(self._moment()):
            self.measures.requested()
            self._work.set()

    # ── The log ──────────────────────────────────────────────────────────────────────────────────────────

    async def _write(self) -> None:
        while True:
            moment = self._moment()
            batch = self._core.take_batch(moment) if self._core.has_batch(moment) else None
            if batch is not None:
                measured = self.measures.begin()
                self._drain()  # there is room again: fill the next batch while this one is written
                await self._apply(batch, measured)
                self._drain()
            elif self._stopping:
                return
            else:
                self._work = anyio.Event()
                await self._work.wait()

    async def _apply(self, batch: Batch, measured: Measurement) -> None:
        try:
            outcome = await self._store.apply(batch.changes)
        except StoreFailure:
            raise
        except StorageFull as error:
            _log.warning("storage_full", changes=len(batch.changes))
            self._failed(batch, measured, Code.STORAGE_FULL, str(error))
        except StorageBusy as error:
            _log.warning("storage_busy", changes=len(batch.changes))
            self._failed(batch, measured, Code.BUSY, str(error))
        except Exception:
            _log.exception("batch_failed", changes=len(batch.changes))
            message = "the worker could not store this; see its log"
            self._failed(batch, measured, Code.INTERNAL, message)
        else:
            measured.stored()
            self._carry_out(self._core.applied(batch, outcome, self._moment()))
            measured.carried_out()

    def _failed(self, batch: Batch, measured: Measurement, code: Code, message: str) -> None:
        measured.refused(code)
        self._carry_out(self._core.failed(batch, code, message, self._moment()))

    async def _read(self) -> None:
        while True:
            while self._reads:
                request = self._reads.popleft()
                page = await self._store.read_page(request)
                for seq in page.damaged:
                    _log.error("message_damaged", seq=seq, mailbox_id=request.mailbox_id)
                self._carry_out(self._core.page_read(request, page, self._moment()))
            self._read_wake = anyio.Event()
            await self._read_wake.wait()

    # ── The tap, time and the end ────────────────────────────────────────────────────────────────────────

    def _hear_tap(self) -> None:
        """Handle listeners that came or left."""
        for topic, wanted in self._tap.hear():
            self._carry_out(self._core.tap_topic(topic, self._moment(), wanted=wanted))

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(_TICK_SECONDS)
            self._hear_tap()  # sending to the tap can consume the readiness for a new listener
            moment = self._moment()
            self._queries.sample(moment.now)
            self._outgoing.sweep()
            self._noting.clock(moment.wall)
            self._watch.look(moment.now)
            self._carry_out(self._core.tick(moment))

    async def _close(self) -> None:
        farewell = self._core.close(self._moment())
        while (batch := self._core.take_batch(self._moment(), flush=True)) is not None:
            try:
                outcome = await self._store.apply(batch.changes)
            except (Refused, StorageBusy, StorageFull) as error:
                _log.error("positions_not_saved", error=str(error))
                break
            farewell += self._core.applied(batch, outcome, self._moment())
        closing = encode(Closing())
        for effect in farewell:
            match effect:
                case Silence(address):
                    self._silent.add(address)
                case Send(address, frame) if address not in self._silent and frame != closing:
                    self._command.send((address, frame))
                case _:
                    pass
        last = closing if self._membership is None else encode(await self._membership.hand_over())
        for effect in farewell:
            if isinstance(effect, Send) and effect.frame == closing and effect.address not in self._silent:
                self._command.send((effect.address, last))
