"""A worker's part in a house with several: it stands by, leads, and stands by again.

Owns the loop between them, and the sockets throughout, so that whoever is connected hears from the same worker who
leads now. Whether it may lead is up to the store.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, suppress

import anyio
import anyio.lowlevel
import structlog
from msgspec.structs import replace

from ..core.standing_by import closing, elsewhere
from ..errors import DatabaseUnusable, OwnershipLost, StoreFailed
from ..model.leadership import Candidate, Election, Leader, Tenure
from ..wire.answers import Leads
from ..wire.frames import Closing
from .listening import Sockets

__all__ = ["Lead", "Membership"]

_LOOK_SECONDS = 0.2
"""How often a worker that stands by looks whether it may lead: it reads one row, which is in memory.

It hears at once of a lease that is given up.
"""

_ANSWERS_A_TURN = 500
"""Messages answered before other tasks get a turn."""

Lead = Callable[[Candidate], Awaitable[None]]
"""Leads until the worker is stopped. Raises OwnershipLost if another worker leads, or has taken over."""

_log = structlog.get_logger("posthouse")


class Membership:
    """See the module. `standing_by` is told who leads instead, if anybody does, whenever that changes."""

    def __init__(
        self,
        election: Callable[[], Election],
        candidate: Candidate,
        sockets: Sockets,
        *,
        frame_bytes_max: int,
        standing_by: Callable[[Leader | None], None],
    ) -> None:
        self._election = election
        self._candidate = candidate
        self.sockets = sockets
        self._frame_bytes_max = frame_bytes_max
        self._standing_by = standing_by
        self._leader: Leader | None = None
        """Who leads, as far as this worker knows."""
        self._tenure: Tenure | None = None
        self._attempt = anyio.CancelScope()
        """Of `lead`, until it leads."""
        self._stopped = anyio.Event()

    def __repr__(self) -> str:
        return f"<Membership {self._candidate.worker_id} {'stands by' if self._tenure is None else 'leads'}>"

    def stop(self) -> None:
        """Stand by no more, and cancel `lead` if it does not lead yet; otherwise end when it returns."""
        self._stopped.set()
        if self._tenure is None:
            self._attempt.cancel()

    async def run(self, lead: Lead) -> None:
        """Lead whenever nobody else does, and stand by meanwhile, until stopped.

        Raises what the first look at the store raises, and what `lead` raises once it leads.
        """
        candidate = replace(self._candidate, is_new=True)
        async with aclosing(self._election()) as election:
            sighting = await election.look()
        is_free, leader = sighting.is_free_for(candidate), sighting.leader
        while not self._stopped.is_set():
            if not is_free:
                await self._stand_by(leader)
                candidate = self._candidate
                if self._stopped.is_set():
                    return
            is_free, leader, self._tenure = False, None, None
            try:
                with anyio.CancelScope() as self._attempt:
                    await lead(candidate)
            except* OwnershipLost as lost:
                note = _log.info if self._tenure is None else _log.warning
                note("does_not_lead", reason=_reason(lost))
            except* StoreFailed as failed:
                if self._tenure is not None:
                    raise
                _log.warning("does_not_lead", reason=_reason(failed))
        self._answer()  # who has asked meanwhile

    def began(self, tenure: Tenure) -> None:
        """Note that this worker leads: from now on it sends only while it does."""
        self._tenure, self._leader = tenure, tenure.leader
        self.sockets.gate.is_shut = tenure.is_over
        earlier, given_up = tenure.before.leader or tenure.before.before, tenure.before.given_up
        because = (
            "no worker led" if earlier is None else "the lease was given up" if given_up else "the lease ended"
        )
        _log.info("leads", fence=tenure.leader.fence, before=earlier and earlier.worker_id, because=because)

    async def leads(self) -> Leads | None:
        """Return what people are told about the worker that leads, which is this one."""
        if self._tenure is None:
            return None
        worker_id, fence, url, _, since = self._tenure.leader
        return Leads(worker_id, fence, since, await self._tenure.standing_by(), url)

    async def hand_over(self) -> Closing:
        """Let another worker lead, once everything is stored and answered; return what sessions are told."""
        self._leader = heir = None if self._tenure is None else await self._tenure.give_up()
        self.sockets.gate.is_shut = lambda: False
        _log.info("lead_given_up", to=heir and heir.worker_id, url=heir and heir.url)
        return closing(heir)

    # ── Standing by ──────────────────────────────────────────────────────────────────────────────────────

    async def _stand_by(self, leader: Leader | None) -> None:
        """Answer until this worker may lead, or is stopped. Then who asks waits for whoever leads next."""
        self.sockets.gate.is_shut = lambda: False  # the lease may have been lost before anybody was served
        self.sockets.stand_by()
        self._meet(leader)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._answer_all)
            tasks.start_soon(self._hear_connections)
            if self.sockets.zap is not None:
                tasks.start_soon(self.sockets.zap.serve, lambda refused: None)
            tasks.start_soon(self._watch, tasks.cancel_scope)
            await self._stopped.wait()
            tasks.cancel_scope.cancel()

    async def _watch(self, standing: anyio.CancelScope) -> None:
        is_known = True
        async with aclosing(self._election()) as election:
            with suppress(DatabaseUnusable, StoreFailed):
                await election.look()  # from now on this worker counts as standing by
                await election.prepare()
            while True:
                await election.wait(_LOOK_SECONDS)  # first: who has just failed to lead must not try again at once
                try:
                    sighting = await election.look()
                except (
                    DatabaseUnusable,
                    StoreFailed,
                ) as error:  # no obstacle at the first look
                    if is_known:
                        _log.warning("leader_unknown", reason=str(error))
                    is_known = False
                    self._meet(None)
                else:
                    if sighting.is_free_for(self._candidate):
                        break
                    is_known = True
                    self._meet(sighting.leader)
        standing.cancel()

    def _meet(self, leader: Leader | None) -> None:
        if leader is not None and leader != self._leader:
            _log.info("stands_by", leader=leader.worker_id, fence=leader.fence, url=leader.url)
        if leader != self._leader:
            self._standing_by(leader)
        self._leader = leader

    async def _answer_all(self) -> None:
        while True:
            self._answer()
            if not self.sockets.command.has_input:
                await self.sockets.command.wait()
            await anyio.lowlevel.checkpoint()

    def _answer(self) -> None:
        command = self.sockets.command
        for _ in range(_ANSWERS_A_TURN):
            parts = command.receive()
            if parts is None:
                return
            self.sockets.watch.connections.greeted(parts[0], command.source)
            command.send((parts[0], elsewhere(parts, self._leader, self._frame_bytes_max)))

    async def _hear_connections(self) -> None:
        watch = self.sockets.watch
        while True:
            watch.hear(time.monotonic())
            watch.connections.take_lost(empty=True)  # no session ends with them
            if not watch.has_input:
                await watch.wait()
            await anyio.lowlevel.checkpoint()


def _reason(errors: BaseException) -> str:
    """Return the text of the first error in a group of errors."""
    return next(_texts(errors))


def _texts(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _texts(inner)
    else:
        yield str(error)
