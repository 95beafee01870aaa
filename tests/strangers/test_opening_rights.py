"""Opening runs that are not one's own, and workflows that are not to be seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bus.model.openings import RunOpening
from bus.model.records import BotOwner, GlobalOwner, Owner, WorkflowDefinition

from .house import House, opened

pytestmark = pytest.mark.anyio


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path) as house:
        yield house


def opening(workflow: str, run_id: str = "r", **fields: Any) -> RunOpening:
    return RunOpening(run_id=run_id, workflow=workflow, **fields)


async def test_a_run_that_a_bot_opens_is_its_own(house: House) -> None:
    found = await house.call("ann", "open_run", opening=opening("digest", input=1))
    assert (found["claim"]["fence"], found["created"], found["definition"]["id"]) == (1, True, "id-digest")
    [owners] = (await house.store.workflows.owners_of(["r"])).values()
    assert (owners.created_by, owners.holder) == (house.principal("ann").bot_id,) * 2
    await house.call("ann", "release_run", run_id="r", fence=1)
    again = await house.call("ann", "open_run", opening=opening("id-digest", input=1))
    assert (again["claim"]["fence"], again["created"]) == (2, False)


async def test_a_run_is_opened_by_who_may_claim_it(house: House) -> None:
    fence = await house.held("ann", "r", "digest")
    await house.call("ann", "release_run", run_id="r", fence=fence)
    for bot in ("eve", "deployer"):
        assert await house.refused(bot, "open_run", opening=opening("digest")) == "not_found"
    assert await house.refused("ops", "open_run", opening=opening("digest", "never")) == "forbidden"
    assert await house.refused("ops", "open_run", opening=opening("digest")) == "forbidden"
    assert (await house.call("ann", "get_run", run_id="r"))["status"] == "pending"
    await house.held("deployer", "d", "deploy-web")
    assert await house.refused("approver", "open_run", opening=opening("deploy-web", "d")) == "forbidden"


async def test_a_run_is_created_of_what_a_bot_may_run(house: House) -> None:
    for bot, workflow in (("eve", "annals"), ("eve", "id-annals"), ("deployer", "digest"), ("deployer", "none")):
        assert await house.refused(bot, "open_run", opening=opening(workflow)) == "not_found"
    for bot, owner in (("ann", GlobalOwner()), ("eve", BotOwner(bot_id=house.principal("ann").bot_id))):
        given = annals(owner)
        assert await house.refused(bot, "open_run", opening=opening("annals", definition=given)) == "not_found"
    assert await house.call("ops", "list_all_runs") == []
    found = await house.call("ann", "open_run", opening=opening("annals"))
    assert found["claim"]["run"]["workflow_id"] == "id-annals"
    assert (await house.call("deployer", "open_run", opening=opening("deploy-web", "d")))["created"]


def annals(owner: Owner) -> WorkflowDefinition:
    return WorkflowDefinition(id="id-annals", name="annals", owner=owner)


async def test_a_run_is_opened_for_the_bot_itself(house: House) -> None:
    assert await house.refused("ann", "open_run", opening=opening("digest"), holder="eve") == "forbidden"
    assert (await house.call("ann", "open_run", opening=opening("digest"), holder="ann"))["created"]


async def test_a_run_that_another_bot_creates_meanwhile_is_not_taken(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflows = house.store.workflows
    find = workflows.get_definition_by_name

    async def slow(name: str, owner: Owner) -> WorkflowDefinition | None:
        if await workflows.get_run("r") is None:
            fence = await house.held("ann", "r", "digest")
            await house.call("ann", "release_run", run_id="r", fence=fence)
        return await find(name, owner)

    monkeypatch.setattr(workflows, "get_definition_by_name", slow)
    assert await house.refused("eve", "open_run", opening=opening("digest")) == "not_found"
    assert await house.call("ann", "get_lease", run_id="r") is None
    assert (await house.call("ann", "claim_run", run_id="r"))["fence"] == 2
