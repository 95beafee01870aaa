"""Keyed stores with keys: who may read and write which."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.wire.frames import Commit, Subscribe, ToChannel
from bus.wire.sending_frames import CommittedValue

from ..pure.worker import published
from .house import House, opened

pytestmark = pytest.mark.anyio

COMMIT = "00000000-0000-4000-8000-%012d"

READS: dict[str, dict[str, Any]] = {
    "kv_get": {"key": "a"},
    "kv_list": {},
    "kv_changes": {"after": 0, "wake": True},
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


async def test_members_share_all_stores(house: House) -> None:
    assert (await house.call("ann", "kv_put", kv="config", key="a", value=1, id="1"))["revision"] == 1
    assert (await house.call("eve", "kv_get", kv="config", key="a"))["value"] == 1
    assert (await house.call("eve", "kv_delete", kv="config", key="a", id="1"))["revision"] == 2


async def test_a_role_reads_and_writes_what_it_names(house: House) -> None:
    await house.call("ann", "kv_put", kv="config", key="a", value=1, id="1")
    assert (await house.call("reader", "kv_get", kv="config", key="a"))["value"] == 1
    for kv in ("config", "reader", "eve.own"):
        assert await house.refused("reader", "kv_put", kv=kv, key="b", value=2, id="put") == "forbidden"
        assert await house.refused("reader", "kv_delete", kv=kv, key="b", id="delete") == "forbidden"
    assert (await house.call("reader", "kv_put", kv="reader.own", key="b", value=2, id="put"))["revision"] == 2
    assert (await house.call("reader", "kv_delete", kv="reader.own", key="b", id="delete"))["revision"] == 3
    for name, arguments in READS.items():
        assert await house.refused("reader", name, kv="other", **arguments) == "forbidden"
        assert await house.refused("reader", name, kv="eve.own", **arguments) == "forbidden"
        await house.call("reader", name, kv="reader.own", **arguments)
    answer = await house.call("reader", "kv_get", kv="other", key="a")
    assert answer["details"]["action"] == "read"
    assert answer["details"]["object"] == "kv:other"


async def test_a_role_sees_the_stores_that_it_may_read(house: House) -> None:
    for number, kv in enumerate(("config", "eve.own", "other", "reader.a", "reader.b")):
        await house.call("ann", "kv_put", kv=kv, key="a", value=1, id=str(number))
    assert (await house.call("reader", "kv_stores"))["stores"] == ["config", "reader.a", "reader.b"]
    page = await house.call("reader", "kv_stores", limit=1)
    assert page == {"stores": ["config"], "more": True}
    page = await house.call("reader", "kv_stores", limit=2, after="config")
    assert page == {"stores": ["reader.a", "reader.b"], "more": False}
    assert (await house.call("deployer", "kv_stores"))["stores"] == []


async def test_who_reads_all_writes_nothing(house: House) -> None:
    await house.call("ann", "kv_put", kv="config", key="a", value=1, id="1")
    assert (await house.call("ops", "kv_get", kv="config", key="a"))["value"] == 1
    assert await house.refused("ops", "kv_put", kv="config", key="a", value=2, id="2") == "forbidden"


async def test_a_role_without_a_rule_has_no_store(house: House) -> None:
    assert await house.refused("deployer", "kv_get", kv="config", key="a") == "forbidden"
    assert await house.refused("deployer", "kv_put", kv="config", key="a", value=1, id="1") == "forbidden"


async def test_a_commit_writes_only_where_its_bot_may(house: House) -> None:
    values = [CommittedValue(store=store, key="a", value=msgspec.Raw(b"1")) for store in ("reader.own", "config")]
    [refused] = await house.say(
        "reader", Commit(request=5, id="00000000-0000-4000-8000-000000000001", values=values)
    )
    assert refused["code"] == "forbidden"
    assert refused["details"]["object"] == "config"
    [done] = await house.say(
        "reader", Commit(request=6, id="00000000-0000-4000-8000-000000000002", values=values[:1])
    )
    assert done["op"] == "ok"
    assert (await house.call("reader", "kv_get", kv="reader.own", key="a"))["value"] == 1
    assert await house.call("ann", "kv_get", kv="config", key="a") is None


async def test_who_may_read_a_channel_reads_its_last_value(house: House) -> None:
    await house.say("ann", published(ToChannel("news"), retain=True))
    for bot in ("ann", "eve", "ops"):
        assert (await house.call(bot, "retained", channel="news"))["body"] == 1
    assert await house.refused("reader", "retained", channel="news") == "forbidden"
    assert (await house.call("reader", "retained", channel="news"))["details"]["object"] == "channel:news"
    [refused] = await house.say("reader", Subscribe(request=5, channel="news", retained=True))
    assert refused["code"] == "forbidden"
    [subscribed] = await house.say("eve", Subscribe(request=5, channel="news", retained=True))
    assert subscribed["value"]["retained"]["body"] == 1


async def test_who_may_not_publish_retains_nothing(house: House) -> None:
    await house.say("ann", published(ToChannel("news"), retain=True))
    [refused] = await house.say("reader", published(ToChannel("news"), retain=True, body=msgspec.Raw(b"2")))
    assert refused["errors"][0]["code"] == "forbidden"
    assert (await house.call("ann", "retained", channel="news"))["body"] == 1
