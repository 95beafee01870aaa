"""Errors of the disk at some of the calls: in a commit, at the start, at the end, and in copying the WAL back."""

from __future__ import annotations

import random

import pytest

from .bad_disks import Failure, every_failure, fail_at, why_not
from .rounds import new_seed
from .tracing import COPY, FILES, Point

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Failure(1, Point("fdatasync", FILES, 4), lasting=False), id="a commit's sync"),
        pytest.param(Failure(1, Point("fdatasync", FILES, 8), lasting=True), id="the copying at the end"),
        pytest.param(Failure(0, Point("pread64", FILES, 1), lasting=False), id="the first reading of a new file"),
        pytest.param(Failure(1, Point("pread64", FILES, 1), lasting=False), id="the reading at the start"),
    ],
)
def test_a_worker_whose_disk_reports_an_error_stops_and_loses_nothing(failure: Failure) -> None:
    assert fail_at(failure)["reached"] == 1


def test_a_worker_that_cannot_copy_its_wal_back_stops_and_loses_nothing() -> None:
    failure = Failure(1, Point("pwrite64", COPY, 1), lasting=True)
    counted = fail_at(failure, large=True)
    assert (counted["reached"], counted["unasked"]) == (1, 1)


def test_a_worker_whose_disk_reports_any_error_stops_and_loses_nothing() -> None:
    seed = new_seed()
    print(f"seed {seed}")  # noqa: T201
    fail_at(random.Random(seed).choice(list(every_failure())))
