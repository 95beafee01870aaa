"""Watching runs at a worker with keys: who may, and that it is not silent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import anyio
import pytest

import bus
from bus.model.records import GlobalOwner, RunStatus, WorkflowDefinition

from .terminal import TIMEOUT_SECONDS, Posthouse
from .test_keys import ADMIN, commands_in, serving

ROLES = """
[workflows]
events = true
[security.roles.clerk]
tap = ["**"]
read = ["all", "channel:posthouse.runs"]
run = ["**"]
define = ["**"]
operate = ["**"]
[security.roles.billing]
publish = ["billing.*"]
read = ["own"]
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posthouse]:
    """The commands beside a running worker with keys, and two bots, of which one may see what happens to runs."""
    folder = tmp_path_factory.mktemp("watched")
    posthouse = commands_in(folder)
    with (folder / "posthouse.toml").open("a", encoding="utf-8") as configuration:
        configuration.write(ROLES)
    with serving(posthouse):
        for bot in ("clerk", "billing"):
            assert posthouse.run("keys", "new", bot, "--role", bot).returncode == 0
        yield posthouse


def work(house: Posthouse, task: Callable[[bus.Bot], Awaitable[Any]]) -> None:
    """Do something as the clerk."""

    async def connected() -> None:
        file = house.directory / "clerk.creds"
        async with bus.connect(credentials=file, max_in_flight=0, timeout=TIMEOUT_SECONDS) as clerk:
            await task(clerk)

    anyio.run(connected)


def created(house: Posthouse, workflow: str, id: str) -> None:
    definition = WorkflowDefinition(id=workflow, name=workflow, owner=GlobalOwner())
    work(house, lambda clerk: clerk.workflows.start(workflow, id=id, definition=definition))


def ended(house: Posthouse, id: str, status: RunStatus) -> None:
    work(house, lambda clerk: clerk.workflows.update_run_status(id, status))


def test_events_of_runs_are_watched_by_who_may_read_them(house: Posthouse) -> None:
    credentials = house.directory / "clerk.creds"
    with house.start("runs", "--watch", "--workflow", "noted", "--credentials", credentials) as watching:
        seen: list[str] = []
        numbers = count()

        def is_heard() -> bool:
            """The worker hears of a listener some time after it began."""
            run_id = f"noted-{next(numbers)}"
            created(house, "noted", run_id)
            ended(house, run_id, RunStatus.FAILED)
            seen.extend(watching.lines_now())
            return bool(seen)

        house.wait_until(is_heard)
        assert seen[0].split()[1] == "run"
        watching.interrupt()
        assert watching.exit_code() == 0


@pytest.mark.parametrize("credentials", [ADMIN, "billing.creds"])
def test_who_may_not_is_told_so_and_does_not_wait_for_ever(house: Posthouse, credentials: str) -> None:
    refused = house.run("runs", "--watch", "--credentials", credentials)
    assert refused.returncode == 77
    assert "may not read the channel 'posthouse.runs', which is private" in refused.stderr
    assert "channel:posthouse.runs" in refused.stderr


def test_a_run_is_watched_by_nobody_who_may_not_see_it(house: Posthouse) -> None:
    created(house, "secret", "secret-1")
    hidden = house.run("run", "secret-1", "--watch", "--credentials", "billing.creds")
    assert (hidden.returncode, "no run 'secret-1'" in hidden.stderr) == (1, True)


@pytest.mark.parametrize("credentials", [ADMIN, "clerk.creds"])
def test_a_run_is_watched_by_who_may_see_it(house: Posthouse, credentials: str) -> None:
    run_id = f"seen-{credentials}"
    created(house, "seen", run_id)
    with house.start("run", run_id, "--watch", "--credentials", house.directory / credentials) as watching:
        assert watching.line().split()[1:] == ["run", run_id, "pending"]
        ended(house, run_id, RunStatus.CANCELLED)
        assert watching.line().split()[1:] == ["run", run_id, "cancelled"]
        assert watching.exit_code() == 1
