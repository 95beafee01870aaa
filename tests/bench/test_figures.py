"""What becomes of measurements: that percentiles are right, and that a loss, a repeat and a disorder are seen."""

from __future__ import annotations

import pytest

from bench.figures import Account, Latency, Spread, account, latency, percentile, spread, total


@pytest.mark.parametrize(
    ("values", "percent", "found"),
    [
        ([7], 50, 7),
        ([7], 99, 7),
        ([1, 2], 50, 1),
        ([1, 2], 51, 2),
        (range(1, 101), 50, 50),
        (range(1, 101), 99, 99),
        (range(1, 102), 99, 100),
        (range(1, 101), 100, 100),
        (range(1, 101), 0, 1),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: range | list[int], percent: float, found: int) -> None:
    assert percentile(values, percent) == found


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_latencies_are_summed_up_in_milliseconds() -> None:
    samples = [number * 1_000_000 for number in range(200, 0, -1)]
    assert latency(samples) == Latency(count=200, p50_ms=100.0, p99_ms=198.0, max_ms=200.0)
    assert latency([]) == Latency(count=0, p50_ms=0.0, p99_ms=0.0, max_ms=0.0)


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(median=2.0, lowest=1.0, highest=3.0)
    assert spread([1.0, 2.0]) == Spread(median=1.5, lowest=1.0, highest=2.0)


@pytest.mark.parametrize(
    ("numbers", "delivered", "lost", "repeated", "out_of_order"),
    [
        ([5, 6, 7, 8], 4, 0, 0, 0),
        ([], 0, 4, 0, 0),
        ([5, 6, 8], 3, 1, 0, 0),
        ([6, 7, 8], 3, 1, 0, 0),
        ([5, 6, 7], 3, 1, 0, 0),
        ([5, 7, 6, 8], 4, 0, 0, 1),
        ([8, 7, 6, 5], 4, 0, 0, 3),
        ([5, 6, 5, 6, 7, 8], 4, 0, 2, 0),
        ([5, 5, 7], 2, 2, 1, 0),
        ([4, 5, 6, 7, 8, 9], 4, 0, 0, 0),
    ],
)
def test_an_account_sees_what_is_wrong(
    numbers: list[int], delivered: int, lost: int, repeated: int, out_of_order: int
) -> None:
    found = account(numbers, 5, 8)
    assert found == Account(4, delivered, lost, repeated, out_of_order)
    assert found.is_clean == (lost == 0 and out_of_order == 0)


def test_accounts_add_up() -> None:
    assert total([Account(4, 3, 1, 0, 2), Account(4, 4, 0, 5, 0)]) == Account(8, 7, 1, 5, 2)
    assert total([]) == Account(0, 0, 0, 0, 0)
