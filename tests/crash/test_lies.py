"""A broken worker is found: each lie, by kills under load and the checker, in a bounded number of rounds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .kills import kills
from .lies import LIES, LIES_OF_POWER
from .load import CONFIGURATION
from .nursery import ForkedWorker, Nursery

pytestmark = pytest.mark.timeout(300)

ROUNDS_MAX = 200
ROUNDS_A_FILE = 5


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # noqa: T201
    with Nursery(lie=lie) as nursery:
        for outcome in kills(tmp_path, nursery, seed=seed, rounds_a_file=ROUNDS_A_FILE):
            found = {kind for _, verdict in outcome.broken for kind in verdict.kinds}
            if found & LIES[lie]:
                return
            assert outcome.rounds < ROUNDS_MAX, f"{outcome.rounds} kills did not bring {lie} to light, but {found}"


@pytest.mark.parametrize("lie", LIES_OF_POWER)
def test_what_only_a_power_cut_shows_is_a_worker_all_the_same(lie: str, tmp_path: Path) -> None:
    with Nursery(lie=lie) as nursery, ForkedWorker(tmp_path, CONFIGURATION, nursery) as worker:
        bot = worker.session("bot")
        bot.subscribe("news")
        worker.kill()
        worker.start()
        assert bot.hello("bot")["bot"] == "bot"
        assert [row["channel_name"] for row in bot.value("subscriptions")["subscriptions"]] == ["news"]
        worker.close_clients()
