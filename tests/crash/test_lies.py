"""A worker that is broken on disk, in its subscriptions or in its order is found within so many kills."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .detector import EVERY_TIME, assert_found, chosen
from .lies import LIES, LIES_OF_POWER
from .lies_of_engines import LIES_OF_ENGINES
from .lies_of_mailboxes import LIES_OF_MAILBOXES
from .lies_of_runs import LIES_OF_RUNS
from .lies_of_time import LIES_OF_TIME
from .lies_of_wills import LIES_OF_WILLS
from .load import CONFIGURATION
from .nursery import ForkedWorker, shared_nursery

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("lie", chosen(LIES))
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    assert_found(lie, LIES[lie], tmp_path)


def test_each_kind_that_a_lie_brings_to_light_is_found_every_time() -> None:
    lies = LIES | LIES_OF_MAILBOXES | LIES_OF_TIME
    found = set[str]().union(*(kinds for lie, kinds in lies.items() if lie in EVERY_TIME))
    assert found == set[str]().union(*lies.values())
    others = LIES_OF_RUNS.keys() | LIES_OF_ENGINES.keys() | LIES_OF_WILLS.keys()
    assert lies.keys() | others >= EVERY_TIME


def test_every_lie_takes_what_it_replaces_takes() -> None:
    """Few of them are told in each run: the others would be out of date, and nobody would see it."""
    told = "from tests.crash import lies; [lies.tell(name) for name in lies._TELLERS]"
    ended = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("lie", LIES_OF_POWER)
def test_what_only_a_power_cut_shows_is_a_worker_all_the_same(lie: str, tmp_path: Path) -> None:
    with ForkedWorker(tmp_path, CONFIGURATION, shared_nursery(), lie=lie) as worker:
        bot = worker.session("bot")
        bot.subscribe("news")
        worker.kill()
        worker.start()
        assert bot.hello("bot")["bot"] == "bot"
        assert [row["channel_name"] for row in bot.value("subscriptions")["subscriptions"]] == ["news"]
        worker.close_clients()
