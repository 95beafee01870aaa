"""One mailbox, move by move: what the simulation plays at random, shown one at a time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus.mailbox.mailbox import Mailbox
from bus.mailbox.parcel import Envelope, Parcel
from bus.mailbox.sessions import Session
from bus.mailbox.sources import Interest
from bus.model.repository import MailboxState, UnsettledState
from bus.settings import Delivery, Limits

DELIVERY = Delivery(ack_wait_seconds=10, max_deliver=2, backoff_seconds=(1, 5))
LIMITS = Limits(ready_messages_max=4)


def letters(*seqs: int, channel: str | None = None, sender: str = "other") -> Parcel:
    wires = [b'{"seq":%d' % seq for seq in seqs]
    return Parcel(Envelope(sender, channel), seqs, wires, sum(map(len, wires)))


def letter(seq: int, channel: str | None = None, sender: str = "other") -> Parcel:
    return letters(seq, channel=channel, sender=sender)


def box(**state: Any) -> Mailbox:
    return Mailbox(MailboxState("me", **({"position": 0} | state)), DELIVERY, LIMITS)


def session(credit: int = 10) -> Session:
    return Session(b"address", "id", 0.0, credit=credit, in_flight_bytes_max=1_000_000)


def level(mailbox: Mailbox, credit: int = 10) -> Session:
    """Attach a session and read the store to its end."""
    attached = session(credit)
    mailbox.attach(attached)
    mailbox.hand_out(0)
    while (request := mailbox.next_read(0)) is not None:
        mailbox.page_read([letter(seq) for seq in request.seqs], [], complete=True, damaged=())
    assert mailbox.intake.level
    return attached


def handed(mailbox: Mailbox, now: float = 0.0) -> list[tuple[int, int]]:
    """Hand out, and read what is to be read again; give each delivery's seq and attempt."""
    out = mailbox.hand_out(now)
    while mailbox.outstanding.is_anything_returned and (request := mailbox.next_read(0)) is not None:
        mailbox.page_read([letter(seq) for seq in request.seqs], [], complete=True, damaged=())
        out += mailbox.hand_out(now)
    frames = [json.loads(wire + group.ending) for each in out for group in each.deliveries for wire in group.wires]
    return [(frame["seq"], frame["attempt"]) for frame in frames]


def test_a_level_mailbox_hands_out_what_arrives() -> None:
    mailbox = box()
    one = level(mailbox)
    assert mailbox.arrive(letter(1))
    assert handed(mailbox) == [(1, 1)]
    mailbox.settle(one, [1])
    assert mailbox.state() == MailboxState("me", 1)


def test_a_channel_counts_from_its_start_and_without_our_own() -> None:
    mailbox = box()
    level(mailbox)
    mailbox.subscribe("news", Interest(start_seq=5, echo=False), last_seq=5)
    mailbox.subscribe("echo", Interest(start_seq=5, echo=True), last_seq=5)
    assert not mailbox.arrive(letter(5, "news"))
    assert not mailbox.arrive(letter(6, "other"))
    assert not mailbox.arrive(letter(7, "news", sender="me"))
    assert mailbox.arrive(letter(8, "echo", sender="me"))
    assert mailbox.arrive(letter(9, "news"))


def test_credit_spent_means_behind_and_reading_again_later() -> None:
    mailbox = box()
    one = level(mailbox, credit=1)
    for seq in range(1, 7):
        mailbox.arrive(letter(seq))
    assert repr(mailbox).split()[2] == "behind"
    assert handed(mailbox) == [(1, 1)]
    assert mailbox.next_read(6) is None, "nothing is read for a bot that cannot take it"
    for seq in range(1, 5):
        mailbox.settle(one, [seq])
        mailbox.hand_out(0)
    request = mailbox.next_read(6)
    assert request is not None
    assert (request.sources, request.through_seq) == ((("", 4, False),), 6)
    assert mailbox.arrive(letter(7)), "what comes while a page is read is kept, after the page"
    mailbox.page_read([], [letter(5), letter(6)], complete=True, damaged=())
    assert mailbox.intake.level
    one.credit = 10
    assert handed(mailbox) == [(5, 1), (6, 1), (7, 1)]


def test_a_restart_owes_what_was_unsettled_with_a_higher_attempt() -> None:
    mailbox = box(position=9, unsettled=(UnsettledState(3, 1, 0), UnsettledState(7, 2, 1)))
    mailbox.attach(session())
    request = mailbox.next_read(10)
    assert request is not None
    assert request.seqs == (3, 7)
    mailbox.page_read([letter(3), letter(7)], [letter(10)], complete=True, damaged=())
    assert handed(mailbox) == [(3, 2), (7, 3), (10, 1)]


