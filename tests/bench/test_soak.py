"""The soak: a run of seconds completes, and what it makes of samples and accounts.

Nothing here looks at how long anything took, or at how much memory a run of seconds needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.figures import Account
from bench.soak import Sample, Verdict, judge, read_samples, slope_mib_an_hour
from bench.soaking import Tally

ROOT = Path(__file__).parents[2]

TIMEOUT_SECONDS = 100.0
"""The longest that the run may take: it is about ten seconds, and an end is needed all the same."""

CLEAN = Account(due=1000, delivered=1000, lost=0, repeated=3, out_of_order=1)
MIB = 2**20


def samples(*rss_mib: float, every: float = 60.0) -> list[Sample]:
    """Return samples of a worker whose memory was as given, a minute apart."""
    return [
        Sample(
            seconds=number * every,
            rss_bytes=int(each * MIB),
            pss_bytes=int(each * MIB),
            anonymous_bytes=int(each * MIB),
            database_bytes=0,
            wal_bytes=number,
            processor_seconds=0.0,
            published=0,
            delivered=0,
            returns=0,
            questions=0,
        )
        for number, each in enumerate(rss_mib)
    ]


def verdict(found: list[Sample], account: Account = CLEAN, *, doubled: int = 0, is_sound: bool = True) -> Verdict:
    return judge(found, account, doubled=doubled, is_sound=is_sound, slope_max=1.0)


# ── A run ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/PID/smaps_rollup")
def test_a_run_of_seconds_loses_nothing_and_says_what_it_saw(tmp_path: Path) -> None:
    out = tmp_path / "soak.jsonl"
    options = ["--seconds", "6", "--every", "0.5", "--keep", "50", "--sweep", "1", "--slope-max", "1e9"]
    ended = subprocess.run(
        [sys.executable, "-m", "bench.soak", *options, "--out", str(out)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert ended.stdout.endswith("passed\n")
    text = out.read_text(encoding="utf-8")
    found = read_samples(text)
    assert len(found) >= 2
    assert all(sample.rss_bytes >= sample.anonymous_bytes > 0 for sample in found)
    assert found[-1].published > 0
    assert found[-1].returns > 0
    assert json.loads(text.splitlines()[0])["soak"]["versions"]["sqlite"]
    told = json.loads(text.splitlines()[-1])["verdict"]
    assert told["account"]["due"] > 0
    assert (told["account"]["lost"], told["doubled"], told["is_sound"]) == (0, 0, True)


# ── The verdict ──────────────────────────────────────────────────────────────────────────────────────────


def test_memory_that_stays_passes() -> None:
    found = verdict(samples(*[100.0, 100.3] * 60))
    assert found.faults == []
    assert abs(found.slope_mib_an_hour) < 1


def test_memory_that_grows_to_the_end_fails() -> None:
    found = verdict(samples(*(100 + minute * 94 / 60 for minute in range(120))))
    assert found.slope_mib_an_hour == pytest.approx(94, abs=0.01)
    assert found.faults == ["memory grew by 94.00 MiB an hour at the end"]


def test_memory_that_grows_at_first_only_passes() -> None:
    assert verdict(samples(*[50.0 + minute for minute in range(50)], *[100.0] * 70)).faults == []


def test_growth_of_just_more_than_the_limit_fails_and_of_less_passes() -> None:
    assert verdict(samples(*(100 + minute * 1.1 / 60 for minute in range(120)))).faults
    assert not verdict(samples(*(100 + minute * 0.9 / 60 for minute in range(120)))).faults


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (verdict(samples(*[100.0] * 60), Account(1000, 998, 2, 0, 0)), "2 messages were lost"),
        (verdict(samples(*[100.0] * 60), doubled=1), "1 messages were stored twice"),
        (verdict(samples(*[100.0] * 60), is_sound=False), "the database is damaged"),
    ],
    ids=["lost", "stored twice", "damaged"],
)
def test_what_is_not_as_promised_fails(found: Verdict, fault: str) -> None:
    assert found.faults == [fault]


def test_a_slope_is_that_of_the_line_that_fits_best() -> None:
    assert slope_mib_an_hour(samples(10, 12, 11, 13, 12, 14, 13, 15)) == pytest.approx(60 * 24 / 42)


def test_samples_are_read_from_a_file_that_was_broken_off(tmp_path: Path) -> None:
    sample = json.dumps({"sample": dict.fromkeys(Sample.__struct_fields__, 1)})
    assert len(read_samples(f'{{"soak":{{}}}}\n{sample}\n{sample}\n{sample[:20]}')) == 2


# ── The account ──────────────────────────────────────────────────────────────────────────────────────────


def tally(*deliveries: tuple[int, int]) -> Tally:
    """Return what is counted of deliveries, each a number and a seq."""
    counted = Tally()
    for number, seq in deliveries:
        counted.add(number, seq)
    return counted


def test_what_came_in_any_order_is_counted_once() -> None:
    assert tally((1, 10), (3, 12), (2, 11), (3, 12)).account(3) == Account(
        due=3, delivered=3, lost=0, repeated=1, out_of_order=1
    )


def test_what_did_not_come_is_lost() -> None:
    assert tally((1, 10), (3, 12)).account(4).lost == 2


def test_a_message_with_a_second_seq_was_stored_twice() -> None:
    assert tally((1, 10), (2, 11), (1, 10)).doubled == 0
    assert tally((1, 10), (2, 11), (1, 12)).doubled == 1
