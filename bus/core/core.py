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

from ..mailbox.mailbox import Mailbox
from ..mailbox.sessions import Session, Sessions, client_of
from ..model.records import WORKER_ID, BotRecord
from ..model.repository import AddBot, Applied, LogState, MailboxState, Page, PageRequest, Surveyed
from ..settings import Settings
from ..wire.frames import (
    PROTOCOL_VERSION,
    Ack,
    AddKeyFrame,
    Closing,
    Code,
    Commit,
    Credit,
    Enrol,
    Extend,
    Goodbye,
    Hello,
    Keys,
    Nak,
    Ok,
    Ping,
    Pong,
    Publish,
    Refusal,
    RequestFrame,
    RetryDeadLetters,
    RevokeKeyFrame,
    Subscribe,
    Term,
    Unsubscribe,
)
from .admission import Admission
from .batches import Batch, Batches, Job
from .committing import Committing
from .directory import Directory
from .dispatch import Dispatch
from .effects import Ask, Count, Effect, FindStart, Locate, Moment, Turn
from .founding import Founding
from .publishing import Publishing
from .recovering import Recovering
from .retention import Retention
from .returning import Returning
from .scheduling import Scheduling
from .settling import Settling
from .subscribing import Subscribing
from .welcoming import Welcoming

__all__ = ["Core"]

_LATE_SECONDS = 1.0
"""After a tick this late, frames may be waiting in the socket that must be read first."""

_NO_KEYS = (
    "this worker has no keys: stop it, make one for each bot with 'posthouse keys adopt',"
    ' and start it with mode = "keys" in [security]'
)