def test_failures_are_counted_and_a_goodbye_is_none() -> None:
    mailbox = box()
    one = level(mailbox)
    mailbox.arrive(letter(1))
    assert handed(mailbox) == [(1, 1)]
    assert mailbox.detach(one, 0, vanished=False) == []
    level(mailbox)
    assert handed(mailbox) == [(1, 2)]
    assert mailbox.fail(1, now=0) is None
    assert handed(mailbox, now=0.9) == []
    assert handed(mailbox, now=1.0) == [(1, 3)]
    [given_up] = mailbox.expire(now=11.0)
    assert (given_up.seq, given_up.attempts) == (1, 3)
    assert "ack_wait" in given_up.reason
    assert mailbox.fate(1, None) == "dead"


def test_a_release_is_no_failure_and_does_not_spin() -> None:
    mailbox = box()
    level(mailbox)
    mailbox.arrive(letter(1))
    now = 0.0
    for attempt, wait in enumerate([0.05, 1, 1, 1, 1], 1):
        assert handed(mailbox, now) == [(1, attempt)]
        assert mailbox.fail(1, now, release=True) is None
        assert mailbox.fate(1, None) == "returned"
        assert handed(mailbox, now + wait * 0.9) == []
        now += wait
    assert mailbox.state().unsettled == (UnsettledState(1, 5, 0),)
    assert handed(mailbox, now) == [(1, 6)]
    assert mailbox.fail(1, now) is None, "the first failure waits as the first"
    now += 1
    assert handed(mailbox, now) == [(1, 7)]
    assert mailbox.fail(1, now, delay=0, release=True) is None
    assert handed(mailbox, now) == [], "no delay is none that was named"
    now += 1
    assert handed(mailbox, now) == [(1, 8)]
    assert mailbox.fail(1, now, delay=0.5, release=True) is None
    now += 0.5
    assert handed(mailbox, now) == [(1, 9)]
    given_up = mailbox.fail(1, now)
    assert given_up is not None
    assert given_up.attempts == 9
    assert "failed 2 times" in given_up.reason


def test_extending_restarts_the_wait() -> None:
    mailbox = box()
    level(mailbox)
    mailbox.arrive(letter(1))
    handed(mailbox)
    mailbox.outstanding.extend(1, now=8)
    assert mailbox.expire(now=17) == []
    assert handed(mailbox, now=17) == []
    mailbox.expire(now=18)
    assert handed(mailbox, now=18) == [(1, 2)]


def test_sessions_share_by_free_credit_and_inherit_at_once() -> None:
    mailbox = box()
    one, two = level(mailbox, credit=3), session(credit=1)
    mailbox.attach(two)
    for seq in range(1, 5):
        mailbox.arrive(letter(seq))
    mailbox.hand_out(0)
    assert (len(one.in_flight), len(two.in_flight)) == (3, 1)
    two.credit = 10
    mailbox.detach(one, 0, vanished=True)
    assert [attempt for _, attempt in handed(mailbox)] == [2, 2, 2]
    assert len(two.in_flight) == 4


def test_a_start_in_the_past_goes_back_without_repeating_the_others() -> None:
    mailbox = box(position=8)
    one = level(mailbox)
    mailbox.sources.prepare("news", 2)
    assert mailbox.state() == MailboxState("me", 2, (), {"": 8}), "what is saved goes back already"
    assert mailbox.position == 8
    mailbox.subscribe("news", Interest(start_seq=2, echo=False), last_seq=8)
    request = mailbox.next_read(8)
    assert request is not None
    assert request.sources == (("", 8, False), ("news", 2, True))
    mailbox.page_read([], [letter(4, "news")], complete=True, damaged=())
    assert handed(mailbox) == [(4, 1)]
    mailbox.settle(one, [4])
    assert mailbox.state() == MailboxState("me", 4, (), {"": 8})


def asked_for_again() -> tuple[Mailbox, Session]:
    """Three messages of a channel are handed out, and the channel is left and asked for from its beginning."""
    mailbox = box()
    one = level(mailbox)
    for number in range(2):
        mailbox.subscribe("news", Interest(start_seq=0, echo=False), last_seq=3 * number)
        if number == 0:
            for seq in (1, 2, 3):
                mailbox.arrive(letter(seq, "news"))
            assert handed(mailbox) == [(1, 1), (2, 1), (3, 1)]
            mailbox.unsubscribe("news")
    return mailbox, one


