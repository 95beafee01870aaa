"""The moves of unsettled messages: each one of `unsettled.MOVES` is made here, by the method that makes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bus.mailbox.outstanding import Outstanding
from bus.mailbox.returned import Returned
from bus.mailbox.sessions import Session
from bus.mailbox.unsettled import MOVES, MessagePlace, Unsettled
from bus.model.repository import UnsettledState
from bus.settings import Delivery

from .test_mailbox import letter, session

DELIVERY = Delivery(max_deliver=2, ack_wait_seconds=10.0, session_timeout_seconds=20.0)
WALL = "2026-01-01T00:00:00.000000Z"
LATER = "2026-01-01T00:00:05.000000Z"


class World:
    """One message, with the session that has or had it."""

    def __init__(self, *stored: UnsettledState) -> None:
        self.outstanding = Outstanding("me", stored, DELIVERY, group=None)
        self.session = session()

    @property
    def place(self) -> MessagePlace | None:
        """Where the message is; None if it is not unsettled."""
        item = self.outstanding.get(1)
        return None if item is None else item.place

    def deliver(self, to: Session | None = None) -> None:
        """Deliver it, as a mailbox does."""
        if self.outstanding.returned.first == (1, 0):
            self.outstanding.take_returned()
        to = to or self.session
        if 1 in self.outstanding:
            self.outstanding.load(1, letter(1).envelope, letter(1).wires[0])
            self.outstanding.redeliver(1, to, 10.0)
        else:
            self.outstanding.deliver(letter(1), to, 10.0)
        self.outstanding.expect_settled([1], 10.0)

    def keep(self) -> None:
        """Let its client return in another session, and hold it."""
        assert self.outstanding.keep(session(), [1], 0.0, earlier=self.session) == [1]

    def give_back(self, *, gone: str | None = None) -> None:
        """Let it fail once."""
        self.outstanding.give_back(1, 0.0, failure="why", gone=gone)


def new() -> World:
    return World()


def in_flight() -> World:
    world = World()
    world.deliver()
    return world


def failed_once() -> World:
    world = World(UnsettledState(1, 1, 1))
    world.deliver()
    return world


def returned() -> World:
    return World(UnsettledState(1, 1, 0))


def delayed() -> World:
    world = in_flight()
    world.give_back()
    return world


def resting() -> World:
    return World(UnsettledState(1, 1, 0, LATER, 5.0))


def suspended() -> World:
    world = failed_once()
    world.give_back(gone="client")
    return world


def suspended_by_a_nak() -> World:
    world = in_flight()
    world.give_back(gone="client")
    world.outstanding.release_due(0.0, WALL)
    world.deliver()
    world.give_back()
    item = world.outstanding.get(1)
    assert item is not None
    item.rest(WALL, 5.0)
    return world


def taken_new() -> World:
    world = World()
    world.outstanding.take_new(letter(1))
    return world


def withheld() -> World:
    world = taken_new()
    world.outstanding.withhold(1)
    return world


def committing() -> World:
    world = in_flight()
    world.outstanding.prepare_to_settle(7, [1], 0.0)
    return world


def settling() -> World:
    world = committing()
    world.outstanding.leave_to_commit(1)
    return world


def taken() -> World:
    world = returned()
    world.outstanding.take_returned()
    return world


def come_back(world: World) -> None:
    assert world.outstanding.come_back("client")


def stay_away(world: World) -> None:
    assert [(seq, failure) for seq, failure, _ in world.outstanding.given_up(20.0)] == [(1, "why")]


def discard(world: World) -> None:
    world.outstanding.discard([1])


ROWS: list[tuple[Callable[[], World], Callable[[World], object], MessagePlace | None]] = [
    (new, World.deliver, MessagePlace.IN_FLIGHT),
    (taken_new, lambda world: world.outstanding.withhold(1), MessagePlace.WITHHELD),
    (taken_new, lambda world: world.outstanding.put_off(1, 20.0), MessagePlace.DELAYED),
    (taken, World.deliver, MessagePlace.IN_FLIGHT),
    (taken, lambda world: world.outstanding.withhold(1), MessagePlace.WITHHELD),
    (taken, discard, None),
    (new, lambda world: world.outstanding.revive(1), MessagePlace.RETURNED),
    (new, lambda world: world.outstanding.remember(1), MessagePlace.RETURNED),
    (in_flight, lambda world: world.outstanding.settle(world.session, [1]), None),
    (in_flight, discard, None),
    (in_flight, World.keep, MessagePlace.IN_FLIGHT),
    (in_flight, lambda world: world.deliver(session()), MessagePlace.IN_FLIGHT),
    (in_flight, World.give_back, MessagePlace.DELAYED),
    (failed_once, World.give_back, None),
    (failed_once, lambda world: world.give_back(gone="client"), MessagePlace.SUSPENDED),
    (committing, lambda world: world.outstanding.leave_to_commit(1), MessagePlace.SETTLING),
    (returned, lambda world: world.outstanding.take_returned(), None),
    (returned, World.keep, MessagePlace.IN_FLIGHT),
    (returned, discard, None),
    (delayed, lambda world: world.outstanding.release_due(0.0, WALL), MessagePlace.RETURNED),
    (delayed, World.keep, MessagePlace.IN_FLIGHT),
    (delayed, discard, None),
    (resting, lambda world: world.outstanding.release_due(0.0, WALL), MessagePlace.DELAYED),
    (resting, discard, None),
    (suspended, come_back, MessagePlace.RETURNED),
    (suspended_by_a_nak, come_back, MessagePlace.RESTING),
    (suspended, World.keep, MessagePlace.IN_FLIGHT),
    (suspended, stay_away, None),
    (suspended, discard, None),
    (withheld, lambda world: world.outstanding.release_withheld(), MessagePlace.RETURNED),
    (withheld, discard, None),
    (settling, lambda world: world.outstanding.settle_committed(7), None),
    (settling, lambda world: world.outstanding.keep_unsettled(7), MessagePlace.RETURNED),
    (settling, World.keep, MessagePlace.IN_FLIGHT),
]


@pytest.mark.parametrize(("begin", "move", "place"), ROWS)
def test_a_move_leads_where_the_table_says(
    begin: Callable[[], World], move: Callable[[World], object], place: MessagePlace | None
) -> None:
    world = begin()
    move(world)
    assert world.place is place


def test_every_move_of_the_table_is_made_and_no_other() -> None:
    made: set[tuple[MessagePlace | None, MessagePlace | None]] = set()
    for begin, move, _ in ROWS:
        world = begin()
        before = world.place
        move(world)
        made.add((before, world.place))
    made.discard((None, None))  # taken out of its place, and discarded
    assert made == {(before, after) for before, there in MOVES.items() for after in there}


@pytest.mark.parametrize("place", MessagePlace)
def test_any_other_move_is_a_bug_that_shows(place: MessagePlace) -> None:
    for other in {None, *MessagePlace} - MOVES[place]:
        with pytest.raises(AssertionError, match="no message moves from"):
            Outstanding._move(Unsettled(0, 0, None, place=place), other)


def test_who_is_read_again_is_found_without_looking_at_all_that_came_back() -> None:
    returned, looked = Returned((seq, 0) for seq in range(1, 10_001)), list[int]()

    def is_missing(seq: int) -> bool:
        looked.append(seq)
        return seq > 2

    assert len(returned.some(3, is_missing)) == 3
    assert len(looked) <= 5
    assert returned.some(2, lambda seq: seq == 9_000) == [9_000]
    world = World(*(UnsettledState(seq, attempt=1, failures=0) for seq in range(1, 5)))
    assert sorted(world.outstanding.missing(10)) == [1, 2, 3, 4]
    assert len(world.outstanding.missing(3)) == 3
