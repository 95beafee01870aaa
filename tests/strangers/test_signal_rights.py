"""Signals and children: who may send them to runs of others, take them, and start runs for other runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bus.model.records import NewSignal, RunStatus, WorkflowStepLog
from bus.wire.frames import Commit

from .house import House, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


def wait(id: str = "t") -> WorkflowStepLog:
    return WorkflowStepLog(id=id, run_id="r", step_id="paid", step_name="paid")


async def commit(house: House, bot: str, number: int, run_id: str = "r") -> dict[str, Any]:
    """Let a bot send a signal in a commit; return the answer."""
    signal = NewSignal(id=f"s{number}", run_id=run_id, name="paid")
    id = f"00000000-0000-4000-8000-{number:012}"
    [answer] = await house.say(bot, Commit(request=number, id=id, signals=[signal]))
    return answer


async def test_a_signal_needs_the_right_and_names_its_sender(house: House) -> None:
    await house.held("deployer", "r", "deploy-web")
    signal = {"run_id": "r", "name": "paid", "payload": 1}
    sent = await house.call("signaller", "send_signal", **signal, id="a")
    assert sent["sender"] == "signaller"
    assert (await house.call("signaller", "send_signal", **signal, id="b", sender="signaller"))["id"] == "b"
    assert await house.refused("signaller", "send_signal", **signal, sender="deployer") == "forbidden"
    assert await house.refused("approver", "send_signal", **signal) == "forbidden", "it sees the run"
    assert await house.refused("eve", "send_signal", **signal) == "not_found"
    assert await house.refused("ops", "send_signal", **{**signal, "run_id": "never"}) == "not_found"
    assert (await house.call("ops", "send_signal", **signal))["sender"] == "ops"
    assert await house.call("signaller", "get_run", run_id="r") is None, "to send is not to read"
    assert await house.call("signaller", "list_signals", run_id="r") == []
    assert len(await house.call("deployer", "list_signals", run_id="r")) == 3


async def test_own_runs_are_those_that_a_bot_created_or_held(house: House) -> None:
    await house.call("ann", "create_run", run=house.run("r", "digest"))
    assert (await house.call("ann", "send_signal", run_id="r", name="paid"))["sender"] == "ann"
    await house.held("ann", "q", "annals")
    assert await house.refused("eve", "send_signal", run_id="q", name="paid") == "not_found"


async def test_a_signal_in_a_commit_needs_the_same_right(house: House) -> None:
    await house.held("deployer", "r", "deploy-web")
    assert (await commit(house, "signaller", 1))["op"] == "ok"
    refused = await commit(house, "approver", 2)
    assert (refused["code"], refused["details"]["action"]) == ("forbidden", "signal")
    assert (await commit(house, "eve", 3))["code"] == "not_found"
    assert (await commit(house, "ops", 4, "never"))["code"] == "not_found"
    [signal] = await house.call("deployer", "list_signals", run_id="r")
    assert (signal["id"], signal["sender"]) == ("s1", "signaller")


async def test_only_the_holder_takes_a_signal(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    await house.call("ops", "send_signal", run_id="r", name="paid", id="a")
    take = {"step": wait(), "names": ["paid"]}
    assert await house.refused("ops", "take_signal", **take, fence=fence) == "fenced"
    assert await house.refused("eve", "take_signal", **take) == "not_found"
    taken = await house.call("ann", "take_signal", **take, fence=fence)
    assert (taken["status"], taken["output"]["id"]) == ("completed", "a")
    await house.call("ops", "send_signal", run_id="r", name="paid", id="b")
    assert (await house.call("ops", "take_signal", step=wait("u"), names=["paid"]))["output"]["id"] == "b"


async def test_a_child_is_created_by_the_holder_of_its_parent(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    child = msgspec.structs.replace(house.run("c", "digest"), parent_run_id="r")
    assert await house.refused("eve", "create_run", run=child, fence=fence) == "fenced"
    assert await house.refused("eve", "create_run", run=child) == "not_found"
    orphan = house.run("c", "digest")
    assert await house.refused("ann", "create_run", run=orphan, fence=fence) == "bad_request"
    assert (await house.call("ann", "create_run", run=child, fence=fence))["parent_run_id"] == "r"
    assert (await house.call("ann", "create_run", run=child, fence=fence))["id"] == "c", "a repeat"
    other = msgspec.structs.replace(child, id="d")
    assert (await house.call("ops", "create_run", run=other)).get("code") == "forbidden", "ops may not run"


async def test_a_child_in_a_commit_needs_the_right_to_create_it(house: House) -> None:
    fence = await house.held("deployer", "r", "deploy-web")

    async def start(number: int, workflow: str, **fields: Any) -> Any:
        run = msgspec.structs.replace(house.run(f"c{number}", workflow), **{"parent_run_id": "r", **fields})
        id = f"00000000-0000-4000-8000-{number:012}"
        frame = Commit(request=number, id=id, run_id="r", fence=fence, runs=[run])
        [answer] = await house.say("deployer", frame)
        return answer.get("code")

    assert await start(1, "digest") == "not_found"
    assert await start(2, "deploy-web", workflow_name="digest") == "not_found"
    assert await start(3, "deploy-web", parent_run_id="q") == "bad_request"
    assert await start(4, "deploy-web", status="completed") == "bad_request"
    assert await start(5, "deploy-web") is None
    assert [run["id"] for run in await house.call("deployer", "list_runs", workflow_id="id-deploy-web")] == [
        "c5",
        "r",
    ]
    assert (await house.call("deployer", "claim_run", run_id="c5"))["fence"] == 1, "it created it"


async def test_a_successor_belongs_to_the_bot_that_created_the_run_before_it(house: House) -> None:
    await house.call("deployer", "create_run", run=house.run("r", "deploy-web"))
    fence = (await house.call("operator", "claim_run", run_id="r"))["fence"]
    await house.call("signaller", "send_signal", run_id="r", name="paid", id="s")
    fields = {"parent_run_id": "r", "trigger_type": "continued"}
    successor = msgspec.structs.replace(house.run("r~2", "deploy-web"), **fields)

    async def go_on(number: int, status: RunStatus | None) -> dict[str, Any]:
        id = f"00000000-0000-4000-8000-{number:012}"
        frame = Commit(request=number, id=id, run_id="r", fence=fence, runs=[successor], status=status)
        [answer] = await house.say("operator", frame)
        return answer

    assert (await go_on(1, None))["op"] == "ok", "a client that continues without an end"
    await house.call("signaller", "send_signal", run_id="r", name="paid", id="t")
    await house.call("signaller", "send_signal", run_id="r~2", name="paid", id="t")
    assert (await go_on(2, RunStatus.COMPLETED))["op"] == "ok"
    signals = await house.call("ops", "list_signals", run_id="r~2")
    assert [signal["id"] for signal in signals] == ["s", "t"], "each once"
    assert (await house.call("operator", "get_latest_run", run_id="r"))["id"] == "r~2"
    assert await house.call("eve", "get_latest_run", run_id="r") is None
    owners = (await house.store.workflows.owners_of(["r~2"]))["r~2"]
    assert owners.created_by == house.principal("deployer").bot_id


async def test_a_successor_of_a_run_that_is_to_be_cancelled_is_cancelled(house: House) -> None:
    await house.call("operator", "create_run", run=house.run("r", "deploy-web"))
    fence = (await house.call("operator", "claim_run", run_id="r", cleans_up=True))["fence"]
    assert (await house.call("operator", "cancel_run", run_id="r", reason="late"))["status"] == "running"
    fields = {"parent_run_id": "r", "trigger_type": "continued"}
    successor = msgspec.structs.replace(house.run("r~2", "deploy-web"), **fields)
    id = "00000000-0000-4000-8000-000000000001"
    frame = Commit(request=1, id=id, run_id="r", fence=fence, runs=[successor], status=RunStatus.COMPLETED)
    [answer] = await house.say("operator", frame)
    assert answer["op"] == "ok", "its program was not told in time"
    latest = await house.call("operator", "get_run", run_id="r~2")
    assert (latest["status"], latest["error"]) == ("cancelled", "late")