def test_what_is_settled_after_its_channel_was_asked_for_again_does_not_come_again() -> None:
    mailbox, one = asked_for_again()
    mailbox.settle(one, [3])
    assert mailbox.state().ahead == (3,)
    [unread] = [mailbox.reading.unread(3)]
    assert sorted(unread.seqs) == [1, 2, 3], "they are not waiting to be handed out"
    assert mailbox.next_read(3) is not None
    mailbox.page_read([], [letter(seq, "news") for seq in (1, 2, 3)], complete=True, damaged=())
    assert handed(mailbox) == []
    mailbox.settle(one, [1])
    assert mailbox.state() == MailboxState("me", 3, (UnsettledState(2, 1, 0),))


def test_what_a_commit_settles_after_its_channel_was_asked_for_again_does_not_come_again() -> None:
    mailbox, _ = asked_for_again()
    mailbox.outstanding.prepare_to_settle(1, [3], 0.0)
    saved = mailbox.state().without([3])
    assert (saved.position, saved.floors, saved.ahead) == (0, {"": 3}, (3,))
    assert mailbox.settle_committed(1) == 1
    assert mailbox.state() == saved
    again = Mailbox(saved, DELIVERY, LIMITS)
    again.sources.restore("news", Interest(start_seq=0, echo=False))
    again.attach(session())
    assert again.next_read(3) is not None
    again.page_read(
        [letter(1, "news"), letter(2, "news")],
        [letter(seq, "news") for seq in (1, 2, 3)],
        complete=True,
        damaged=(),
    )
    assert handed(again) == [(1, 2), (2, 2)]


@pytest.mark.parametrize("settle_first", [True, False])
def test_leaving_a_channel_drops_what_waits(settle_first: bool) -> None:
    mailbox = box()
    one = level(mailbox, credit=1)
    mailbox.subscribe("news", Interest(start_seq=0, echo=False), last_seq=0)
    mailbox.arrive(letter(1, "news"))
    mailbox.arrive(letter(2, "news"))
    mailbox.arrive(letter(3))
    assert handed(mailbox) == [(1, 1)]
    mailbox.unsubscribe("news")
    if settle_first:
        mailbox.settle(one, [1])
    else:
        mailbox.fail(1, now=0, delay=0)
    assert handed(mailbox) == [(3, 1)], "neither the one that waited nor the one that came back"


def test_damage_and_removal_are_told() -> None:
    mailbox = box(position=5, unsettled=(UnsettledState(3, 1, 0), UnsettledState(4, 1, 0)))
    mailbox.attach(session())
    mailbox.next_read(7)
    assert mailbox.page_read([], [letter(7)], complete=True, damaged=(3, 6)) == (3, 4, 6)
    assert handed(mailbox) == [(7, 1)]


WALL = "2026-01-01T00:00:%02d.000000Z"


@pytest.mark.parametrize("release", [False, True])
def test_what_rests_rests_on_after_a_restart(release: bool) -> None:
    mailbox = box()
    level(mailbox)
    mailbox.arrive(letter(1))
    mailbox.arrive(letter(2))
    assert handed(mailbox) == [(1, 1), (2, 1)]
    mailbox.fail(1, now=0, wall=WALL % 0, delay=30.0, release=release)
    mailbox.fail(2, now=0, wall=WALL % 0, release=release)
    [first, second] = mailbox.state().unsettled
    assert (first.due_at, first.delay) == (WALL % 30, 30.0)
    assert second.due_at == ("2026-01-01T00:00:00.050000Z" if release else WALL % 1)
    again = Mailbox(mailbox.state(), DELIVERY, LIMITS)
    two = session()
    again.attach(two)
    again.hand_out(1000, WALL % 10)
    assert again.timed
    assert handed(again, 1000) == [(2, 2)]
    assert handed(again, 1019.9) == []
    assert handed(again, 1020) == [(1, 2)]
    again.settle(two, [1])


@pytest.mark.parametrize(("wall", "left"), [(WALL % 59, 0.0), ("2025-01-01T00:00:00.000000Z", 30.0)])
def test_a_rest_is_never_longer_than_its_delay_and_ends_where_the_clock_is_past_it(wall: str, left: float) -> None:
    mailbox = box(position=1, unsettled=(UnsettledState(1, 1, 1, WALL % 30, 30.0),))
    mailbox.attach(session())
    mailbox.hand_out(0, wall)
    assert not left or handed(mailbox, left - 0.1) == []
    assert handed(mailbox, left) == [(1, 2)]


