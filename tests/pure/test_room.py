"""When little room is left: the bounds, and that a level which varies about its bound is not told again."""

from __future__ import annotations

import pytest

from bus.model.room import Room, RoomLevel, RoomRule

ENOUGH, LOW, VERY_LOW = RoomLevel
GIBIBYTE = 1024**3
MEBIBYTE = 1024**2
RULE = RoomRule(free_bytes=GIBIBYTE, size_bytes=0)


@pytest.mark.parametrize(
    ("free_bytes", "database_bytes", "level"),
    [
        (GIBIBYTE, 0, ENOUGH),
        (GIBIBYTE - 1, 0, LOW),
        (64 * MEBIBYTE, 0, LOW),
        (64 * MEBIBYTE - 1, 0, VERY_LOW),
        (2 * GIBIBYTE, 20 * GIBIBYTE, ENOUGH),
        (2 * GIBIBYTE - 1, 20 * GIBIBYTE, LOW),
        (None, 20 * GIBIBYTE, ENOUGH),
    ],
)
def test_little_room_is_less_than_a_bound_or_a_tenth_of_the_database(
    free_bytes: int | None, database_bytes: int, level: RoomLevel
) -> None:
    assert RULE.level(Room(database_bytes, free_bytes)) is level


def test_what_was_low_is_so_until_there_is_a_quarter_more() -> None:
    level, found = ENOUGH, []
    for free in (1100, 1000, 1100, 1279, 1280, 1100, 60, 70, 79, 80, 2000):
        level = RULE.level(Room(0, free * MEBIBYTE), level)
        found.append(level)
    assert found == [ENOUGH, LOW, LOW, LOW, ENOUGH, ENOUGH, VERY_LOW, VERY_LOW, VERY_LOW, LOW, ENOUGH]


def test_a_database_may_have_a_size() -> None:
    rule, level, found = RoomRule(free_bytes=0, size_bytes=1000), ENOUGH, []
    for size in (999, 1000, 900, 801, 800, 799, 999):
        level = rule.level(Room(size), level)
        found.append(level)
    assert found == [ENOUGH, LOW, LOW, LOW, LOW, ENOUGH, ENOUGH]
    assert rule.level(Room(0, 0)) is ENOUGH, "the free room has no bound"


def test_what_is_compared_with_nothing_tells_nothing() -> None:
    assert RULE.can_tell(Room(1, 1))
    assert not RULE.can_tell(Room(1, None))
    assert RoomRule(free_bytes=0, size_bytes=1).can_tell(Room(1, None))
    assert not RoomRule(free_bytes=0, size_bytes=0).can_tell(Room(1, 1))


def test_levels_have_words_and_ranks() -> None:
    assert [(level.in_words, level.rank) for level in RoomLevel] == [("enough", 0), ("low", 1), ("very low", 2)]
