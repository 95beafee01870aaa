"""A full disk: refusals, what goes on, and a start on it."""

from __future__ import annotations

import pytest

from .disk import why_not
from .full_disks import fill
from .rounds import new_seed

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def test_a_full_disk_refuses_publishes_and_a_start_and_loses_nothing() -> None:
    assert fill(5)["kills"] == 1


def test_a_full_disk_refuses_publishes_and_loses_nothing_whatever_comes() -> None:
    seed = new_seed()
    print(f"seed {seed}")  # noqa: T201
    assert fill(seed)["refused"] > 0
