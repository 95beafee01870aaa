"""Orders that are executed while their bots and the worker are killed."""

from __future__ import annotations

from .orders import play_round


def test_orders_survive_kills() -> None:
    counted = play_round(7, rounds=4)
    assert counted["forks"] >= 1
    assert counted["orders"] == 12 + counted["forks"] == counted["completed"] + counted["cancelled"]
    assert counted["of a bot"] + counted["of the worker"] == 4
