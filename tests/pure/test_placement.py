"""Every message of a mailbox is in one place, as the table in `bus.mailbox.mailbox` says; each step is checked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bus.mailbox.mailbox import Mailbox
from bus.mailbox.sessions import Session
from bus.mailbox.sources import Interest
from bus.mailbox.unsettled import MessagePlace, Unsettled

from .placement import placement_faults
from .test_mailbox import box, handed, letter, level, session


def read_on(mailbox: Mailbox, *seqs: int) -> None:
    """Read the page that is asked for: messages of `news`."""
    assert mailbox.next_read(max(seqs)) is not None
    mailbox.page_read([], [letter(seq, "news") for seq in seqs], complete=True, damaged=())


def left_and_asked_for_again() -> tuple[Mailbox, Session]:
    """Return a mailbox whose channel was left while a message rested until 100, and that has it in flight again."""
    mailbox = box()
    one = level(mailbox)
    one.client = "client"
    mailbox.subscribe("news", Interest(0, echo=False), 0)
    mailbox.arrive(letter(1, "news"))
    assert handed(mailbox) == [(1, 1)]
    mailbox.fail(1, 0, delay=100)
    mailbox.unsubscribe("news")
    mailbox.subscribe("news", Interest(0, echo=False), 1)
    read_on(mailbox, 1)
    assert handed(mailbox) == [(1, 1)]
    assert placement_faults(mailbox) == []
    return mailbox, one


def test_a_nak_comes_after_its_own_delay_though_an_earlier_one_was_due_before() -> None:
    mailbox, _ = left_and_asked_for_again()
    mailbox.fail(1, 10, delay=1000)
    assert placement_faults(mailbox) == []
    assert handed(mailbox, 100) == []
    assert handed(mailbox, 1010) == [(1, 2)]


def test_what_waits_for_its_client_keeps_nothing_else_back() -> None:
    mailbox, one = left_and_asked_for_again()
    other = session()
    mailbox.attach(other)
    mailbox.fail(1, 10, delay=0)
    assert handed(mailbox, 10) == [(1, 2)]
    holder = next(each for each in (one, other) if each.in_flight)
    holder.client = "client"
    mailbox.detach(holder, 98, vanished=True)
    assert placement_faults(mailbox) == []
    mailbox.arrive(letter(2, "news"))
    assert handed(mailbox, 101) == [(2, 1)]


def flying(mailbox: Mailbox) -> None:
    mailbox.outstanding.returned.add(1, 0)


def nowhere(mailbox: Mailbox) -> None:
    mailbox.outstanding._items[2] = Unsettled(1, 0, None, place=MessagePlace.RETURNED)


def lost_by_its_session(mailbox: Mailbox) -> None:
    mailbox.sessions[0].in_flight.clear()


def had_by_its_session_alone(mailbox: Mailbox) -> None:
    del mailbox.outstanding._items[1]


def suspended_while_in_flight(mailbox: Mailbox) -> None:
    mailbox.outstanding._absent.suspend(1, "why", 1.0)


def removed_while_in_flight(mailbox: Mailbox) -> None:
    mailbox.leaving.prepare({1: None})


def dead_twice(mailbox: Mailbox) -> None:
    mailbox.dead_letters.dead.add(9)
    mailbox.dead_letters.reviving.add(9)


def in_memory_below_the_position(mailbox: Mailbox) -> None:
    mailbox.arrive(letter(1))
    mailbox.intake._ready.append(letter(1))


def aside_for_no_page(mailbox: Mailbox) -> None:
    mailbox.intake._aside.append(letter(9))


def withheld_for_nothing(mailbox: Mailbox) -> None:
    mailbox.outstanding._withheld.append(9)


@pytest.mark.parametrize(
    "fault",
    [
        flying,
        nowhere,
        lost_by_its_session,
        had_by_its_session_alone,
        suspended_while_in_flight,
        removed_while_in_flight,
        dead_twice,
        in_memory_below_the_position,
        aside_for_no_page,
        withheld_for_nothing,
    ],
)
def test_a_message_in_the_wrong_place_is_seen(fault: Callable[[Mailbox], None]) -> None:
    mailbox = box()
    level(mailbox)
    mailbox.arrive(letter(1))
    assert handed(mailbox) == [(1, 1)]
    assert placement_faults(mailbox) == []
    fault(mailbox)
    assert placement_faults(mailbox) != []
