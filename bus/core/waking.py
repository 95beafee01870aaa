"""Who looks at a run again: what happened to runs, and which sessions are told.

Owns the sessions that wait for something of a run. Its rules:

- A session is woken for a run that its bot held last, if somebody else changed it; for one that it watches; for one
  that it could not claim, when that changed, or has a slot; and for one that it is to open.
- A program that changes the run that it executes wakes only the others that wait: it knows.
- A wake is a hint. What became of the run is in the store, which is asked once for all that happened meanwhile.

Only sessions whose client said so in its hello are woken.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from ..mailbox.sessions import Session, Sessions
from ..model.repository import RunNews
from ..wire.frames import Wake
from ..wire.limits import NAME_CHARACTERS_MAX
from .effects import EndPlaces, FindRuns, Turn
from .keyed_watching import KeyedWatching

__all__ = ["Waking"]

_WAITED_FOR_MAX = 100_000
"""Runs that one session watches, or cannot claim; beyond it, the ones it asked for first are forgotten."""

_RUNS_AT_ONCE = 1000
"""Runs that are looked up together, and named in one frame."""


class _Waits:
    """Which sessions wait for which runs."""

    def __init__(self) -> None:
        self._sessions: dict[str, dict[Session, None]] = {}
        self._run_ids: dict[Session, dict[str, None]] = {}

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sessions)

    def add(self, session: Session, run_id: str) -> None:
        """Note that a session waits for a run."""
        run_ids = self._run_ids.setdefault(session, {})
        run_ids.pop(run_id, None)
        run_ids[run_id] = None
        self._sessions.setdefault(run_id, {})[session] = None
        if len(run_ids) > _WAITED_FOR_MAX:
            self.remove(session, next(iter(run_ids)))

    def remove(self, session: Session, run_id: str) -> None:
        """Note that a session waits for a run no more."""
        run_ids = self._run_ids.get(session, {})
        if run_id not in run_ids:
            return
        del run_ids[run_id], self._sessions[run_id][session]
        if not run_ids:
            del self._run_ids[session]
        if not self._sessions[run_id]:
            del self._sessions[run_id]

    def remove_session(self, session: Session) -> tuple[str, ...]:
        """Note that a session has ended; return the runs for which nobody else waits."""
        run_ids = list(self._run_ids.get(session, ()))
        for run_id in run_ids:
            self.remove(session, run_id)
        return tuple(run_id for run_id in run_ids if run_id not in self)

    def remove_run(self, run_id: str) -> None:
        """Note that nothing happens to a run any more."""
        for session in self.of(run_id):
            self.remove(session, run_id)

    def of(self, run_id: str) -> list[Session]:
        """Return who waits for a run."""
        return list(self._sessions.get(run_id, ()))


class Waking:
    """See the module."""

    def __init__(self, sessions: Sessions, turn: Turn, look_seconds: float) -> None:
        self.stops = 0
        """How many changes there were after which a run may have stopped."""
        self.keyed = KeyedWatching(sessions, turn)
        """Who is told of changes in the keyed store."""
        self._sessions = sessions
        self._turn = turn
        self._watchers = _Waits()
        self._claimants = _Waits()
        self._executors = _Waits()
        """Who opens the runs of a workflow, by its id or name."""
        self._changed: dict[str, bool] = {}
        """The runs to look up, in order; True for those that somebody else than their program changed."""
        self._asked = False
        self._look_seconds = look_seconds
        self._look_at = 0.0
        self._slots_due = False

    def __repr__(self) -> str:
        return f"<Waking watched={len(self._watchers)} claimed={len(self._claimants)} changed={len(self._changed)}>"

    # ── Who waits ────────────────────────────────────────────────────────────────────────────────────────

    def watch(self, session: Session, run_id: str) -> None:
        """Wake a session at each change of a run, until that ends."""
        self._watchers.add(session, run_id)

    def not_found(self, address: bytes, run_id: str) -> None:
        """Note that a session watches a run that does not exist, and forget it if its id is long."""
        session = self._sessions.get(address)
        if session is not None and len(run_id) > NAME_CHARACTERS_MAX:
            self._watchers.remove(session, run_id)

    def execute(self, session: Session, workflow: str) -> None:
        """Wake a session for the runs of a workflow, by id or name, that its bot is to open.

        Of one whose name is longer than names are, it is not told.
        """
        if len(workflow) <= NAME_CHARACTERS_MAX:
            self._executors.add(session, workflow)

    def unwatch(self, run_id: str) -> None:
        """Note that nothing happens to a run any more."""
        self._watchers.remove_run(run_id)
        self._claimants.remove_run(run_id)

    def refused(self, session: Session, run_id: str, *, stops: int) -> None:
        """Wake a session for a run that it could not claim, when that changes, or has a slot.

        `stops` is their number before the run was claimed: what stopped since may have been what it waits for.
        """
        self._claimants.add(session, run_id)
        if stops != self.stops:
            self._changed.setdefault(run_id, False)

    def claimed(self, session: Session, run_id: str) -> None:
        """Note that a session has claimed a run, and waits for it no more."""
        self._claimants.remove(session, run_id)

    def unclaimed(self, address: bytes, run_id: str) -> None:
        """Note that the session at an address does not wait for a run any more."""
        session = self._sessions.get(address)
        if session is not None:
            self._claimants.remove(session, run_id)

    def leave(self, session: Session) -> None:
        """Note that a session has ended."""
        self.keyed.leave(session)
        self._watchers.remove_session(session)
        self._executors.remove_session(session)
        given_up = self._claimants.remove_session(session)
        if given_up:
            self._turn.add(EndPlaces(given_up))

    def sessions_of(self, run_id: str, workflows: Iterable[str] = ()) -> list[Session]:
        """Return who waits for a run, or for what is to be opened of its workflows."""
        executors = [session for workflow in workflows for session in self._executors.of(workflow)]
        return list(dict.fromkeys([*self._watchers.of(run_id), *self._claimants.of(run_id), *executors]))

    # ── What happened ────────────────────────────────────────────────────────────────────────────────────

    def happened(self, run_id: str, *, by_holder: bool = False, stopped: bool = True) -> None:
        """Note that a run was changed, on disk.

        `by_holder` says that the program that executes it did that; `stopped` that it may not be running any more.
        """
        self.stops += stopped
        waits = run_id in self._watchers or run_id in self._claimants
        if not by_holder:
            self._changed[run_id] = True
        elif waits or (stopped and (self._claimants or self._executors)):
            self._changed.setdefault(run_id, False)

    def any_happened(self) -> None:
        """Note that any run may have been deleted: those that somebody waits for are looked up."""
        self.stops += 1
        for run_id in (*self._watchers, *self._claimants):
            self._changed.setdefault(run_id, False)

    def tick(self, now: float) -> None:
        """Look for free slots from time to time: places end, and definitions change, without anybody being told."""
        if now >= self._look_at:
            self._look_at = now + self._look_seconds
            self._slots_due = len(self._claimants) > 0

    @property
    def has_news(self) -> bool:
        """Whether the store is to be asked about what happened."""
        return not self._asked and (bool(self._changed) or self._slots_due)

    def look_up(self) -> None:
        """Ask the store about what happened, unless it is being asked."""
        if not self.has_news:
            return
        self._asked = True
        if self._changed:
            asked = dict(islice(self._changed.items(), _RUNS_AT_ONCE))
            for run_id in asked:
                del self._changed[run_id]
            self._turn.add(FindRuns(asked, slots=len(self._claimants) > 0))
        else:
            self._slots_due = False
            self._turn.add(FindRuns({}, slots=True))

    def found(self, asked: FindRuns, news: Sequence[RunNews]) -> None:
        """Wake who waits for runs that were looked up, and for the slots that they left."""
        self._asked = False
        woken: dict[Session, dict[str, None]] = {}

        def wake(sessions: Iterable[Session], run_id: str) -> None:
            for session in sessions:
                if session.wakes:
                    woken.setdefault(session, {})[run_id] = None

        known = {each.run_id: each for each in news}
        for run_id, by_others in asked.run_ids.items():
            found = known.get(run_id)
            wake(self.sessions_of(run_id), run_id)
            if found is not None and found.last_holder is not None and by_others:
                wake(self._sessions.of_bot(found.last_holder), run_id)
            if found is not None and found.is_open:
                wake(self._openers(found), run_id)
            if found is None or found.ended:
                self.unwatch(run_id)
        for each in news:
            for run_id in each.next_runs:
                wake(self._claimants.of(run_id), run_id)
        for session, run_ids in woken.items():
            for start in range(0, len(run_ids), _RUNS_AT_ONCE):
                self._turn.send(session.address, Wake(runs=list(run_ids)[start : start + _RUNS_AT_ONCE]))

    def _openers(self, run: RunNews) -> list[Session]:
        """Return who is to open a run: the bot that held it last, or any that its workflow is for."""
        bot_id = run.last_holder or run.owner
        executors = dict.fromkeys(session for workflow in run.workflow for session in self._executors.of(workflow))
        return [session for session in executors if bot_id in (None, session.bot_id)]
