"""What of a log is written: every kind of entry once, and then how often it came again."""

from __future__ import annotations

from bus.broker.repeats import Repeats


def test_what_repeats_is_written_once_and_counted_at_the_end_of_its_window() -> None:
    repeats = Repeats()
    entry = {"event": "storage_full"}
    assert [repeats.admit("warning", entry | {"changes": n}, 0.0) for n in range(5)] == [True, *[False] * 4]
    assert repeats.take_due(1.0) == []
    assert repeats.take_due(10.0) == [{"event": "storage_full", "level": "warning", "repeats": 4}]


def test_what_goes_on_is_counted_again_and_what_ended_is_forgotten() -> None:
    repeats = Repeats()
    for now in (0.0, 1.0, 11.0):
        repeats.admit("warning", {"event": "storage_full"}, now)
        counted = repeats.take_due(now)
    assert [each["repeats"] for each in counted] == [2]
    assert repeats.take_due(30.0) == []
    assert repeats.admit("warning", {"event": "storage_full"}, 31.0)


def test_entries_that_say_something_else_are_all_written() -> None:
    repeats = Repeats()
    assert all(repeats.admit("error", {"event": "message_damaged", "seq": seq}, 0.0) for seq in range(100))
    assert repeats.admit("warning", {"event": "message_damaged", "seq": 1}, 0.0)
    assert repeats.admit("error", {"event": "batch_failed"}, 0.0, ValueError("a"))
    assert repeats.admit("error", {"event": "batch_failed"}, 0.0, ValueError("b"))


def test_a_flood_of_different_entries_is_bounded() -> None:
    repeats = Repeats()
    written = [repeats.admit("error", {"event": "message_damaged", "seq": seq}, 0.0) for seq in range(10_000)]
    assert 0 < sum(written) < 1000
    [counted] = repeats.take_due(10.0)
    assert counted == {"event": "message_damaged", "level": "error", "repeats": 10_000 - sum(written)}


def test_every_count_is_given_at_the_end() -> None:
    repeats = Repeats()
    for _ in range(2):
        repeats.admit("info", {"event": "signal_ignored"}, 0.0)
    assert [each["repeats"] for each in repeats.take_due(0.1, at_end=True)] == [1]
