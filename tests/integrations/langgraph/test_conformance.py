"""LangGraph's own tests for checkpointers, all of them: with the asynchronous methods, and with the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bus.testing import Worker

from ..extras import needs

needs("langgraph.checkpoint.conformance")

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES
from langgraph.checkpoint.conformance.report import CapabilityReport

from bus.integrations.langgraph import Checkpointer

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[3] / "docs" / "integrations" / "langgraph.md"

TESTS = 81
"""Of all capabilities."""


class InThreads(BaseCheckpointSaver[str]):
    """Calls the synchronous methods of a checkpointer, each in a thread, as LangGraph does in `invoke`."""

    def __init__(self, inner: Checkpointer) -> None:
        super().__init__(serde=inner.serde)
        self.inner = inner

    async def aget_tuple(self, config: Any) -> CheckpointTuple | None:
        return await asyncio.to_thread(self.inner.get_tuple, config)

    async def alist(self, config: Any, **options: Any) -> AsyncIterator[CheckpointTuple]:
        for found in await asyncio.to_thread(lambda: list(self.inner.list(config, **options))):
            yield found

    async def aput(self, *arguments: Any) -> Any:
        return await asyncio.to_thread(self.inner.put, *arguments)

    async def aput_writes(self, *arguments: Any, **options: Any) -> None:
        await asyncio.to_thread(self.inner.put_writes, *arguments, **options)

    async def adelete_thread(self, thread_id: str) -> None:
        await asyncio.to_thread(self.inner.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await asyncio.to_thread(self.inner.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await asyncio.to_thread(self.inner.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await asyncio.to_thread(self.inner.prune, thread_ids, strategy=strategy)


async def report(worker: Worker, name: str, way: Any) -> CapabilityReport:
    @checkpointer_test(name=name)
    async def checkpointers() -> AsyncIterator[BaseCheckpointSaver[str]]:
        async with worker.connect(bot="graphs", max_in_flight=0) as bot:
            yield way(Checkpointer(bot, store=name))

    return await validate(checkpointers)


@pytest.mark.parametrize("way", [lambda checkpointer: checkpointer, InThreads], ids=["async", "sync"])
async def test_the_suite_passes(worker: Worker, way: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = await report(worker, "posthouse", way)
    assert [failure for result in found.results.values() for failure in result.failures] == []
    assert {name for name, result in found.results.items() if result.passed} == {
        each.value for each in ALL_CAPABILITIES
    }
    assert sum(result.tests_passed for result in found.results.values()) == TESTS
    found.print_report()
    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    page = [line.strip() for line in PAGE.read_text(encoding="utf-8").splitlines()]
    assert [line for line in shown if line not in page] == []