class Core:
    """See the module. Every method takes the current moment, and returns the effects to carry out."""

    def __init__(self, state: LogState, settings: Settings, *, worker: str, new_id: Callable[[], str]) -> None:
        self.directory = Directory(state, settings)
        self.sessions = Sessions()
        self.epoch = state.epoch
        self._settings = settings
        self._new_id = new_id
        self._turn = Turn(state.last_timestamp)
        self._batches = Batches(settings.limits)
        self.dispatch = Dispatch(self.directory, self._batches, self._turn, settings, state.last_seq)
        self._scheduling = Scheduling(
            state, batches=self._batches, dispatch=self.dispatch, turn=self._turn, limits=settings.limits
        )
        self._founding = Founding(self.directory, settings.limits)
        self._admission = admission = Admission(
            self.directory,
            self._scheduling,
            self._founding,
            dispatch=self.dispatch,
            turn=self._turn,
            limits=settings.limits,
        )
        self.rates = admission.rates
        self._publishing = Publishing(admission, self._batches, self.dispatch, self._turn, settings.limits)
        self._committing = Committing(self.directory, admission, self._batches, self.dispatch, self._turn)
        self._recovering = Recovering(settings.workflows, self._batches, self.dispatch, self._turn)
        self._subscribing = Subscribing(
            self.directory,
            self.sessions,
            batches=self._batches,
            dispatch=self.dispatch,
            founding=self._founding,
            turn=self._turn,
            limits=settings.limits,
        )
        self._welcoming = Welcoming(self.sessions, self._turn, settings, worker=worker, epoch=state.epoch)
        self._settling = Settling(self.directory, self._batches, self.dispatch, self._turn)
        self._returning = Returning(self.directory, self.dispatch, self._turn, settings.limits, epoch=state.epoch)
        self._retention = Retention(
            settings.retention,
            directory=self.directory,
            batches=self._batches,
            dispatch=self.dispatch,
            turn=self._turn,
        )
        self._registering: dict[str, list[tuple[bytes, Hello]]] = {}
        self._claimed: set[str] = set()
        self._flushed_at: float | None = None
        self._taken_at = 0.0
        self._swept_at = 0.0
        self._ticked_at = 0.0
        self._heard_at = 0.0
        self._was_late = False

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

    def receive(self, address: bytes, request: RequestFrame, moment: Moment) -> list[Effect]:
        """Handle a client's frame."""
        self._turn.moment = moment
        self._heard_at = moment.now
        self._try(address, request)
        return self._finish()

    def reject(self, address: bytes, error: Refusal, moment: Moment) -> list[Effect]:
        """Refuse a frame that could not be decoded; the session stays."""
        self._turn.moment = moment
        self._heard_at = moment.now
        session = self.sessions.get(address)
        if session is not None:
            session.last_heard = moment.now
        self._turn.refuse(address, error.code, error.message, error.request)
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
            self._turn.log_time.stamped(applied.at, self._taken_at)
        return self._finish()

    def failed(self, batch: Batch, code: Code, message: str, moment: Moment) -> list[Effect]:
        """Handle the log's refusal of a batch, none of which is on disk."""
        self._turn.moment = moment
        batch.refused()
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
        self.directory.mailboxes[count.request.mailbox_id].backlog.counted(waiting, number=count.number)
        return self._finish()

    def surveyed(self, rows: Sequence[Surveyed], moment: Moment) -> list[Effect]:
        """Handle the part of the log that retention asked for."""
        self._turn.moment = moment
        self._retention.surveyed(rows)
        return self._finish()

    def start_found(self, found: FindStart, start_seq: int, moment: Moment) -> list[Effect]:
        """Subscribe from the seq found for a subscription that starts at a time."""
        self._turn.moment = moment
        session = self.sessions.get(found.address)
        if session is not None and session.id == found.session_id:
            self._subscribing.subscribe(session, found.subscribe, start_seq)
        return self._finish()

    def located(self, located: Locate, messages: Sequence[Surveyed], moment: Moment) -> list[Effect]:
        """Handle the recipients of messages that a returning client holds, or that a settle could not change."""
        self._turn.moment = moment
        session = self.sessions.get(located.address)
        if session is not None and session.id == located.session_id:
            if isinstance(located.request, Hello):
                session.opening = False
                self._welcome(session, located.request, messages)
                self._carry_out_held(session)
            else:
                self._settling.answer(session, located.request, located, messages)
        return self._finish()

    def unreachable(self, address: bytes, moment: Moment, unsent: Container[int] = ()) -> list[Effect]:
        """End the session of a connection that can no longer be sent to.

        Messages in flight there have failed, except those that are `unsent`.
        """
        self._turn.moment = moment
        session = self.sessions.get(address)
        if session is not None:
            self._end(session, vanished=True, unsent=unsent)
        return self._finish()

    def tap_topic(self, topic: bytes, moment: Moment, *, wanted: bool) -> list[Effect]:
        """Note that a topic of the tap has a listener, or has none any more."""
        self._turn.moment = moment
        if wanted:
            self.dispatch.tapping.want(topic)
        else:
            self.dispatch.tapping.leave(topic)
        return self._finish()

    def tick(self, moment: Moment) -> list[Effect]:
        """Handle the passing of time: release due messages, end silent sessions, expire deadlines."""
        self._turn.moment = moment
        self._turn.steady()  # on every tick, so that a clock that was set is noticed even if nothing waits
        deaf, late = self._was_deaf(moment.now), self._is_late(moment.now)
        self._ticked_at = moment.now
        self._scheduling.release()
        self._recovering.tick()
        self._retention.tick()
        if deaf:
            for session in self.sessions:
                session.last_heard = moment.now
            self.dispatch.wait_anew(self.sessions)
        if deaf or late:
            return self._finish()
        timeout = self._settings.delivery.session_timeout_seconds
        if moment.now - self._swept_at >= timeout / 10:
            self._swept_at = moment.now
            for session in self.sessions.silent(moment.now - timeout):
                self._end(session, vanished=True)
        self.dispatch.expire()
        self.dispatch.tapping.send_heads()
        return self._finish()

    def _was_deaf(self, now: float) -> bool:
        """Return True if the worker stood still, or a slow disk kept it from reading: then no client was silent.

        What waits in the socket is read before any deadline expires.
        """
        heartbeat = self._settings.delivery.heartbeat_seconds
        return now - self._ticked_at > heartbeat or (self.full and now - self._heard_at > heartbeat)

    def _is_late(self, now: float) -> bool:
        """Return True if frames may be waiting that should be read before this tick."""
        self._was_late = now - self._ticked_at > _LATE_SECONDS and not self._was_late  # never twice in a row
        return self._heard_at <= self._ticked_at and (self.full or self._was_late)

    def close(self, moment: Moment) -> list[Effect]:
        """Send `closing` to every session and end it, because the worker is shutting down."""
        self._turn.moment = moment
        for session in self.sessions:
            self._turn.send(session.address, Closing())
            self._end(session, vanished=False)
        return self._finish()

    def _finish(self) -> list[Effect]:
        self.dispatch.run()
        return self._turn.take()

    # ── Batches ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def full(self) -> bool:
        """Whether requests should wait in the socket until a batch is written."""
        return self._batches.full

    def has_batch(self, moment: Moment) -> bool:
        """Return True if a batch is ready to be written."""
        return bool(self._batches) or (self.dispatch.unsaved and self._flush_due(moment))

    def take_batch(self, moment: Moment, *, flush: bool = False) -> Batch | None:
        """Return the next batch, or None; with `flush`, as at shutdown, it includes every unsaved mailbox."""
        mailboxes: list[Mailbox] = []
        if flush or self._flush_due(moment):
            self._flushed_at = moment.now
            mailboxes = self.dispatch.flush()
        if not self._batches and not mailboxes:
            return None
        self._taken_at = moment.now
        return self._batches.take(mailboxes, self._turn.log_time.at(*moment))

    def _flush_due(self, moment: Moment) -> bool:
        if self._flushed_at is None:  # the first interval begins now
            self._flushed_at = moment.now
        return moment.now - self._flushed_at >= self._settings.delivery.mailbox_flush_seconds

    # ── Requests ─────────────────────────────────────────────────────────────────────────────────────────

    def _try(self, address: bytes, request: RequestFrame) -> None:
        try:
            self._receive(address, request)
        except Refusal as error:
            self._turn.refuse_request(address, request, error)

    def _receive(self, address: bytes, request: RequestFrame) -> None:
        session = self.sessions.get(address)
        if isinstance(request, Hello):
            self._hello(address, request)
            return
        if isinstance(request, Keys | AddKeyFrame | RevokeKeyFrame | Enrol):
            raise Refusal(Code.FORBIDDEN, _NO_KEYS)
        if session is None:
            raise Refusal(Code.UNKNOWN_SESSION, "no session here: say hello, then repeat unanswered requests")
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
            case Ack() | Nak() | Term() | Extend():
                self._settling.settle(session, request)
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
                self._end(session, vanished=False)
                self._turn.send(address, Ok(request=request.request))
            case _:  # a query or a workflow call, as the type of Ask.query checks
                self._turn.add(Ask(address, session.bot_id, request))

    def _hello(self, address: bytes, hello: Hello) -> None:
        if hello.protocol != PROTOCOL_VERSION:
            raise Refusal(
                Code.UNSUPPORTED_PROTOCOL,
                f"this worker speaks protocol {PROTOCOL_VERSION}, not {hello.protocol}",
            )
        if hello.bot is None:
            raise Refusal(Code.BAD_REQUEST, "hello must name your bot: this worker has no keys to know it by")
        if hello.bot_id == WORKER_ID:
            raise Refusal(Code.BAD_REQUEST, "the nil UUID is reserved for the worker")
        bot = self.directory.names.get(hello.name)
        before = self.sessions.get(address)
        returns = bot is not None and self.sessions.of_client(bot.id, client_of(hello.token)) is not None
        if before is None and not returns and len(self.sessions) >= self._settings.limits.sessions_max:
            raise Refusal(Code.BUSY, f"the worker has {len(self.sessions)} sessions, its maximum")
        waiting = self._registering.get(hello.name)
        if waiting is not None:
            if len(waiting) >= self._settings.limits.held_requests_max:
                raise Refusal(Code.BUSY, f"bot {hello.name!r} is still being registered; say hello again later")
            if before is not None:
                self._end(before, vanished=False)
            waiting.append((address, hello))
            return
        if bot is not None and hello.bot_id not in (None, bot.id):
            raise Refusal(Code.BOT_CONFLICT, f"bot {hello.name!r} has a different id than {hello.bot_id}")
        if bot is None:
            self._founding.check(address, hello, self._claimed)
        if before is not None:
            self._end(before, vanished=False)
        session = self._new_session(address, hello)
        if bot is not None:
            self._open(session, bot, hello)
        else:
            self._register(session, hello)

    def _new_session(self, address: bytes, hello: Hello) -> Session:
        limits = self._settings.limits
        credit = limits.in_flight_default if hello.max_in_flight is None else hello.max_in_flight
        return Session(
            address,
            self._new_id(),
            self._turn.moment.now,
            credit=min(credit, limits.in_flight_max),
            in_flight_bytes_max=limits.in_flight_bytes_max,
        )

    def _register(self, session: Session, hello: Hello) -> None:
        wall = self._turn.moment.wall
        bot = BotRecord(id=hello.bot_id or self._new_id(), name=hello.name, created_at=wall, last_seen_at=wall)
        session.bot_id, session.opening = bot.id, True
        self.sessions.add(session)
        self._registering[bot.name] = []
        self._claimed.add(bot.id)
        self._founding.register(session.address)
        self._batches.add(_RegisterJob(self, session, hello, bot))

    def registered(self, session: Session, hello: Hello, bot: BotRecord, start_seq: int) -> None:
        """Open the session of a newly registered bot, and those that waited for it."""
        self.directory.add_bot(bot, MailboxState(bot.id, start_seq), last_seq=start_seq)
        others = self._end_registering(bot)
        if self.sessions.get(session.address) is session:
            session.opening = False
            self.sessions.remove(session)
            self._open(session, bot, hello)
            self._carry_out_held(session)
        for address, other in others:
            self._try(address, other)

    def not_registered(self, session: Session, hello: Hello, bot: BotRecord, error: Refusal) -> None:
        """Refuse the sessions of a new bot that could not be registered."""
        if self.sessions.get(session.address) is session:
            self.sessions.remove(session)
            self._turn.refuse(session.address, error.code, error.message, hello.request)
        for address, other in self._end_registering(bot):
            self._turn.refuse(address, error.code, error.message, other.request)

    def _end_registering(self, bot: BotRecord) -> list[tuple[bytes, Hello]]:
        """Return the hellos that waited for a bot's registration."""
        self._claimed.remove(bot.id)
        return self._registering.pop(bot.name)

    def _carry_out_held(self, session: Session) -> None:
        """Carry out the requests that arrived while a session was being opened."""
        held, session.held = session.held, []
        for request in held:
            self._try(session.address, request)

    def _open(self, session: Session, bot: BotRecord, hello: Hello) -> None:
        session.bot_id, session.bot_name = bot.id, bot.name
        self.sessions.add(session)
        unknown = self._returning.unknown(session, hello)
        if unknown:
            session.opening = True
            self._returning.postpone(session, client_of(hello.token))
            self._turn.add(Locate(session.address, session.id, hello, unknown))
        else:
            self._welcome(session, hello, ())

    def _welcome(self, session: Session, hello: Hello, located: Sequence[Surveyed]) -> None:
        """Begin a session, which replaces its client's earlier one."""
        client = client_of(hello.token)
        earlier = self.sessions.of_client(session.bot_id, client)
        session.client = client
        self.dispatch.see(session.bot_id)
        not_held = self._returning.keep(session, hello, earlier, located)
        self._welcoming.welcome(session, hello, earlier=earlier, not_held=not_held, last_seq=self.last_seq)
        self.dispatch.attach(session)
        self._returning.take_over(session, hello, earlier)
        if earlier is not None:
            self._end(earlier, vanished=False)

    def _end(self, session: Session, *, vanished: bool, unsent: Container[int] = ()) -> None:
        self.sessions.remove(session)
        if session.opening:
            return
        self.dispatch.see(session.bot_id)
        self.dispatch.detach(session, vanished=vanished, unsent=unsent)


class _RegisterJob(Job[int]):
    """The registration of a new bot; the answer is the seq after which it receives messages."""

    def __init__(self, core: Core, session: Session, hello: Hello, bot: BotRecord) -> None:
        super().__init__(changes=[AddBot(bot)])
        self._core = core
        self._session = session
        self._hello = hello
        self._bot = bot

    def done(self, answers: Sequence[int], at: str) -> None:
        """Open its session, and those that waited for it."""
        self._core.registered(self._session, self._hello, self._bot, answers[0])

    def failed(self, code: Code, message: str) -> None:
        """Refuse all these sessions."""
        self._core.not_registered(self._session, self._hello, self._bot, Refusal(code, message))