def test_what_was_delivered_again_rests_no_more() -> None:
    mailbox = box()
    level(mailbox)
    mailbox.arrive(letter(1))
    handed(mailbox)
    mailbox.fail(1, now=0, wall=WALL % 0, delay=5.0)
    assert handed(mailbox, 5) == [(1, 2)]
    assert mailbox.state().unsettled == (UnsettledState(1, 2, 1, None, 5.0),)


def test_a_message_that_dies_anew_while_its_dead_letter_is_retried_is_retried() -> None:
    mailbox = box()
    one = level(mailbox)
    mailbox.subscribe("news", Interest(0, echo=False), last_seq=0)
    mailbox.arrive(letter(1, "news"))
    assert handed(mailbox) == [(1, 1)]
    assert mailbox.terminate(1, "no") is not None
    mailbox.unsubscribe("news")
    mailbox.subscribe("news", Interest(0, echo=False), last_seq=1)
    assert mailbox.next_read(1) is not None
    mailbox.page_read([], [letter(1, "news")], complete=True, damaged=())
    assert handed(mailbox) == [(1, 1)]
    assert mailbox.dead_letters.put_back([1]) == [1]
    assert mailbox.terminate(1, "no") is None
    mailbox.dead_letters.revive([1])
    assert 1 not in mailbox.dead_letters
    assert mailbox.state().unsettled == (UnsettledState(1, 0, 0, retried=True),)
    assert not one.in_flight


def test_lots_arrive_are_delivered_by_credit_and_settled_in_parts() -> None:
    mailbox = Mailbox(MailboxState("me", 0), DELIVERY, Limits(ready_messages_max=8))
    one = level(mailbox, credit=3)
    assert mailbox.arrive(letters(1, 2, 3, 4, 5))
    assert mailbox.arrive(letters(6, 7))
    assert handed(mailbox) == [(1, 1), (2, 1), (3, 1)]
    mailbox.settle(one, [2])
    assert handed(mailbox) == [(4, 1)]
    mailbox.fail(1, now=0, delay=0.0)
    assert handed(mailbox) == [(1, 2)]
    mailbox.settle(one, [3, 4, 1])
    assert handed(mailbox) == [(5, 1), (6, 1), (7, 1)]
    assert mailbox.state() == MailboxState("me", 7, tuple(UnsettledState(seq, 1, 0) for seq in (5, 6, 7)))
    assert one.in_flight_bytes == sum(len(b'{"seq":%d' % seq) for seq in (5, 6, 7))


def test_what_happens_to_one_message_of_a_lot_happens_to_it_alone() -> None:
    mailbox = box()
    level(mailbox)
    assert mailbox.arrive(letters(1, 2, 3))
    assert handed(mailbox) == [(1, 1), (2, 1), (3, 1)]
    mailbox.outstanding.extend(2, 5.0)
    mailbox.expire(10.0)
    assert handed(mailbox, now=10.0) == [(1, 2), (3, 2)]
    mailbox.expire(15.0)
    assert handed(mailbox, now=15.0) == [(2, 2)]


def test_a_retry_of_one_message_of_a_lot_keeps_nothing_else_of_its_channel() -> None:
    mailbox = box()
    level(mailbox)
    mailbox.subscribe("news", Interest(0, echo=False), last_seq=0)
    assert mailbox.arrive(letter(2, "news"))
    assert handed(mailbox) == [(2, 1)]
    assert mailbox.terminate(2, "no") is not None
    mailbox.unsubscribe("news")
    mailbox.subscribe("news", Interest(0, echo=False), last_seq=3)
    assert mailbox.next_read(3) is not None
    mailbox.page_read([], [letters(1, 2, 3, channel="news")], complete=True, damaged=())
    assert handed(mailbox) == [(1, 1), (2, 1), (3, 1)]
    assert mailbox.dead_letters.put_back([2]) == [2]
    mailbox.dead_letters.revive([2])
    mailbox.unsubscribe("news")
    mailbox.fail(3, now=0, delay=0.0)
    mailbox.fail(2, now=0, delay=0.0)
    assert handed(mailbox) == [(2, 2)]


def test_what_was_delivered_of_a_lot_is_not_kept_in_memory() -> None:
    mailbox = Mailbox(MailboxState("me", 0), DELIVERY, Limits(ready_messages_max=500))
    one = level(mailbox, credit=1)
    assert mailbox.arrive(letters(*range(1, 401)))
    for seq in range(1, 400):
        assert handed(mailbox) == [(seq, 1)]
        mailbox.settle(one, [seq])
        kept = sum(len(parcel.seqs) for parcel in mailbox.intake._ready._parcels)
        assert kept <= 2 * len(mailbox.intake) + 1


