"""The end of all faults in a simulated world: everything that is owed arrives, and no promise is open."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from bus.wire.frames import Ack, Ping

from .connection import Connection
from .presences import TELLING_BEATS
from .promises import Violation
from .questions import looked_up
from .simulated_settings import BOTS, is_watched

if TYPE_CHECKING:
    from .simulation import Simulation

__all__ = ["settle"]

_EXPIRY_BEATS = 12
"""So long that all values have expired that were put before."""


def settle(world: Simulation) -> None:
    """Stop the faults, connect every bot, and let everything arrive: nothing that is owed may be missing."""
    _drain_disk(world)
    for connection in list(world.connections.values()):
        if connection.welcomed and (not world.wills.is_one or world.random.random() < 0.5):
            world.goodbye(connection)
        del world.connections[connection.address]
    if world.wills.is_one:
        world.wills.let_be_sent(partial(_beat, world), partial(_drain_disk, world))
    homes = [world.hello(name, 5) for name in BOTS]
    for _ in range(10_000):
        _let_arrive(world, homes)
        if _is_all_done(world):
            break
        _beat(world, homes)
    else:
        raise Violation("the mailboxes never become empty")
    if world.keyed.is_one:
        world.keyed.write_at_the_end(homes)
        for _ in range(_EXPIRY_BEATS):
            _let_arrive(world, homes)
            _beat(world, homes)
        while any(connection.inbox for connection in homes):
            _let_arrive(world, homes)
        world.keyed.check()
    for _ in range(TELLING_BEATS if is_watched(world.seed) else 0):
        _beat(world, homes)
        _let_arrive(world, homes)
    world.presences.check(world.core, all_told=is_watched(world.seed))
    world.now += 1.0  # whatever waits for the next flush
    _drain_disk(world)
    world.promises.check_nothing_lost()
    world.promises.check_groups_hold(world.core)


def _let_arrive(world: Simulation, homes: Sequence[Connection]) -> None:
    """Let everything be answered that was asked for, and be settled that was delivered."""
    _drain_disk(world)
    for connection in homes:
        while connection.inbox:
            world.take(connection, connection.inbox.pop(0))
        if connection.unsettled:
            seqs, connection.unsettled = connection.unsettled, []
            world.send(connection, Ack(seqs=seqs))
    _drain_disk(world)


def _beat(world: Simulation, homes: Sequence[Connection]) -> None:
    """Let half a second pass."""
    world.now += 0.5
    for connection in homes:
        world.send(connection, Ping())
    world.do(world.core.tick(world.moment()))


def _is_all_done(world: Simulation) -> bool:
    """Return True if nothing waits, except in groups without a member."""
    mailboxes = [box for box in world.core.directory.mailboxes.values() if box.sessions or box.group is None]
    return not world.log.scheduled and all(
        mailbox.intake.level and not mailbox.reading.loaded() for mailbox in mailboxes
    )


def _drain_disk(world: Simulation) -> None:
    """Let the disk answer everything, without faults."""
    while world.batch is not None or world.questions or world.keyed.is_busy or world.core.has_batch(world.moment()):
        world.keyed.advance()
        if world.batch is None:
            world.batch = world.core.take_batch(world.moment())
        batch, world.batch = world.batch, None
        if batch is not None:
            world.do(world.core.applied(batch, world.apply(batch), world.moment()))
        while world.questions:
            question, answer = world.questions.pop()
            world.give(question, looked_up(world.log, question) if answer is None else answer)
