"""How waiting messages are packed into frames: in order, as many as fit, and none of a call that has ended."""

from __future__ import annotations

import bus
from bus.client.unsent import Unsent
from bus.client.waiting import Part, Ticket
from bus.wire.limits import PUBLISH_ROOM_BYTES

ROOMY = PUBLISH_ROOM_BYTES + 1000


def ticket(*sizes: int) -> Ticket:
    return Ticket([f"id-{number}" for number in range(len(sizes))], [b"x" * size for size in sizes])


def test_several_calls_share_a_frame() -> None:
    unsent, first, second = Unsent(), ticket(1, 1), ticket(1, 1, 1)
    unsent.add(first, 0, 2)
    unsent.add(second, 0, 3)
    assert (len(unsent), repr(unsent)) == (5, "<Unsent messages=5>")
    assert unsent.pack(messages_max=1000, bytes_max=ROOMY) == [Part(first, 0, 2), Part(second, 0, 3)]
    assert (len(unsent), unsent.pack(messages_max=1000, bytes_max=ROOMY)) == (0, [])


def test_a_frame_takes_no_more_messages_than_it_may() -> None:
    unsent, first, second = Unsent(), ticket(1, 1), ticket(1, 1, 1)
    unsent.add(first, 0, 2)
    unsent.add(second, 0, 3)
    assert unsent.pack(messages_max=2, bytes_max=ROOMY) == [Part(first, 0, 2)]
    assert unsent.pack(messages_max=2, bytes_max=ROOMY) == [Part(second, 0, 2)]
    assert len(unsent) == 1
    assert unsent.pack(messages_max=2, bytes_max=ROOMY) == [Part(second, 2, 3)]


def test_a_frame_takes_no_more_bytes_than_it_may_but_at_least_one_message() -> None:
    unsent, large = Unsent(), ticket(499, 499, 1, 2000, 998)
    unsent.add(large, 0, 5)
    assert unsent.pack(messages_max=1000, bytes_max=ROOMY) == [Part(large, 0, 2)], "each with a comma: just so"
    assert unsent.pack(messages_max=1000, bytes_max=ROOMY) == [Part(large, 2, 3)]
    assert unsent.pack(messages_max=1000, bytes_max=ROOMY) == [Part(large, 3, 4)]
    assert unsent.pack(messages_max=1000, bytes_max=ROOMY) == [Part(large, 4, 5)]
    assert len(unsent) == 0


def test_what_a_call_has_not_sent_before_it_ended_is_left_out() -> None:
    unsent, ended, other = Unsent(), ticket(1, 1), ticket(1)
    unsent.add(ended, 0, 2)
    unsent.add(other, 0, 1)
    ended.finish()
    assert unsent.pack(messages_max=1000, bytes_max=ROOMY) == [Part(other, 0, 1)]
    assert len(unsent) == 0


def test_a_connection_that_ends_fails_every_call() -> None:
    unsent, first, second = Unsent(), ticket(1, 1), ticket(1, 1)
    error = bus.ClosedError("the bot was closed")
    unsent.add(first, 0, 2)
    unsent.add(second, 0, 1)
    unsent.fail(error)
    assert (first.done, first.outcomes) == (True, [error, error])
    assert (second.done, second.outcomes) == (False, [error, None]), "the rest of it was not entered yet"
    assert len(unsent) == 0
