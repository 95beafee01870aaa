"""What is next in a queue while something else is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from bus.model.repository import Store
from store.sqlite.file.connection import StoreConnection
from store.sqlite.file.reader import Reader
from store.sqlite.workflows.queueing import find_news

from ..contract.samples import definition, run

pytestmark = pytest.mark.anyio

NOW = "2026-06-01T00:00:00.000000Z"


async def test_of_a_workflow_that_is_deleted_meanwhile_no_run_is_next(store: Store, path: Path) -> None:
    workflows = store.workflows
    await workflows.save_definition(definition("w", concurrency=1))
    await workflows.create_run(run("a"))

    class Deleting:
        """A reader after whose first answer the workflow is deleted."""

        async def execute_fetchall(self, sql: str, parameters: Any) -> list[Any]:
            rows = [*await connection.execute_fetchall(sql, parameters)]
            await workflows.delete_definition("w", cascade=True)
            return rows

    async with StoreConnection(path) as connection:
        [news] = await find_news(cast(Reader, Deleting()), ["a"], NOW)
    assert (news.run_id, news.next_runs) == ("a", ())
