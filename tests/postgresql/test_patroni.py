"""The cluster of the guide, whose leader is lost. `make crash-patroni` breaks it in every other way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from store.postgresql.server.database import open_database

from .patroni import Patroni, missing, patroni
from .writing import adding, channels

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.fixture
def cluster() -> Iterator[Patroni]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with patroni() as started:
        yield started


async def test_what_was_answered_survives_the_leader(cluster: Patroni) -> None:
    async with open_database(cluster.url) as database:
        assert database.warnings == []
        await database.writer.run(adding("a"))
        leader, standby = cluster.leader(), cluster.standby()
        leader.kill()
        assert await database.writer.run(adding("b")) == 2
        assert await channels(database) == ["a", "b"]
        assert cluster.leader() is standby
        assert standby.query("SELECT current_setting('synchronous_standby_names') <> ''") == ["t"]
