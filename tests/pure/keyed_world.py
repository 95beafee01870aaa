"""Bots of a simulated world that share keyed values: what they ask for, and the part of the shell that answers.

The answers are the shell's own (`bus.broker.keyed`), on a store in memory. They are carried out a bit at a time, so
that everything else can happen in between, also the end of the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from bus.broker.keyed import KeyedAnswers
from bus.core.effects import Ask, Send
from bus.errors import RequestError
from bus.model.keyed import ChangePage, ValuePage
from bus.model.repository import Change
from bus.wire.calls import Call, decode_call
from bus.wire.codec import encode, ok_frame
from bus.wire.frames import ErrorFrame, Publication, Refusal, ToChannel, Workflow
from bus.wire.keyed_calls import DeleteValue, GetValue, KeyedCall, ListChanges, ListValues, PutValue
from bus.wire.sending_frames import CommittedValue

from .connection import Connection
from .keyed_promises import KEYS, RETAINED_MARK, KeyedPromises, View
from .simulated_settings import BOTS

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["KeyedWorld"]

_WRITES_AT_THE_END = 4
"""While everybody watches, and nobody asks but because he was told."""


class KeyedWorld:
    """See the module. In a world that is not one, nothing happens here."""

    def __init__(self, world: Simulation, *, is_one: bool) -> None:
        self._world = world
        self._chance = world.random
        self.is_one = is_one
        self.promises = KeyedPromises(world.log)
        world.log.keyed.clock = lambda: world.moment().wall
        self._asked: list[Ask] = []
        """Calls that are not begun: a coroutine that never is would warn."""
        self._running: list[tuple[Ask, Coroutine[None, None, bytes]]] = []
        self._open: dict[str, tuple[str, PutValue | DeleteValue]] = {}
        """Writes that were not answered, by their ids, and whose they are."""
        self._views = {bot: View(KEYS[number % len(KEYS)][0]) for number, bot in enumerate(BOTS)}
        self._at: dict[str, Connection] = {}
        """Where a bot watches."""
        self._numbers = 0

    def start(self, world: Simulation) -> None:
        """A worker begins; what the one before was doing is gone."""
        for _, task in self._running:
            task.close()
        self._asked, self._running = [], []
        world.log.keyed.restart()
        self._answers = KeyedAnswers(
            world.core, world.log.keyed, world.settings.limits, moment=world.moment, carry_out=world.do
        )

    # ── The shell ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, ask: Ask) -> None:
        """Note a call that is to be answered."""
        self._asked.append(ask)

    async def _answer(self, ask: Ask, query: Workflow) -> bytes:
        call = decode_call(query)
        assert isinstance(call, KeyedCall)
        try:
            return ok_frame(query.request, await self._answers.answer(ask, call))
        except (Refusal, RequestError) as error:
            return encode(ErrorFrame(code=error.code, message=str(error), request=query.request))

    def advance(self) -> None:
        """Let some of what is being answered go on."""
        if self.is_busy:  # otherwise a world that is none takes its course
            for _ in range(self._chance.choice([1, 3, 9])):
                self._advance_one()

    def _advance_one(self) -> None:
        if self._asked:
            ask = self._asked.pop(0)
            assert isinstance(ask.query, Workflow)
            task = self._answer(ask, ask.query)
        elif self._running:
            ask, task = self._running.pop(self._chance.randrange(len(self._running)))
        else:
            return
        try:
            task.send(None)
        except StopIteration as done:
            self._world.do([Send(ask.address, done.value)])
        else:
            self._running.append((ask, task))

    def read(self) -> None:
        """Let a bot read all that it was sent."""
        connection = self._world.pick(welcomed=False)
        while connection is not None and connection.inbox:
            self._world.take(connection, connection.inbox.pop(0))

    @property
    def is_busy(self) -> bool:
        return bool(self._asked or self._running)

    def passed(self) -> None:
        """Something has happened."""
        if self.is_one:
            self.promises.step += 1
            self.promises.look()

    def note_changes(self, changes: Sequence[Change], answers: Sequence[Any]) -> None:
        """The log carried out a transaction."""
        if self.is_one:
            self.promises.note_changes(changes, answers)

    # ── The bots ─────────────────────────────────────────────────────────────────────────────────────────

    def _raw_value(self) -> msgspec.Raw:
        self._numbers += 1
        return msgspec.Raw(b"%d" % self._numbers)

    def _call(self, connection: Connection, call: Call, answered: Callable[[Any], None]) -> None:
        number = self._world.number()

        def decoded(value: Any) -> None:  # None is a refusal as well, which no read gets
            answered(None if value is None else msgspec.json.decode(encode(value), type=call.answer))

        connection.answers[number] = decoded
        frame = Workflow(request=number, call=call.method, arguments=msgspec.Raw(encode(call)))
        self._world.send(connection, frame)

    def act(self) -> None:
        """Let a bot read or write."""
        connection = self._world.pick()
        if connection is not None:
            self._act(connection)

    def _act(self, connection: Connection) -> None:
        store, key = self._chance.choice(KEYS)
        theirs = [call for bot, call in self._open.values() if bot == connection.bot]
        what = self._chance.random()
        if theirs and what < 0.2:
            self._write(connection, self._chance.choice(theirs))
        elif what < 0.6:
            ttl = self._chance.choice([None, None, None, 0.7, 4.0])
            value, expected, id = self._raw_value(), self._expected(store, key), self._world.new_id()
            put = PutValue(store=store, key=key, value=value, id=id, expected=expected, ttl=ttl)
            self._write(connection, put)
        elif what < 0.75:
            expected, id = self._expected(store, key), self._world.new_id()
            self._write(connection, DeleteValue(store=store, key=key, id=id, expected=expected))
        else:
            self._read(connection, store, key)

    def _expected(self, store: str, key: str) -> int | None:
        there = self.promises.live(store).get(key, 0)
        return self._chance.choice([None, there, there, 0, max(0, there - 1)])

    def _write(self, connection: Connection, call: PutValue | DeleteValue) -> None:
        self._open[call.id] = connection.bot, call

        def answered(written: Any) -> None:
            self._open.pop(call.id, None)
            if written is not None:
                self.promises.note_acknowledged(call.id, written.revision)

        self._call(connection, call, answered)

    def _read(self, connection: Connection, store: str, key: str) -> None:
        asked = self.promises.ask()
        if self._chance.random() < 0.7:
            self._call(
                connection,
                GetValue(store=store, key=key),
                lambda found: self.promises.check_read((store, key), asked, found),
            )
            return
        prefix = self._chance.choice(["", "a", "a/"])

        def listed(page: ValuePage | None) -> None:
            if page is None:
                return
            found = {value.key: value for value in page.values}
            if list(found) != sorted(found):
                raise AssertionError(f"values came in the order {list(found)}")
            for each in [each for at, each in KEYS if at == store and each.startswith(prefix)]:
                if each in found or not page.more:
                    self.promises.check_read((store, each), asked, found.get(each))

        self._call(connection, ListValues(store=store, prefix=prefix, limit=self._chance.choice([1, 2, 9])), listed)

    def values_of_commit(self) -> list[CommittedValue]:
        """Return what a commit writes, too."""
        if not self.is_one or self._chance.random() < 0.4:
            return []
        values: list[CommittedValue] = []
        for store, key in self._chance.sample(KEYS, self._chance.choice([1, 2])):
            expected = self._expected(store, key)
            if self._chance.random() < 0.2:
                values.append(CommittedValue(store=store, key=key, kind="deleted", expected=expected))
            else:
                values.append(CommittedValue(store=store, key=key, value=self._raw_value(), expected=expected))
        return values

    def publication(self, publication: Publication) -> Publication:
        """Return a publication, now and then as one that is retained."""
        if not self.is_one or not isinstance(publication.recipient, ToChannel) or self._chance.random() < 0.6:
            return publication
        return msgspec.structs.replace(publication, retain=True, delay=None, ttl=None, body=self.body())

    def body(self) -> msgspec.Raw:
        """Return the body of a message that is retained."""
        if self._chance.random() < 0.2:
            return msgspec.Raw(b"null")
        self._numbers += 1
        return msgspec.Raw(b'%b%d"' % (RETAINED_MARK, self._numbers))

    # ── Who watches ──────────────────────────────────────────────────────────────────────────────────────

    def welcomed(self, connection: Connection) -> None:
        """A bot is welcome: it goes on to watch there."""
        if self.is_one:
            self._at[connection.bot] = connection
            self._look(connection.bot)

    def heard(self, connection: Connection, stores: list[str]) -> None:
        """A bot was told that stores were changed."""
        view = self._views[connection.bot]
        if self._at.get(connection.bot) is connection and view.store in stores:
            view.woken = True
            if view.is_waiting:
                self._look(connection.bot)

    def _look(self, bot: str) -> None:
        view = self._views[bot]
        view.round, view.woken, view.is_waiting = view.round + 1, False, False
        mine = view.round
        if view.listing:
            call: Call = ListValues(store=view.store, after=view.key, limit=2)
        else:
            call = ListChanges(store=view.store, after=view.after, limit=3, wake=True)

        def answered(page: Any) -> None:
            if page is not None and view.round == mine:
                self._seen(bot, view, page)

        self._call(self._at[bot], call, answered)

    def _seen(self, bot: str, view: View, page: ValuePage | ChangePage) -> None:
        if isinstance(page, ValuePage):
            view.seen |= {value.key: value.revision for value in page.values}
            if view.key is None:
                view.after = page.revision
            view.listing = page.more
            if page.values:
                view.key = page.values[-1].key
            self._look(bot)
            return
        for change in page.changes:
            self.promises.check_change(view, change)
            view.after = change.revision
            if change.state.has_value:
                view.seen[change.key] = change.revision
            else:
                view.seen.pop(change.key, None)
        view.after = page.revision
        if page.more or view.woken:
            self._look(bot)
        else:
            view.is_waiting = True

    # ── The end of all faults ────────────────────────────────────────────────────────────────────────────

    def write_at_the_end(self, homes: list[Connection]) -> None:
        """Let bots write while all watch."""
        if self.is_one:
            for _ in range(_WRITES_AT_THE_END):
                self._act(self._chance.choice(homes))

    def check(self) -> None:
        """Everything has arrived."""
        if self.is_one:
            for view in self._views.values():
                self.promises.check_view(view)
