"""A world of bots, a disk and a network around the pure core, played at random from a seed.

Everything that can happen to a worker happens here in any order: frames, answers of the disk that come late or
say that it is full, pages read at one time and delivered at another, connections that vanish, crashes before and
after a commit. After each event the promises of docs/contract.md are checked (`promises`); now and then the faults
stop, and everything that is owed must arrive.

    python -m tests.pure.simulation --steps 200000 --seed 1
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import click
import msgspec

from bus.core.batches import Batch
from bus.core.core import Core
from bus.core.effects import Ask, Count, Effect, Locate, LookUp, Moment, Note, Read, Send, Survey, Tap, unsent
from bus.model.records import timestamp
from bus.model.repository import AddSubscription, Applied
from bus.wire.codec import decode_worker_frame
from bus.wire.frames import (
    Code,
    Commit,
    Credit,
    Deliver,
    ErrorFrame,
    Gap,
    Goodbye,
    Hello,
    KeyedChanged,
    Ok,
    Ping,
    Publication,
    Publish,
    Published,
    RemoveFrame,
    RequestFrame,
    RetryDeadLetters,
    Welcome,
)

from .authors import any_body, any_publication
from .budget_promises import BudgetPromises
from .calm import settle
from .connection import Connection
from .fake_log import FakeLog
from .keyed_world import KeyedWorld
from .operator import any_erasure, any_removal
from .presences import Presences
from .promises import Promises, Violation
from .questions import Question, given, looked_up
from .settling import ack, commit_work, park_some, settle_some
from .simulated_settings import BOTS, channels_of, patterns_of, settings_of
from .subscribers import subscribe, subscribe_to_pattern, unsubscribe, unsubscribe_from_pattern
from .wills_world import WillsWorld

__all__ = ["Simulation", "play"]


class Simulation:
    """The world. `step` lets one thing happen."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.settings, self.channels, self.patterns = settings_of(seed), channels_of(seed), patterns_of(seed)
        self.is_prioritized = seed % 7 == 3
        self.log = FakeLog()
        self.promises = Promises(self.log, self.settings)
        self.now = 100.0
        self.ids = 0
        self.requests = 0
        self.connections: dict[bytes, Connection] = {}
        self.away: list[Connection] = []
        """Clients that lost their connection, and may return."""
        self.batch: Batch | None = None
        self.questions: list[tuple[Question, Any]] = []
        """What the core asked of the disk, each with the answer where it was read already."""
        self.pending_publishes: dict[tuple[bytes, int], list[Publication]] = {}
        self.commits: dict[str, tuple[Commit, str]] = {}
        self.removals: list[RemoveFrame] = []
        self.wishes: dict[tuple[str, str], int] = {}
        self.keyed = KeyedWorld(self, is_one=seed % 11 == 9)
        self.wills = WillsWorld(self, is_one=seed % 17 == 10)
        self.presences = Presences(self.log, self.promises.written)
        self.budgets = BudgetPromises(self.log)
        self.core = self._start()
        self.keyed.start(self)

    @property
    def deliveries(self) -> int:
        return self.promises.deliveries

    # ── The worker ───────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> Core:
        core = Core(self.log.load(), self.settings, worker="simulated", new_id=self.new_id)
        core.wills.load(self.log.keyed.wills(), self.now)
        return core

    def new_id(self) -> str:
        self.ids += 1
        return f"00000000-0000-7000-8000-{self.ids:012x}"

    def moment(self) -> Moment:
        return Moment(self.now, timestamp(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)))

    def do(self, effects: Sequence[Effect]) -> None:
        """Carry out effects as the shell does: at once, in order."""
        queue = list(effects)
        while queue:
            effect = queue.pop(0)
            match effect:
                case Send(address, frame):
                    connection = self.connections.get(address)
                    if connection is None:
                        queue += self.core.unreachable(address, self.moment(), unsent(effect, queue))
                    else:
                        self._check_frame(connection, frame)
                        connection.inbox.append(frame)
                case Read() | Count() | LookUp() | Survey() | Locate():
                    self.questions.append((effect, None))
                case Ask():
                    self.keyed.begin(effect)
                case Note():
                    self.presences.note(effect, self.moment())
                case Tap():
                    pass
                case _:
                    raise AssertionError(f"nothing here asks for {effect}")

    def send(self, connection: Connection, request: RequestFrame) -> None:
        self.do(self.core.receive(connection.address, request, self.moment()))

    def number(self) -> int:
        self.requests += 1
        return self.requests

    # ── Events ───────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> None:
        """Let one thing happen, and check everything."""
        self.promises.steps += 1
        events: list[tuple[Callable[[], None], int]] = [
            (self._connect, 3),
            (self._break, 2),
            (self._return, 3),
            (self._publish, 14),
            (self._read_frame, 22),
            (partial(settle_some, self), 12),
            (partial(commit_work, self), 3),
            (partial(park_some, self), 2),
            (partial(subscribe, self), 4),
            (partial(unsubscribe, self), 1),
            (partial(subscribe_to_pattern, self), 2 if self.patterns else 0),
            (partial(unsubscribe_from_pattern, self), 1 if self.patterns else 0),
            (self._take_batch, 10),
            (self._commit, 10),
            (self._look, 6),
            (self._answer, 6),
            (self._pass_time, 6),
            (self._leave, 2),
            (self._change_credit, 2),
            (self._retry, 1),
            (self._erase, 3 if self.seed % 9 == 2 else 0),
            (self._remove, 3 if self.seed % 4 == 3 else 0),
            (self._refuse_batch, 1),
            (self._crash, 1),
            (self.wills.act, 8 if self.wills.is_one else 0),
            (self.wills.erase, 3 if self.wills.is_one else 0),
            (self.wills.remove, 2 if self.wills.is_one else 0),
            (self.keyed.act, 25 if self.keyed.is_one else 0),
            (self.keyed.advance, 30 if self.keyed.is_one else 0),
            (self.keyed.read, 20 if self.keyed.is_one else 0),
        ]
        event = self.random.choices([event for event, _ in events], [weight for _, weight in events])[0]
        event()
        self.promises.check(self.core)
        self.keyed.passed()
        self.presences.check(self.core)
        self.wills.look()

    def pick(self, *, welcomed: bool = True) -> Connection | None:
        found = [connection for connection in self.connections.values() if connection.welcomed or not welcomed]
        return self.random.choice(found) if found else None

    def _connect(self) -> None:
        if len(self.connections) >= 8:
            return
        self.hello(self.random.choice(BOTS), self.random.choice([0, 1, 2, 5, 5]))

    def hello(self, bot: str, credit: int, client: Connection | None = None) -> Connection:
        connection = Connection(self.new_id().encode(), bot, self.new_id())
        self.connections[connection.address] = connection
        hello = Hello(request=self.number(), protocol=1, bot=bot, max_in_flight=credit, token=connection.token)
        if client is not None:
            connection.token, connection.unsettled = client.token, client.unsettled
            connection.groups, acking = client.groups, list(client.acking.values())
            parked = connection.parked = client.parked.intersection(client.unsettled)
            holds = [*(set(client.unsettled) - parked), *(seq for delivered in acking for _, seq in delivered)]
            known = {"epoch": "epoch", "holds": holds, "parked": sorted(parked)}
            groups = connection.held_groups([*holds, *parked])
            hello = msgspec.structs.replace(hello, token=client.token, held_groups=groups, **known)
            connection.later = [partial(ack, self, connection, delivered) for delivered in acking]
        self.send(connection, hello)
        return connection

    def _break(self) -> None:
        """Break a connection: what is on its way there is lost, and the worker does not know."""
        connection = self.pick()
        if connection is not None:
            del self.connections[connection.address]
            self.away = [*self.away[-7:], connection]

    def _return(self) -> None:
        """Let a client come back that holds what it was delivered, and repeats what was not answered."""
        if self.away and len(self.connections) < 8:
            client = self.away.pop(self.random.randrange(len(self.away)))
            self.hello(client.bot, self.random.choice([0, 1, 2, 5, 5]), client)

    def _publish(self) -> None:
        connection = self.pick()
        if connection is None or self.core.full:
            return
        messages: list[Publication] = []
        alike = any_publication(self)
        like_the_first = self.random.choice([0.0, 0.9, 1.0])
        for _ in range(self.random.choice([1, 1, 2, 5, 9])):
            if self.random.random() < like_the_first:
                body = self.keyed.body() if alike.retain else any_body(self.random)
                publication = msgspec.structs.replace(alike, id=self.new_id(), body=body)
            elif (sent := self.promises.sent) and self.random.random() < 0.1:
                # The same message again, or, by another bot, another one, with the same contents or with others.
                publication = sent[self.random.choice(list(sent))]
                if len(messages) % 2:
                    publication = msgspec.structs.replace(alike, id=publication.id)
            else:
                publication = any_publication(self)
            messages.append(self.promises.note_sent(publication))
        number = self.number()
        self.pending_publishes[connection.address, number] = messages
        self.budgets.note_sent(connection.bot_id, messages)
        self.send(connection, Publish(request=number, messages=messages))

    def _read_frame(self) -> None:
        waiting = [connection for connection in self.connections.values() if connection.inbox]
        if waiting:
            connection = self.random.choice(waiting)
            self.take(connection, connection.inbox.pop(0))

    def take(self, connection: Connection, frame: bytes) -> None:
        match decode_worker_frame(frame):
            case Welcome(bot_id=bot_id):
                connection.welcomed, connection.bot_id = True, bot_id
                for repeat in connection.later:
                    repeat()
                connection.later = []
                self.keyed.welcomed(connection)
            case KeyedChanged(stores):
                self.keyed.heard(connection, stores)
            case Deliver(messages):
                connection.unsettled += [message.seq for message in messages]
                connection.groups |= {message.seq: message.group for message in messages}
            case Published() as published:
                self._published(connection, published)
            case Ok(request=number, value=value):
                connection.answers.pop(number, lambda _: None)(msgspec.json.decode(value))
            case ErrorFrame(request=number, code=code):
                if code == Code.UNKNOWN_SESSION:
                    self.connections.pop(connection.address, None)
                elif number is not None:
                    connection.answers.pop(number, lambda _: None)(None)

    def _published(self, connection: Connection, published: Published) -> None:
        messages = self.pending_publishes.pop((connection.address, published.request))
        for fault in self.budgets.refusals(messages, published):
            raise Violation(fault)
        for index, (sent, seq) in enumerate(zip(messages, published.seqs, strict=True)):
            scheduled = index in published.scheduled
            self.promises.note_acknowledged(connection.bot_id, sent, seq, scheduled=scheduled)

    def _take_batch(self) -> None:
        if self.batch is None and self.core.has_batch(self.moment()):
            self.batch = self.core.take_batch(self.moment())
            self._ask_for_what_leaves()

    def _ask_for_what_leaves(self) -> None:
        """Connect a bot, now and then, whose mailbox is losing messages: their turn comes before they are gone."""
        bots = self.core.directory.bots
        losing = [box.id for box in self.core.directory.mailboxes.values() if box.losses.losing and box.id in bots]
        if losing and len(self.connections) < 8 and self.random.random() < 0.5:
            self.hello(bots[self.random.choice(losing)].name, 5)

    def _commit(self) -> None:
        if self.batch is None:
            return
        batch, self.batch = self.batch, None
        applied = self.apply(batch)
        goes_back = any(isinstance(change, AddSubscription) and change.start_seq for change in batch.changes)
        if self.random.random() < (0.3 if goes_back else 0.05):
            self._restart()  # on disk, and nobody was told
            return
        self.do(self.core.applied(batch, applied, self.moment()))

    def apply(self, batch: Batch) -> Applied:
        applied = self.log.apply(batch.changes)
        self.promises.note_changes(batch.changes, applied.answers, self.moment(), self.core)
        self.keyed.note_changes(batch.changes, applied.answers)
        self.wills.note_changes(batch.changes, applied.answers)
        for fault in self.budgets.faults(batch.changes, applied.answers):
            raise Violation(fault)
        return applied

    def _refuse_batch(self) -> None:
        if self.batch is not None:
            batch, self.batch = self.batch, None
            self.do(self.core.failed(batch, Code.STORAGE_FULL, "the disk is full", self.moment()))

    def _look(self) -> None:
        """Let the disk read: what is committed until now is seen, and the answer arrives later."""
        unread = [index for index, (_, answer) in enumerate(self.questions) if answer is None]
        if unread:
            index = self.random.choice(unread)
            question = self.questions[index][0]
            self.questions[index] = (question, looked_up(self.log, question))

    def _answer(self) -> None:
        read = [index for index, (_, answer) in enumerate(self.questions) if answer is not None]
        if read:
            self.give(*self.questions.pop(self.random.choice(read)))

    def give(self, question: Question, answer: Any) -> None:
        self.do(given(self.core, question, answer, self.moment()))

    def _pass_time(self) -> None:
        for connection in list(self.connections.values()):
            if self.random.random() < 0.9:
                self.send(connection, Ping())
        if self.random.random() < 0.1:
            self.now += 10.0  # the worker itself stood still
        for _ in range(self.random.choice([1, 1, 3, 8])):
            self.now += self.random.choice([0.05, 0.5, 0.9])
            self.do(self.core.tick(self.moment()))

    def _leave(self) -> None:
        connection = self.pick(welcomed=False)
        if connection is None:
            return
        if connection.welcomed and self.random.random() < 0.5:
            self.goodbye(connection)
            while self.wills.is_one and connection.inbox:
                self.take(connection, connection.inbox.pop(0))
        self.connections.pop(connection.address, None)

    def goodbye(self, connection: Connection) -> None:
        number = self.number()
        self.wills.said_goodbye(connection, number)
        self.send(connection, Goodbye(request=number))

    def _change_credit(self) -> None:
        connection = self.pick()
        if connection is not None:
            credit = self.random.choice([0, 1, 3, 5])
            self.send(connection, Credit(max_in_flight=credit))

    def _retry(self) -> None:
        connection = self.pick()
        dead = list(self.log.dead_letters)
        if connection is None or not dead:
            return
        mailbox_id, seq = self.random.choice(dead)
        key = self.promises.key(mailbox_id)
        self.promises.note_retry(key, seq)
        number = self.number()

        def answered(value: Any) -> None:
            if value is not None and value["retried"]:
                self.promises.note_retried(key, seq)

        connection.answers[number] = answered
        self.send(connection, RetryDeadLetters(request=number, bot=key, seqs=[seq]))

    def _erase(self) -> None:
        """Let an operator erase messages, mostly recent ones, and some that are not due yet."""
        connection = self.pick()
        if connection is None or not self.log.messages:
            return
        erase = any_erasure(self.random, self.log)
        self.send(connection, msgspec.structs.replace(erase, request=self.number(), id=self.new_id()))

    def _remove(self) -> None:
        """Let an operator remove something; now and then the same again."""
        connection = self.pick()
        if connection is None or not self.log.bots:
            return
        if self.removals and self.random.random() < 0.3:
            frame = msgspec.structs.replace(self.random.choice(self.removals), request=self.number())
        else:
            frame = any_removal(self.random, self.promises, request=self.number(), id=self.new_id())
        self.remove(connection, frame)

    def remove(self, connection: Connection, frame: RemoveFrame) -> None:
        """Send a removal, which may be sent again."""
        if frame.id not in {each.id for each in self.removals}:
            self.removals = [*self.removals[-7:], frame]

        def answered(value: Any) -> None:
            if value is not None:
                self.promises.note_removal(frame.id, value)

        connection.answers[frame.request] = answered
        self.send(connection, frame)

    def _crash(self) -> None:
        if self.random.random() < 0.3:
            self._restart()

    def _restart(self) -> None:
        """Kill the worker: what was not committed is gone, and every connection with it."""
        self.batch = None
        self.questions = []
        welcomed = [connection for connection in self.connections.values() if connection.welcomed]
        self.away = [*self.away, *welcomed][-8:]
        self.connections = {}
        self.promises.note_restart()
        self.presences.check(self.core)
        self.presences.restart()
        self.wills.look()
        self.wills.restart()
        self.core = self._start()
        self.keyed.start(self)

    # ── Promises ─────────────────────────────────────────────────────────────────────────────────────────

    def _check_frame(self, connection: Connection, raw: bytes) -> None:
        frame = decode_worker_frame(raw)
        if isinstance(frame, Deliver):
            session = self.core.sessions.get(connection.address)
            if session is None:
                raise Violation("something was delivered to a session that is over")
            self.promises.check_credit(session, [message.seq for message in frame.messages])
            for message in frame.messages:
                self.promises.check_delivery(connection.bot, message, self.moment(), self.core)
        elif isinstance(frame, Gap):
            for mailbox in self.core.directory.mailboxes_of(self.core.directory.names[connection.bot].id):
                self.promises.gaps[self.promises.key(mailbox.id)].append(frame)


def play(seed: int, steps: int, *, settle_every: int = 500) -> Simulation:
    """Play a world for some steps, and let it settle now and then; raises Violation."""
    simulation = Simulation(seed)
    for step in range(1, steps + 1):
        simulation.step()
        if step % settle_every == 0:
            settle(simulation)
    settle(simulation)
    return simulation


@click.command()
@click.option("--steps", default=200_000, show_default=True, help="Events, over worlds of 2,000 each.")
@click.option("--seed", default=None, type=int, help="The first world's seed.  [default: random]")
def main(steps: int, seed: int | None) -> None:
    """Play many worlds from one seed on, until one breaks a promise."""
    first = random.SystemRandom().randrange(2**32) if seed is None else seed
    click.echo(f"worlds from seed {first} on")
    deliveries = 0
    for number in range(max(1, steps // 2000)):
        try:
            deliveries += play(first + number, 2000).deliveries
        except Exception:
            click.echo(f"broken in the world of seed {first + number}", err=True)
            raise
    click.echo(f"{steps} steps, {deliveries} deliveries, every promise kept")


if __name__ == "__main__":
    main()
