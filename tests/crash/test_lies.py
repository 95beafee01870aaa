"""A worker that is broken on disk, in its subscriptions or in its order is found within so many kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from .detector import assert_found
from .lies import LIES, LIES_OF_POWER
from .load import CONFIGURATION
from .nursery import ForkedWorker, Nursery

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    assert_found(lie, LIES[lie], tmp_path)


@pytest.mark.parametrize("lie", LIES_OF_POWER)
def test_what_only_a_power_cut_shows_is_a_worker_all_the_same(lie: str, tmp_path: Path) -> None:
    with Nursery() as nursery, ForkedWorker(tmp_path, CONFIGURATION, nursery, lie=lie) as worker:
        bot = worker.session("bot")
        bot.subscribe("news")
        worker.kill()
        worker.start()
        assert bot.hello("bot")["bot"] == "bot"
        assert [row["channel_name"] for row in bot.value("subscriptions")["subscriptions"]] == ["news"]
        worker.close_clients()