def test_a_lot_that_does_not_fit_into_memory_is_read_from_where_it_was_cut() -> None:
    mailbox = box()
    one = level(mailbox, credit=1)
    assert mailbox.arrive(letters(1, 2, 3, 4, 5, 6))
    assert not mailbox.intake.level
    assert handed(mailbox) == [(1, 1)]
    for seq in (1, 2, 3):
        mailbox.settle(one, [seq])
        assert handed(mailbox) == [(seq + 1, 1)]
    request = mailbox.next_read(6)
    assert request is None or request.sources[0][1] == 4
    mailbox.settle(one, [4])
    request = request or mailbox.next_read(6)
    assert request is not None
    assert request.sources == (("", 4, False),)
    mailbox.page_read([], [letters(5, 6)], complete=True, damaged=())
    assert handed(mailbox) == [(5, 1)]


def test_bytes_in_flight_cut_a_lot_after_the_message_that_passes_them() -> None:
    mailbox = box()
    one = Session(b"address", "id", 0.0, credit=10, in_flight_bytes_max=20)
    mailbox.attach(one)
    mailbox.hand_out(0)
    assert mailbox.next_read(0) is not None
    mailbox.page_read([], [], complete=True, damaged=())
    assert mailbox.arrive(letters(1, 2, 3, 4))  # of eight bytes each
    assert handed(mailbox) == [(1, 1), (2, 1), (3, 1)]
    mailbox.settle(one, [1])
    assert handed(mailbox) == [(4, 1)]


def test_a_dead_letter_is_delivered_again_whether_its_channel_was_left_or_not() -> None:
    mailbox = box()
    level(mailbox)
    mailbox.subscribe("news", Interest(0, echo=False), last_seq=0)
    mailbox.arrive(letter(1, "news"))
    assert handed(mailbox) == [(1, 1)]
    assert mailbox.terminate(1, "no") is not None
    mailbox.unsubscribe("news")
    assert mailbox.dead_letters.put_back([1]) == [1]
    assert mailbox.state().unsettled == (UnsettledState(1, 0, 0, retried=True),)
    mailbox.dead_letters.revive([1])
    again = Mailbox(mailbox.state(), DELIVERY, LIMITS)
    again.attach(session())
    page = again.next_read(1)
    assert page is not None
    assert page.seqs == (1,)
    again.page_read([letter(1, "news")], [], complete=True, damaged=())
    assert [seq for _, _, seqs in again.hand_out(0) for seq in seqs] == [1]


def test_a_damaged_message_that_was_settled_before_its_turn_is_no_loss() -> None:
    mailbox = box(ahead=(3,))
    mailbox.attach(session())
    mailbox.next_read(5)
    assert mailbox.page_read([], [], complete=True, damaged=(3, 4)) == (4,)


def test_what_was_settled_long_before_its_deadline_takes_no_memory() -> None:
    mailbox = box()
    one = level(mailbox)
    assert mailbox.arrive(letter(1))
    handed(mailbox)
    most = 0
    for seq in range(2, 10_000):
        assert mailbox.arrive(letter(seq))
        handed(mailbox, now=1.0)
        mailbox.settle(one, [seq])
        most = max(most, len(mailbox.outstanding._deadlines))
    assert most < 1_100
    assert mailbox.expire(9.0) == []
    assert mailbox.timed
    mailbox.expire(10.0)
    assert handed(mailbox, now=10.0) == [(1, 2)]


def test_a_deadline_that_was_extended_holds_when_the_others_are_cleared_out() -> None:
    mailbox = box()
    one = level(mailbox)
    assert mailbox.arrive(letter(1))
    handed(mailbox)
    mailbox.outstanding.extend(1, 5.0)
    for seq in range(2, 3_000):
        assert mailbox.arrive(letter(seq))
        handed(mailbox, now=6.0)
        mailbox.settle(one, [seq])
    mailbox.expire(14.9)
    assert handed(mailbox, now=14.9) == []
    mailbox.expire(15.0)
    assert handed(mailbox, now=15.0) == [(1, 2)]


def test_each_reply_ahead_of_its_turn_keeps_its_deadline_when_the_others_are_cleared_out() -> None:
    mailbox = box()
    one = level(mailbox, credit=1)
    assert mailbox.arrive(letter(1))
    handed(mailbox)
    for seq in range(2, 3_000):
        assert mailbox.express(letter(seq), one, 1.0) is not None
        if seq % 100:
            mailbox.settle(one, [seq])
    waiting = {1, *range(100, 3_000, 100)}
    assert one.in_flight.keys() == waiting
    mailbox.expire(11.0)
    assert not one.in_flight
