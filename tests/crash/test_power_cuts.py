"""Power cuts under load, and after a sync that never finished; workers that take too little care are found out."""

from __future__ import annotations

import pytest

from . import disk, unfinished_syncs
from .bots import Shape
from .power_cuts import cut_under_load
from .rounds import new_seed
from .stage import Broken, lying
from .unfinished_syncs import SYNCS_MAX, sync_that_never_finished

pytestmark = [
    pytest.mark.skipif(disk.why_not() is not None, reason=str(disk.why_not())),
    pytest.mark.skipif(unfinished_syncs.why_not() is not None, reason=str(unfinished_syncs.why_not())),
]


def test_nothing_acknowledged_is_lost_by_power_cuts() -> None:
    cut_under_load(1, cuts=3)


def test_nothing_acknowledged_is_lost_by_power_cuts_at_any_moment() -> None:
    seed = new_seed()
    print(f"seed {seed}")  # noqa: T201
    cut_under_load(seed, cuts=3)


def test_a_worker_that_does_not_wait_for_its_syncs_is_found_out() -> None:
    with pytest.raises(Broken, match="lost:"):
        cut_under_load(1, cuts=1, serve=lying("no_sync"), shape=Shape(workers=0))


def test_what_is_acknowledged_after_a_sync_that_never_finished_is_on_the_disk() -> None:
    sync_that_never_finished(SYNCS_MAX // 2)


def test_a_worker_that_makes_no_checkpoint_at_its_start_is_found_out() -> None:
    with pytest.raises(Broken, match="lost: message"):
        sync_that_never_finished(SYNCS_MAX // 2, lying("no_checkpoint"))
