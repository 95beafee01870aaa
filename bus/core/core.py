"""The broker's decisions: (event, now) in, effects out.

Owns the handling of frames, of the log's answers, of pages that were read and of passing time, and the opening and
ending of sessions. Its rules (docs/design.md):

- Nothing is sent, to anyone, before the transaction that holds it has returned; refusals are the exception.
- The log's answers are applied in the order of the changes in the log, so that a subscription gets exactly the
  messages after it. Publishers that are neighbours there are answered, and then their messages enter the mailboxes.
- A session that cannot be reached ends at once; what it had in flight goes to the bot's other sessions.

Pure: time, ids and answers come in as arguments; the shell (`broker`) carries out the effects.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from ..mailbox.sessions import Sessions
from ..model.keys import Principal, Purpose
from ..model.repository import Applied, LogState, Looked, Page, PageRequest, Remove, RunNews, Surveyed, SurveyedRuns
from ..settings import Security, Settings
from ..wire.frames import (
    Ack,
    AddKeyFrame,
    Closing,
    Code,
    Commit,
    Credit,
    Enrol,
    EraseFrame,
    Extend,
    Goodbye,
    Hello,
    Keys,
    May,
    Nak,
    Park,
    Ping,
    Pong,
    Publish,
    Refusal,
    Reload,
    RemoveFrame,
    RequestFrame,
    RetryDeadLetters,
    RevokeKeyFrame,
    Subscribe,
    Term,
    Unsubscribe,
    WillFrame,
)
from ..wire.parts_frames import PartFrame, ReadPart, WholeFrame
from .access import Access
from .administering import Administering
from .admission import Admission
from .audience import Audience
from .batches import Batch, Batches
from .committing import Committing
from .consoles import greeted
from .directory import Directory
from .dispatch import Dispatch
from .duties import Duties
from .effects import Ask, Count, Effect, FindRuns, FindStart, Locate, Moment, Note, Turn
from .enrolling import NO_KEYS, Enrolling
from .events import Events
from .flushing import Flushing
from .founding import Founding
from .hearing import Hearing
from .keeping import Keeping
from .keyring import Keyring
from .large import LargeFrames
from .opening import Opening
from .pausing import Pausing
from .permitting import Permitting
from .publishing import Publishing
from .recording import SecurityRecord
from .recovering import Recovering
from .returning import Returning
from .scheduling import Scheduling
from .settling import Settling
from .shares import Shares
from .subscribing import Subscribing
from .waking import Waking
from .welcoming import Welcoming
from .wills import Wills

__all__ = ["Core"]


class Core:
    """See the module. Every method takes the current moment, and returns the effects to carry out."""

    def __init__(self, state: LogState, settings: Settings, *, worker: str, new_id: Callable[[], str]) -> None:
        self.directory = Directory(state, settings)
        self.sessions = Sessions()
        self._settings = settings
        self._new_id = new_id
        self._turn = Turn(state.last_timestamp)
        self.recent = self._turn.recent
        self._batches = Batches(settings.limits)
        self._record = SecurityRecord(
            state.security, self.directory, self.sessions, batches=self._batches, settings=settings.retention
        )
        self._turn.noted += (self._record.note,)
        self.dispatch = Dispatch(self.directory, self._batches, self._turn, settings, state.last_seq)
        self._scheduling = Scheduling(
            state, self.directory, settings.limits, batches=self._batches, dispatch=self.dispatch, turn=self._turn
        )
        self.audience = Audience(settings, self.directory, self.dispatch.tapping, self._scheduling)
        self._events = Events(self.audience, self.sessions, self._batches, turn=self._turn, new_id=new_id)
        self._founding = Founding(self.directory, settings.limits)
        access = Access(settings.security, self.directory.worker_channels)
        keyring = Keyring(state.keys, self.directory.bots, may_tap=access.may_tap)
        self.keyring = keyring if settings.security.has_keys else None
        """All keys; None for a worker without keys, for which every connection is whom it says it is."""
        self.permitting = Permitting(access, self.directory)
        self.shares = Shares(access, settings.limits)
        self.large = LargeFrames(self.sessions, self.shares, settings)
        self._admission = admission = self._with_limits(self._scheduling, self._founding)
        self.rates = admission.rates
        self._publishing = Publishing(admission, self._batches, self.dispatch, self._turn, settings.limits)
        self.waking = waking = Waking(self.sessions, self._turn, settings.workflows.sweep_seconds)
        self._committing = Committing(self.directory, admission, self._batches, self.dispatch, waking, self._turn)
        self.wills = Wills(self.sessions, self._committing, self.keyring, settings.delivery)
        self.recovering = Recovering(settings.workflows, self._batches, self.dispatch, waking, self._turn)
        self._pausing = Pausing(access, self.directory, self.sessions, dispatch=self.dispatch, turn=self._turn)
        self._subscribing = subscribing = Subscribing(
            self.directory,
            self.sessions,
            access=access,
            batches=self._batches,
            dispatch=self.dispatch,
            founding=self._founding,
            pausing=self._pausing,
            shares=self.shares,
            turn=self._turn,
            limits=settings.limits,
        )
        self._settling = Settling(self.directory, access, self._batches, self.dispatch, self._turn)
        self._returning = Returning(self.directory, self.dispatch, self._turn, settings.limits, epoch=state.epoch)
        self.welcoming = Welcoming(self.sessions, self._turn, settings, worker=worker, epoch=state.epoch)
        self._opening = self._opened_by(self.welcoming)
        self.administering = Administering(
            access, self.keyring, self.directory, subscribing, scheduling=self._scheduling, wills=self.wills
        )
        self.administering.erasing.tell(waking.keyed, self.wills)
        self._enrolling = None if self.keyring is None else self._with_keys(self.keyring)
        self._keeping = Keeping(
            settings, waking, self._batches, directory=self.directory, dispatch=self.dispatch, turn=self._turn
        )
        self.duties = Duties(self._scheduling.release, self.recovering.tick, self._keeping.tick)
        self._flushing = Flushing(
            self._batches,
            self.dispatch,
            self._record,
            events=self._events,
            keyring=self.keyring,
            turn=self._turn,
            flush_seconds=settings.delivery.mailbox_flush_seconds,
        )
        self._hearing = Hearing(settings.delivery.heartbeat_seconds)

    def _with_limits(self, scheduling: Scheduling, founding: Founding) -> Admission:
        return Admission(
            self.directory,
            scheduling,
            founding,
            permitting=self.permitting,
            shares=self.shares,
            dispatch=self.dispatch,
            turn=self._turn,
            limits=self._settings.limits,
        )

    def _opened_by(self, welcoming: Welcoming) -> Opening:
        return Opening(
            self.directory,
            self.sessions,
            batches=self._batches,
            dispatch=self.dispatch,
            founding=self._founding,
            large=self.large,
            matching=self._subscribing.matching,
            pausing=self._pausing,
            returning=self._returning,
            shares=self.shares,
            waking=self.waking,
            welcoming=welcoming,
            wills=self.wills,
            turn=self._turn,
            settings=self._settings,
            new_id=self._new_id,
            receive=self._try,
        )

    def _with_keys(self, keyring: Keyring) -> Enrolling:
        return Enrolling(
            keyring,
            self.directory,
            self.sessions,
            batches=self._batches,
            dispatch=self.dispatch,
            founding=self._founding,
            turn=self._turn,
            limits=self._settings.limits,
            new_id=self._new_id,
            end=self._opening.end,
        )

    def __repr__(self) -> str:
        return f"<Core last_seq={self.last_seq} {self.sessions} {self.directory} {self._batches}>"

    @property
    def last_seq(self) -> int:
        """The end of the log, as the mailboxes know it."""
        return self.dispatch.last_seq

    def log_ahead(self, wall: str) -> float:
        """Return by how many seconds the log's last timestamp is ahead of the wall clock, or 0."""
        return self._turn.log_time.ahead(wall)

    # ── Events ───────────────────────────────────────────────────────────────────────────────────────────

    def receive(
        self, address: bytes, request: RequestFrame, moment: Moment, principal: Principal | None = None
    ) -> list[Effect]:
        """Handle a client's frame; with keys, from whom its key says it is."""
        self._turn.moment = moment
        self._hearing.heard(moment.now)
        self._try(address, request, principal)
        return self._finish()

    def introduce(self, bot: str, public_key: str, moment: Moment) -> list[Effect]:
        """Add a key that may manage keys, for whoever starts the worker. Raise Refusal if it has ended."""
        assert self._enrolling is not None, "this is for a worker with keys"
        self._turn.moment = moment
        self._enrolling.introduce(bot, public_key)
        return self._finish()

    def reject(
        self, address: bytes, error: Refusal, moment: Moment, principal: Principal | None = None
    ) -> list[Effect]:
        """Refuse a frame that could not be decoded; the session stays."""
        self._turn.moment = moment
        self._hearing.heard(moment.now)
        session = self._opening.session_at(address, principal)
        if session is not None:
            session.last_heard = moment.now
        self._turn.refuse(address, error.code, error.message, error.request)
        return self._finish()

    def ignore(self, address: bytes, moment: Moment) -> list[Effect]:
        """Drop a frame whose key is not valid, or not any more; a session that is left at its address ends."""
        self._turn.moment = moment
        self._hearing.heard(moment.now)
        self.dispatch.counters.ignored += 1
        session = self.sessions.get(address)
        if session is not None:
            self._opening.end(session, vanished=True)
        return self._finish()

    def applied(self, batch: Batch, applied: Applied, moment: Moment) -> list[Effect]:
        """Handle the log's answers to a batch, all of which is on disk."""
        self._turn.moment = moment
        self.directory.add_channels(batch.channels.values())
        self._founding.end(batch.channels.values())
        before = self.last_seq
        for jobs, lots in batch.answered(applied.answers):
            for job, answers in jobs:
                if job.changes:  # it may change who receives the messages after it, and not those before it
                    self.dispatch.arrive()
                job.done(answers, applied.at)
            for lot, added in lots:
                self._admission.enter(lot, added, applied.at)
        self.dispatch.arrive()
        if self.last_seq > before:
            self._turn.log_time.stamped(applied.at, self._flushing.taken_at)
        return self._finish()

    def failed(self, batch: Batch, code: Code, message: str, moment: Moment) -> list[Effect]:
        """Handle the log's refusal of a batch, none of which is on disk."""
        self._turn.moment = moment
        batch.refused()
        self._events.refused(code, moment)
        self._founding.end(batch.channels.values())
        self.dispatch.save_again(batch.mailboxes)
        for job in batch.jobs:
            job.failed(code, message)
        return self._finish()

    def page_read(self, request: PageRequest, page: Page, moment: Moment) -> list[Effect]:
        """Add a page that was read for a mailbox."""
        self._turn.moment = moment
        self.dispatch.page_read(request, page)
        return self._finish()

    def counted(self, count: Count, waiting: Mapping[str, int], moment: Moment) -> list[Effect]:
        """Apply the number of messages that wait in a mailbox, by their senders."""
        self._turn.moment = moment
        self.dispatch.counted(count, waiting)
        return self._finish()

    def looked_up(self, change: Remove, found: Looked | Refusal, moment: Moment) -> list[Effect]:
        """Go on with a removal that was looked up, or could not be."""
        self._turn.moment = moment
        self.administering.looked_up(change, found)
        return self._finish()

    def surveyed(self, found: Sequence[Surveyed] | SurveyedRuns, moment: Moment) -> list[Effect]:
        """Handle the part of the log, or the runs, that retention asked for."""
        self._turn.moment = moment
        self._keeping.surveyed(found)
        return self._finish()

    def start_found(self, found: FindStart, start_seq: int, moment: Moment) -> list[Effect]:
        """Subscribe from the seq found for a subscription that starts at a time."""
        self._turn.moment = moment
        if (session := self.sessions.get(found.address)) is not None and session.id == found.session_id:
            self._subscribing.subscribe(session, found.subscribe, start_seq)
        return self._finish()

    def located(self, located: Locate, messages: Sequence[Surveyed], moment: Moment) -> list[Effect]:
        """Handle the recipients of messages that a returning client holds, or that a settle could not change."""
        self._turn.moment = moment
        if (session := self.sessions.get(located.address)) is not None and session.id == located.session_id:
            if isinstance(located.request, Hello):
                self._opening.located(session, located.request, messages)
            else:
                self._settling.answer(session, located.request, located, messages)
        return self._finish()

    def configure(self, security: Security, moment: Moment) -> list[Effect]:
        """Decide by other rights from now on: subscriptions that are no longer allowed are paused."""
        self._turn.moment = moment
        self.administering.configure(security)
        return self._finish()

    def note(self, note: Note, moment: Moment) -> list[Effect]:
        """Log, and perhaps record, what the shell noticed."""
        self._turn.moment = moment
        self._turn.note(note.event, **note.fields)
        return self._turn.take()

    def look_at_runs(self, moment: Moment) -> list[Effect]:
        """Look up the runs, and tell of the keyed values, that `waking` was told of outside of an event."""
        self._turn.moment = moment
        return self._finish()

    def runs_found(self, asked: FindRuns, news: Sequence[RunNews], moment: Moment) -> list[Effect]:
        """Wake who waits for runs that were looked up."""
        self._turn.moment = moment
        self.waking.found(asked, news)
        return self._finish()

    def unreachable(self, address: bytes, moment: Moment, unsent: Container[int] = ()) -> list[Effect]:
        """End the session of a connection that can no longer be sent to.

        Messages in flight there have failed, except those that are `unsent`.
        """
        self._turn.moment = moment
        if (session := self.sessions.get(address)) is not None:
            self._opening.end(session, vanished=True, unsent=unsent)
        return self._finish()

    def tap_topic(self, topic: bytes, moment: Moment, *, wanted: bool) -> list[Effect]:
        """Note that a topic of the tap has a listener, or has none any more."""
        self._turn.moment = moment
        change = self.dispatch.tapping.want if wanted else self.dispatch.tapping.leave
        change(topic)
        return self._finish()

    def tick(self, moment: Moment) -> list[Effect]:
        """Handle the passing of time: release due messages, end silent sessions, expire deadlines."""
        self._turn.moment = moment
        self._turn.steady()  # on every tick, so that a clock that was set is noticed even if nothing waits
        deaf, late = self._hearing.tick(moment.now, full=self.full)
        if self._enrolling is not None:
            self._enrolling.expire()
        self.duties.tick()
        self.waking.tick(moment.now)
        self.large.expire(moment.now)
        if self.duties.held:
            self._record.tick(moment.now, self._turn.steady())
        self._events.tick(moment.now)
        if deaf:
            self.sessions.heard(moment.now)
            self.dispatch.wait_anew(self.sessions)
            self.wills.wait_anew(moment.now)
        if deaf or late:
            return self._finish()
        self._opening.end_silent(moment.now)
        self.dispatch.expire()
        self.dispatch.tapping.send_heads()
        return self._finish()

    def close(self, moment: Moment) -> list[Effect]:
        """Send `closing` to every session and end it, because the worker is shutting down."""
        self._turn.moment = moment
        for session in self.sessions:
            self._turn.send(session.address, Closing())
            self._opening.end(session, vanished=False)
        return self._finish()

    def _finish(self) -> list[Effect]:
        self.dispatch.run()
        self.waking.look_up()
        return self._turn.take()

    # ── Batches ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def full(self) -> bool:
        """Whether requests should wait in the socket until a batch is written."""
        return self._batches.full

    def has_batch(self, moment: Moment) -> bool:
        """Return True if a batch is ready to be written."""
        return self._flushing.has_batch(moment)

    def take_batch(self, moment: Moment, *, flush: bool = False) -> Batch | None:
        """Return the next batch, or None; with `flush`, as at shutdown, it includes everything unsaved."""
        return self._flushing.take_batch(moment, flush=flush)

    # ── Requests ─────────────────────────────────────────────────────────────────────────────────────────

    def _try(self, address: bytes, request: RequestFrame, principal: Principal | None) -> None:
        try:
            self._receive(address, request, principal)
        except Refusal as error:
            self._turn.refuse_request(address, request, error, principal)

    def _receive(self, address: bytes, request: RequestFrame, principal: Principal | None) -> None:
        found = self._opening.session_at(address, principal)
        if isinstance(request, Enrol) or (principal is not None and principal.purpose is Purpose.ENROL):
            self._key_manager().receive(address, request, principal)
            return
        if isinstance(request, Hello):
            self._opening.hello(address, request, principal)
            return
        session = greeted(found, request)
        silent, session.last_heard = self._turn.moment.now - session.last_heard, self._turn.moment.now
        cut_off = silent > self._settings.delivery.heartbeat_seconds
        if cut_off or session.doubted:
            self._returning.heard(session, cut_off=cut_off)
        if session.opening and not isinstance(request, Ping):
            if len(session.held) >= self._settings.limits.held_requests_max:
                raise Refusal(Code.BUSY, "the bot is still being registered; wait for welcome")
            session.held.append(request)
            return
        match request:
            case Publish():
                self._publishing.request(session, request)
            case Commit():
                self._committing.request(session, request)
            case WillFrame():
                self.wills.request(session, request)
            case Ack() | Nak() | Term() | Extend() | Park():
                self._settling.request(session, request)
            case Credit():
                session.credit = min(request.max_in_flight, self._settings.limits.in_flight_max)
                self.dispatch.touch_session(session)
                self._settling.confirm(session, request.request, self.directory.mailboxes_lent_to(session))
            case Subscribe():
                self._subscribing.request(session, request)
            case Unsubscribe():
                self._subscribing.unsubscribe(session, request)
            case RetryDeadLetters():
                self._settling.retry_dead_letters(session, request)
            case Ping():
                self._turn.send(address, Pong(last_seq=self.last_seq))
            case Goodbye():
                self._opening.goodbye(session, request)
            case May() | Reload() | EraseFrame() | RemoveFrame():
                self.administering.request(session, request)
            case AddKeyFrame() | RevokeKeyFrame() | Keys():
                self._key_manager().request(session, request)
            case PartFrame() | ReadPart():
                self.large.request(session, request, self._turn)
            case WholeFrame():
                self._receive(address, self.large.whole(session, request), principal)
            case _:  # a query or a workflow call, as the type of Ask.query checks
                self._turn.add(Ask(address, session.bot_id, request, session.principal))

    def _key_manager(self) -> Enrolling:
        """Return who manages keys. Raise Refusal if this worker has none."""
        if self._enrolling is None:
            raise Refusal(Code.FORBIDDEN, NO_KEYS)
        return self._enrolling
