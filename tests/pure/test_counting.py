"""Counting what waits, long before the number is needed: what arrives before the start of a source is not of it."""

from __future__ import annotations

from bus.model.counting import Counted, recounted, spans_of
from bus.model.repository import PageRequest


def request(through_seq: int) -> PageRequest:
    return PageRequest("bob", (), (("news", 10, False),), through_seq, 1, 1)


def test_a_source_that_begins_beyond_the_log_has_nothing_yet() -> None:
    counted = [Counted("bob", span, 0) for span in spans_of(request(3))]
    assert recounted(request(7), counted) == (0, [])


def test_what_arrives_after_its_start_is_counted() -> None:
    counted = [Counted("bob", span, 0) for span in spans_of(request(3))]
    assert [(span.after_seq, span.through_seq, sign) for span, sign in recounted(request(12), counted)[1]] == [
        (10, 12, 1)
    ]
