"""Direct messages with priorities, in one mailbox: what the simulation plays at random, shown one at a time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from bus.mailbox.mailbox import Mailbox
from bus.mailbox.parcel import Envelope, Parcel
from bus.mailbox.sessions import Session
from bus.mailbox.sources import Interest
from bus.model.priorities import PRIORITIES, name_of, priority_of_source, source_of
from bus.model.repository import MailboxState, PageRequest, UnsettledState
from bus.settings import Delivery, Limits

DELIVERY = Delivery(ack_wait_seconds=10, max_deliver=2, backoff_seconds=(1, 5))
LIMITS = Limits(ready_messages_max=32)
HIGH, LOW = PRIORITIES["high"], PRIORITIES["low"]


def letters(*seqs: int, priority: int = 0, channel: str | None = None) -> Parcel:
    wires = [b'{"seq":%d' % seq for seq in seqs]
    return Parcel(Envelope("other", channel, None, priority), seqs, wires, sum(map(len, wires)))


class World:
    """A mailbox, its store, and one session."""

    def __init__(self, credit: int = 100, **state: Any) -> None:
        self.stored: dict[int, Parcel] = {}
        self.mailbox = Mailbox(MailboxState("me", **({"position": 0} | state)), DELIVERY, LIMITS)
        self.session = Session(b"address", "id", 0.0, credit=credit, in_flight_bytes_max=1_000_000)
        self.read = 0
        """How many messages were read."""

    def store(self, *parcels: Parcel) -> None:
        """Put messages into the store alone."""
        for parcel in parcels:
            self.stored.update({seq: letters(seq, priority=parcel.envelope.priority) for seq in parcel.seqs})

    def arrive(self, *parcels: Parcel) -> None:
        self.store(*parcels)
        for parcel in parcels:
            self.mailbox.arrive(parcel)

    def connect(self) -> None:
        self.mailbox.attach(self.session)

    def handed(self, now: float = 0.0) -> list[int]:
        """Hand out and read until nothing is left to be done; return the seqs in their order."""
        seqs: list[int] = []
        while True:
            for each in self.mailbox.hand_out(now):
                wires = (wire + group.ending for group in each.deliveries for wire in group.wires)
                seqs += [json.loads(wire)["seq"] for wire in wires]
            request = self.mailbox.next_read(max(self.stored, default=0))
            if request is None:
                return seqs
            found: list[Parcel] = []
            for source, after, _ in request.sources:
                priority = priority_of_source(source)
                found += [
                    parcel
                    for seq, parcel in sorted(self.stored.items())
                    if seq > after and priority in (None, parcel.envelope.priority)
                ]
            page = found[: request.messages_max]
            self.read += len(page)
            recalled = [self.stored[seq] for seq in request.seqs]
            self.mailbox.page_read(recalled, page, complete=page == found, damaged=())

    def ack(self, *seqs: int) -> None:
        self.mailbox.settle(self.session, seqs)

    def restarted(self, credit: int = 100) -> World:
        """Return the world after a restart of the worker, and with another session."""
        state = self.mailbox.save().state
        world = World(
            credit, **{name: getattr(state, name) for name in ("position", "unsettled", "floors", "ahead")}
        )
        world.stored = self.stored
        world.mailbox.begin(max(self.stored))
        for priority in (HIGH, LOW):
            of_it = [seq for seq, parcel in self.stored.items() if parcel.envelope.priority == priority]
            if of_it:
                world.mailbox.restore_lane(priority, max(of_it))
        return world


def page_of(mailbox: Mailbox, priority: int) -> PageRequest:
    """Read until a page of a lane is to be read, and return that."""
    while True:
        request = mailbox.next_read(10_000)
        assert request is not None
        if priority_of_source(request.sources[0][0]) == priority:
            return request
        mailbox.page_read((), (), complete=True, damaged=())


def connected(credit: int = 100) -> World:
    world = World(credit)
    world.connect()
    assert world.handed() == []
    return world


def test_what_is_not_prioritized_opens_no_lane() -> None:
    world = connected()
    world.arrive(letters(1, 2))
    assert world.handed() == [1, 2]
    assert not world.mailbox.sources.lanes
    assert world.mailbox.state() == MailboxState("me", 2, (UnsettledState(1, 1, 0), UnsettledState(2, 1, 0)))


def test_the_highest_is_first_and_each_is_in_its_order() -> None:
    world = World()
    world.arrive(letters(1, 2, priority=LOW), letters(3, 4), letters(5, priority=HIGH), letters(6, priority=LOW))
    world.arrive(letters(7), letters(8, 9, priority=HIGH))
    world.connect()
    assert world.handed() == [5, 8, 9, 3, 4, 7, 1, 2, 6]


@pytest.mark.parametrize("connects", ["before", "after"])
def test_what_is_in_flight_is_not_called_back(connects: str) -> None:
    world = World(credit=2)
    if connects == "before":
        world.connect()
    world.arrive(letters(1, 2, 3, priority=LOW), letters(4))
    if connects == "after":
        world.connect()
    first = world.handed()
    world.arrive(letters(5, priority=HIGH))
    assert world.handed() == []
    world.ack(first[0])
    assert world.handed() == [5]


def test_channels_and_other_direct_messages_stay_in_one_order() -> None:
    world = World()
    world.mailbox.subscribe("news", Interest(0, echo=False), 0)
    world.connect()
    world.handed()
    world.arrive(letters(1, priority=LOW), letters(2, channel="news"), letters(3), letters(4, channel="news"))
    assert world.handed() == [2, 3, 4, 1]


def test_an_urgent_one_behind_very_many_is_found_by_one_page() -> None:
    world = World(credit=1)
    world.arrive(letters(*range(1, 10_000), priority=LOW), letters(*range(10_000, 20_000)))
    world.arrive(letters(20_000, priority=HIGH))
    world.connect()
    assert world.handed() == [20_000]
    assert world.read == 1


def test_memory_is_bounded_whatever_waits() -> None:
    world = connected(credit=1)
    for start in range(1, 1_000, 3):
        world.arrive(letters(start, priority=HIGH), letters(start + 1), letters(start + 2, priority=LOW))
    lanes = world.mailbox.sources.lanes
    assert len(world.mailbox.intake) + sum(len(lane.intake) for lane in lanes) <= 1.5 * LIMITS.ready_messages_max


@pytest.mark.parametrize("priority", [HIGH, LOW])
def test_a_page_of_a_lane_is_as_large_as_its_share(priority: int) -> None:
    limits = msgspec.structs.replace(LIMITS, ready_bytes_max=4)
    mailbox = Mailbox(MailboxState("me", 0), DELIVERY, limits)
    mailbox.arrive(letters(*range(1, 1_000), priority=priority))
    mailbox.attach(Session(b"address", "id", 0.0, credit=1, in_flight_bytes_max=1_000_000))
    request = page_of(mailbox, priority)
    assert (request.messages_max, request.bytes_max) == (LIMITS.ready_messages_max // 4 // 2, 1)


def test_an_urgent_one_waits_for_one_page_at_most_of_what_is_low() -> None:
    world = World(credit=1)
    world.arrive(letters(*range(1, 10_000), priority=LOW))
    world.connect()
    page_of(world.mailbox, LOW)
    world.arrive(letters(10_000, priority=HIGH))
    [handed] = world.mailbox.hand_out(0.0)
    assert [json.loads(wire + group.ending)["seq"] for group in handed.deliveries for wire in group.wires] == [
        10_000
    ]


def test_what_is_returned_comes_before_what_is_new_of_its_priority_alone() -> None:
    world = connected(credit=3)
    world.arrive(letters(1, priority=LOW), letters(2))
    assert world.handed() == [2, 1]
    world.mailbox.fail(1, 0.0, delay=0.0)
    world.mailbox.fail(2, 0.0, delay=0.0)
    world.arrive(letters(3, priority=LOW), letters(4), letters(5, priority=HIGH))
    assert world.handed() == [5, 2, 4]
    world.ack(5, 2, 4)
    assert world.handed() == [1, 3]


def test_what_rests_after_a_nak_holds_nothing_up() -> None:
    world = connected()
    world.arrive(letters(1, priority=HIGH))
    assert world.handed() == [1]
    world.mailbox.fail(1, 0.0, delay=5.0)
    world.arrive(letters(2), letters(3, priority=LOW))
    assert world.handed() == [2, 3]
    assert world.handed(6.0) == [1]


def test_several_sessions_share_it_in_the_same_order() -> None:
    world = World(credit=1)
    other = Session(b"other", "other", 0.0, credit=1, in_flight_bytes_max=1_000_000)
    world.arrive(letters(1, 2, priority=LOW), letters(3), letters(4, priority=HIGH))
    world.connect()
    world.mailbox.attach(other)
    assert sorted(world.handed()) == [3, 4]


@pytest.mark.parametrize("settled", [True, False])
def test_a_restart_goes_on_where_each_was(settled: bool) -> None:
    world = connected(credit=3)
    world.arrive(letters(1, 2, 3, priority=LOW), letters(4, 5), letters(6, 7, priority=HIGH))
    assert world.handed() == [6, 7, 4]
    world.ack(6)
    if settled:
        world.ack(7, 4)
    after = world.restarted()
    after.connect()
    assert after.handed() == [*([] if settled else [7, 4]), 5, 1, 2, 3]


def test_a_restart_reads_nothing_of_what_was_delivered() -> None:
    world = connected(credit=1_000)
    world.arrive(letters(*range(1, 1_000), priority=HIGH), letters(1_000))
    assert world.handed() == list(range(1, 1_001))
    world.ack(*range(1, 1_001))
    after = world.restarted()
    assert not after.mailbox.sources.lanes
    assert after.mailbox.backlog.known
    after.connect()
    assert after.handed() == []
    assert after.read == 0


def test_however_many_overtake_the_state_on_disk_stays_small() -> None:
    world = connected(credit=1)
    world.arrive(letters(1, 2, 3))
    assert world.handed() == [1]
    world.mailbox.fail(1, 0.0, delay=1_000.0)
    for seq in range(4, 1_000):
        world.arrive(letters(seq, priority=HIGH))
        delivered = world.handed()
        world.ack(*delivered)
    state = world.mailbox.state()
    assert (state.position, state.ahead, len(state.unsettled)) == (1, (), 1)
    assert state.floors == {"^high": 999}


def test_a_position_that_goes_back_repeats_no_lane() -> None:
    world = connected()
    world.arrive(letters(1, priority=HIGH), letters(2), letters(3, priority=LOW))
    assert world.handed() == [1, 2, 3]
    world.ack(1, 2, 3)
    world.mailbox.subscribe("news", Interest(0, echo=False), 3)
    world.stored.clear()
    world.store(letters(1, priority=HIGH), letters(2), letters(3, priority=LOW))
    after = world.restarted()
    after.connect()
    assert after.handed() == []


def test_a_purge_passes_over_every_priority() -> None:
    world = World()
    world.arrive(letters(1, priority=HIGH), letters(2), letters(3, priority=LOW))
    assert {source for source, _, _ in world.mailbox.purging.look(3).unread.sources} == {"^", "^high", "^low"}
    world.mailbox.purging.prepare(3)
    state = world.mailbox.state()
    world.mailbox.purging.purge(told=True)
    assert state.floors == {"": 3, "^high": 3, "^low": 3}
    world.connect()
    assert world.handed() == []
    world.arrive(letters(4, priority=LOW), letters(5))
    assert world.handed() == [5, 4]


def test_a_lane_of_which_all_left_the_log_holds_nothing_up() -> None:
    world = connected(credit=1)
    world.arrive(letters(1), letters(2, priority=HIGH), letters(3))
    assert world.handed() == [2]
    world.arrive(letters(4, priority=HIGH))
    world.mailbox.leaving.prepare({4: "^high"})
    world.mailbox.leaving.lose({4: "other"})
    world.ack(2)
    assert world.handed() == [1]


def test_a_reply_that_came_early_is_not_repeated_when_its_turn_comes() -> None:
    world = connected(credit=1)
    world.arrive(letters(1, priority=LOW), letters(2, priority=LOW))
    assert world.handed() == [1]
    world.mailbox.backlog.came("other", 1)
    world.store(letters(3, priority=LOW))
    world.mailbox.express(letters(3, priority=LOW), world.session, 0.0)
    world.ack(3)
    after = world.restarted()
    after.connect()
    assert after.handed() == [1, 2]
    for each in (world, after):
        each.arrive(letters(4, priority=LOW))
    world.ack(1)
    assert world.handed() == [2]
    world.ack(2)
    assert world.handed() == [4]


def test_a_reply_that_came_early_without_a_lane_is_not_repeated_after_a_restart() -> None:
    world = connected(credit=1)
    world.arrive(letters(1, 2))
    assert world.handed() == [1]
    world.store(letters(3, priority=LOW))
    world.mailbox.express(letters(3, priority=LOW), world.session, 0.0)
    after = world.restarted(credit=2)  # where nobody knows any more that no lane was there
    after.connect()
    assert after.handed() == [1, 2]
    after.ack(1)
    assert after.handed() == [3]
    after.ack(3)
    after.arrive(letters(4, priority=LOW))
    assert after.handed() == [4]


def test_what_waits_is_counted_with_every_priority() -> None:
    world = World()
    world.arrive(letters(1, priority=LOW), letters(2, 3))
    assert world.mailbox.is_count_needed(3, 3)
    request, _ = world.mailbox.count(3)
    assert request.sources == (("^", 0, False), ("^low", 0, False))


def test_what_came_early_is_not_counted_though_the_others_are_further() -> None:
    world = World(position=10, floors={"^low": 1}, ahead=(3,))
    world.mailbox.restore_lane(LOW, 5)
    world.mailbox.save()  # forgets what lies below the position
    assert world.mailbox.count(10)[0].seqs == (3,)


def test_names_and_numbers_agree() -> None:
    assert {name: name_of(number) for name, number in PRIORITIES.items()} == {name: name for name in PRIORITIES}
    assert [source_of("news", 0), source_of(None, 0)] == ["news", None]
    assert [priority_of_source(source_of(None, number) or "") for number in (HIGH, LOW)] == [HIGH, LOW]
    assert priority_of_source("") is None
    assert priority_of_source("news") is None
