"""Last wills in a simulated world: bots leave them, take them back, vanish and return.

Owns a model of its own: which will of each bot may be sent, which must be, and for how long a bot has been away.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from bus.model.repository import Change, Committed, CommitWork, Erase, Remove, RemoveBot
from bus.model.wills import WILLS
from bus.wire.frames import EraseFrame, Publication, RemoveFrame, ToChannel, WillFrame
from bus.wire.removing_frames import BotOf, ValueToErase

from .connection import Connection
from .promises import Violation

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["WillsWorld"]

_DELAYS = (0.0, 1.0, 6.0)

_AWAY_SECONDS = 16.0
"""After so long every will is sent: longer than a session may be silent, any delay, and a refusal together."""


class _Left(NamedTuple):
    """A will as its bot left it."""

    id: str
    bot_id: str
    delay: float


class WillsWorld:
    """See the module."""

    def __init__(self, world: Simulation, *, is_one: bool) -> None:
        self.is_one = is_one
        self._world = world
        self._sent: set[str] = set()
        self._left: dict[str, _Left] = {}
        """Every will that was ever left, by the id of its message."""
        self._stands: dict[str, str | None] = {}
        """By its id, the will of each bot that was acknowledged last, and that nothing since may have ended."""
        self._wishes: Counter[str] = Counter()
        self._over: set[str] = set()
        """Wills that were acknowledged as ended, or erased: they are never sent from then on."""
        self._written: set[str] = set()
        """Wills whose sending is on disk."""
        self._revisions: dict[int, str] = {}
        """Wills that were stored, by the revisions of their values."""
        self._away_since: dict[str, float] = {}
        self._longest: dict[str, float] = {}
        """For how long its bot was away at most since a will was left."""
        self._looked = 0
        self._looked_at = math.inf

    @property
    def sent(self) -> int:
        return len(self._sent)

    def act(self) -> None:
        """Let a bot leave a will, or take it back."""
        connection = self._world.pick()
        if connection is None:
            return
        world, number = self._world, self._world.number()
        will = None
        message = None
        if world.random.random() < 0.8:
            will = _Left(world.new_id(), connection.bot_id, world.random.choice(_DELAYS))
            body = b'"the will of %s"' % connection.bot.encode()
            message = Publication(id=will.id, recipient=ToChannel("idle"), body=msgspec.Raw(body))
            self._left[will.id] = will
            self._longest[will.id] = 0.0
        earlier = [each.id for each in self._left.values() if each.bot_id == connection.bot_id and each != will]
        wish = self._wish(connection)

        def answered(value: Any) -> None:
            if value is not None:
                self._end(earlier)
                if will is not None and self._wishes[will.bot_id] == wish:
                    self._stands[will.bot_id] = will.id

        connection.answers[number] = answered
        delay = 0.0 if will is None else will.delay
        world.send(connection, WillFrame(request=number, message=message, delay=delay))

    def erase(self) -> None:
        """Let an operator erase a will, if there is one, of a bot that is away: it is about to be sent."""
        connection, stored = self._world.pick(), self._world.log.keyed.wills()
        there = {session.bot_id for session in self._world.core.sessions}
        stored = [each for each in stored if each.will.bot_id not in there] or stored
        if connection is None or not stored:
            return
        will, revision = self._world.random.choice(stored)
        value = ValueToErase(store=WILLS, key=will.bot_id, revision=revision)
        frame = EraseFrame(request=self._world.number(), id=self._world.new_id(), values=[value])
        self._world.send(connection, frame)

    def remove(self) -> None:
        """Let an operator remove a bot that is away, and has left a will, if there is one."""
        world, connection = self._world, self._world.pick()
        there = {session.bot_id for session in world.core.sessions}
        away = [stored.will.bot_id for stored in world.log.keyed.wills() if stored.will.bot_id not in there]
        if connection is None or not away:
            return
        what = BotOf(world.log.bots[world.random.choice(away)].name)
        force = world.random.random() < 0.8
        world.remove(connection, RemoveFrame(request=world.number(), id=world.new_id(), what=what, force=force))

    def note_changes(self, changes: Sequence[Change], answers: Sequence[Any]) -> None:
        """Note what became of wills on disk: of what ends one and what sends it, the first is carried out alone."""
        for change, answer in zip(changes, answers, strict=True):
            match change:
                case CommitWork() if isinstance(answer, Committed):
                    self._written.update(id for lot in change.lots for id in lot.ids)
                    for write, revision in zip(change.values, answer.revisions, strict=bool(answer.revisions)):
                        if write.store == WILLS and write.value is not None:
                            self._revisions[revision] = msgspec.json.decode(write.value)["message"]["id"]
                case Erase():
                    wills = [value.revision for value in answer.values if value.store == WILLS]
                    self._over.update(self._revisions[revision] for revision in wills)
                case Remove(what=RemoveBot(bot_id=bot_id)) if answer.done:
                    theirs = {each.id for each in self._left.values() if each.bot_id == bot_id}
                    self._over.update(theirs - self._written)
                    if any(stored.will.bot_id == bot_id for stored in self._world.log.keyed.wills()):
                        raise Violation(f"bot {bot_id} was removed, and its will is left")
                case _:
                    pass

    def said_goodbye(self, connection: Connection, request: int) -> None:
        """A bot is about to say goodbye: if it is answered, and it has no other session, its will is over."""
        sessions = self._world.core.sessions.of_bot(connection.bot_id)
        theirs = [each.id for each in self._left.values() if each.bot_id == connection.bot_id]
        if len(sessions) > 1:
            return
        self._wish(connection)

        def answered(value: Any) -> None:
            if value is not None:
                self._end(theirs)

        connection.answers[request] = answered

    def _end(self, ids: list[str]) -> None:
        self._over.update(id for id in ids if not self._is_sent(id))

    def _wish(self, connection: Connection) -> int:
        """Count a wish of a bot: until it is answered, nobody knows which will stands."""
        self._stands[connection.bot_id] = None
        self._wishes[connection.bot_id] += 1
        return self._wishes[connection.bot_id]

    def _is_sent(self, id: str) -> bool:
        return id in self._sent or (id, self._left[id].bot_id) in self._world.log.by_id

    def look(self) -> None:
        """Look at what came of an event."""
        world = self._world
        there = {session.bot_id for session in world.core.sessions}
        for will in self._left.values():
            if will.bot_id in there:
                self._away_since.pop(will.bot_id, None)
            else:
                since = self._away_since.setdefault(will.bot_id, self._looked_at)
                self._longest[will.id] = max(self._longest[will.id], world.now - since)
        for seq in range(self._looked + 1, world.log.last_seq + 1):
            will_or_none = self._left.get(world.promises.written[seq].id)
            if will_or_none is not None and world.promises.written[seq].sender_bot_id == will_or_none.bot_id:
                self._check(will_or_none)
        self._looked, self._looked_at = world.log.last_seq, world.now

    def _check(self, will: _Left) -> None:
        if will.id in self._sent:
            raise Violation(f"{will} was sent twice")
        self._sent.add(will.id)
        if will.id in self._over:
            raise Violation(f"{will} was sent after it had ended")
        if self._longest[will.id] < will.delay - 0.001:
            raise Violation(f"{will} was sent, and its bot was away for {self._longest[will.id]} s")

    def restart(self) -> None:
        """The worker was killed: nobody is connected."""
        self._away_since = {}

    def let_be_sent(self, beat: Callable[[Sequence[Connection]], None], drain_disk: Callable[[], None]) -> None:
        """Let nobody be connected for so long that every will that stands is sent."""
        for _ in range(round(2 * _AWAY_SECONDS)):
            beat([])
            drain_disk()
            self.look()
        for bot_id, id in self._stands.items():
            due = id is not None and id not in self._over and bot_id in self._world.log.bots
            if id is not None and due and not self._is_sent(id):
                raise Violation(f"{self._left[id]} was acknowledged, and never sent")
        if self._world.log.keyed.wills() or self._world.core.wills.bots:
            raise Violation(f"{self._world.log.keyed.wills()} are left, and nobody is there")
