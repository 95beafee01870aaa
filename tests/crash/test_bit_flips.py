"""Some bits: one in a mailbox's row, whose flip used to lose a message in silence, and some that are drawn."""

from __future__ import annotations

from .bit_flips import flip_at, in_mailbox, in_schema, play_round
from .rounds import new_seed

FLIPS = 10


def test_a_flipped_bit_in_a_mailbox_is_found() -> None:
    counted = flip_at(in_mailbox)
    assert counted["checked"] == 1
    assert counted["refused"] == 1


def test_a_flipped_bit_in_the_schema_is_found() -> None:
    counted = flip_at(in_schema)
    assert counted["checked"] == 1
    assert counted["refused"] == 1


def test_a_flipped_bit_is_found_or_harmless() -> None:
    seed = new_seed()
    print(f"seed {seed}")  # noqa: T201
    for number in range(FLIPS):
        play_round(seed + number)
