"""Which logs a log goes on from, and up to which seq they agree."""

from __future__ import annotations

import pytest

from bus.model.lineage import EarlierLog, agreed_seq, read_earlier, written_earlier


def test_a_log_agrees_with_one_before_as_far_as_all_since_do() -> None:
    text = written_earlier("[]", "first", 60)
    assert read_earlier(text) == (EarlierLog("first", 60),)
    later = written_earlier(text, "second", 200)
    assert [agreed_seq(read_earlier(later), epoch) for epoch in ("first", "second", "other")] == [60, 200, 0]
    restored = written_earlier(later, "third", 50)  # a copy from before the second log began to differ
    assert [agreed_seq(read_earlier(restored), epoch) for epoch in ("first", "second", "third")] == [50, 50, 50]


def test_the_latest_logs_are_kept() -> None:
    text = "[]"
    for number in range(150):
        text = written_earlier(text, f"e{number}", number)
    found = read_earlier(text)
    assert (len(found), found[0].epoch, found[-1].epoch) == (100, "e50", "e149")


@pytest.mark.parametrize("text", ["", "x", "[5]", '{"a":1}', '[["e","f"]]', "\udc80"])
def test_what_cannot_be_read_is_no_earlier_log(text: str) -> None:
    assert read_earlier(text) == ()
