"""Events of runs tell of the runs of all bots: only those hear them who may."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.model.records import WORKER_CHANNELS
from bus.wire.frames import Subscribe

from .house import opened
from .keyed import keyed

pytestmark = pytest.mark.anyio

CONFIGURATION = """
[security.roles.reader]
read = ["all"]
subscribe = ["**"]

[security.roles.watcher]
subscribe = ["posthouse.runs", "posthouse.events", "posthouse.presence"]
"""

BOTS = {"ann": (), "reader": ("reader",), "watcher": ("watcher",)}


@pytest.mark.parametrize("channel", WORKER_CHANNELS)
async def test_the_channel_is_private(tmp_path: Path, channel: str) -> None:
    async with keyed(tmp_path, CONFIGURATION, BOTS) as house:
        for bot in ("ann", "reader"):
            [refused] = await house.say(bot, Subscribe(request=2, channel=channel))
            assert refused["op"] == "error"
        assert channel not in house.core.directory.channels
        assert not house.core.audience.wants(channel)
        [answer] = await house.say("watcher", Subscribe(request=2, channel=channel))
        assert answer["op"] == "ok"
        assert house.core.audience.wants(channel)


async def test_only_who_holds_a_run_or_may_operate_on_it_emits(tmp_path: Path) -> None:
    async with opened(tmp_path) as house:
        fence = await house.held("ann", "r", "digest")
        assert await house.refused("eve", "emit_run", run_id="r", value=1, fence=fence) == "fenced"
        assert await house.refused("eve", "emit_run", run_id="r", value=1) == "not_found"
        assert await house.call("ann", "emit_run", run_id="r", value=1, fence=fence) is False
        assert await house.call("ops", "emit_run", run_id="r", value=1) is False
