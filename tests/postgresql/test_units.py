"""What calls that share a transaction cost, and that each is decided as if it came after the one before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import pytest

from bus.errors import Conflict, Fenced, InvalidTransition, NotFound, OwnershipLost, SlotsTaken, StoreError
from bus.model.openings import RunOpening
from bus.model.records import Claim, RunStatus, StepStatus
from bus.model.repository import StepCreation, StepMove, WorkflowRules
from store.postgresql.server.database import Database, open_database
from store.postgresql.workflows.definitions import UnitCall
from store.postgresql.workflows.events import EventWriting
from store.postgresql.workflows.unit import Needs
from store.postgresql.workflows.workflows import PostgresqlWorkflows
from tests.contract.samples import ANN, definition, run, step

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LATER = "2026-06-01T01:00:00.000000Z"

CALLS = 50

BOUND_SECONDS = 30

Asked = Callable[[], Awaitable[Any]]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
async def database(postgresql_url: str) -> AsyncIterator[Database]:
    async with open_database(postgresql_url) as database:
        yield database


async def no_events(*_: Any) -> None:
    raise AssertionError("nobody listens")


@pytest.fixture
async def workflows(database: Database) -> PostgresqlWorkflows:
    workflows = PostgresqlWorkflows(database, WorkflowRules(), lambda: NOW, EventWriting(no_events))
    await workflows.save_definition(definition("w"))
    await workflows.save_definition(definition("narrow", concurrency=2))
    for number in range(CALLS):
        await workflows.create_run(run(f"r{number}", status=RunStatus.RUNNING))
    return workflows


async def together(database: Database, calls: Sequence[Asked]) -> tuple[list[Any], int]:
    """Make calls in one transaction; return their answers or errors, and the number of their statements."""
    outcomes: list[Any] = [None] * len(calls)
    statements: list[str] = []
    is_busy, go_on = anyio.Event(), anyio.Event()

    def note(query: Any) -> None:
        if "workflow" in query.query:
            statements.append(query.query)

    async def keep_busy(transaction: Any) -> Any:
        is_busy.set()
        await go_on.wait()
        transaction.connection.add_query_logger(note)
        return transaction.connection

    async def hold_up() -> None:
        await database.writer.run(keep_busy)

    async def answer(place: int, call: Asked) -> None:
        try:
            outcomes[place] = await call()
        except StoreError as error:
            outcomes[place] = error

    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold_up)
            await is_busy.wait()
            before = database.writer.transactions
            for place, call in enumerate(calls):
                tasks.start_soon(answer, place, call)
            await anyio.wait_all_tasks_blocked()
            go_on.set()
        assert database.writer.transactions == before + 2, "the one that was held up, and that of all calls"
        connection = await database.writer.run(keep_busy)
        connection.remove_query_logger(note)
    return outcomes, len(statements)


async def cost(database: Database, make: Callable[[int], Asked]) -> tuple[int, int]:
    """Return how many statements one call takes, and many calls in one transaction."""
    alone, one = await together(database, [make(0)])
    outcomes, many = await together(database, [make(number) for number in range(1, CALLS)])
    for outcome in (*alone, *outcomes):
        assert not isinstance(outcome, StoreError), outcome
    return one, many


async def test_calls_that_only_write_step_logs_are_one_statement_to_read_and_one_to_write(
    database: Database, workflows: PostgresqlWorkflows
) -> None:
    """The batch has as many round trips, however many bots and step logs; before, it had five."""
    sent: list[str] = []

    def note(query: Any) -> None:
        sent.append(query.query)

    async def write(bot: str, number: int) -> None:
        mine = workflows.on_behalf_of(bot)
        await mine.create_step_log(step(f"{bot}{number}", f"r{number}", status=StepStatus.RUNNING))

    await write("first", 0)  # for which the driver asks about types
    connection = await database.writer.run(_connection)
    connection.add_query_logger(note)
    await write("second", 0)
    assert len(sent) == 2
    sent.clear()
    before = database.writer.transactions
    with anyio.fail_after(BOUND_SECONDS):
        async with anyio.create_task_group() as tasks:
            for bot in ("ann", "bob"):
                for number in range(CALLS):
                    tasks.start_soon(write, bot, number)
    assert len(sent) == 2 * (database.writer.transactions - before) <= 6
    sent.clear()
    done = [StepMove(f"ann{number}", StepStatus.COMPLETED, number) for number in range(CALLS)]
    *_, refused = await workflows.write_steps([*done, StepMove("none", StepStatus.COMPLETED)])
    assert (len(sent), type(refused)) == (2, NotFound)
    logs = {each.id: each for number in range(CALLS) for each in await workflows.list_step_logs(f"r{number}")}
    assert [logs[f"ann{number}"].output for number in range(CALLS)] == list(range(CALLS))
    assert {logs[f"bob{number}"].status for number in range(CALLS)} == {StepStatus.RUNNING}


async def _connection(transaction: Any) -> Any:
    return transaction.connection


@pytest.mark.parametrize("fence", [None, 1], ids=["stored", "refused"])
async def test_step_logs_are_not_written_by_who_was_replaced(postgresql_url: str, fence: int | None) -> None:
    """What it reads then is not its own, and no answer may come of it."""
    with pytest.raises(OwnershipLost):
        await _write_too_late(postgresql_url, fence)
    async with open_database(postgresql_url) as heir:
        assert [row[0] for row in await heir.read.fetch("SELECT count(*) FROM workflow_steps")] == [0]


async def _write_too_late(url: str, fence: int | None) -> None:
    async with open_database(url) as old:
        workflows = PostgresqlWorkflows(old, WorkflowRules(), lambda: NOW, EventWriting(no_events))
        await workflows.save_definition(definition("w"))
        await workflows.create_run(run("r0"))
        async with open_database(url):
            await workflows.create_step_log(step("a", "r0"), fence=fence)


async def test_many_calls_cost_as_many_statements_as_one(
    database: Database, workflows: PostgresqlWorkflows
) -> None:
    begun, done = StepStatus.RUNNING, StepStatus.COMPLETED
    calls: dict[str, tuple[int, Callable[[int], Asked]]] = {
        "open": (5, lambda n: lambda: workflows.open_run(RunOpening(run_id=f"opened{n}", workflow="w"), ANN)),
        "create": (3, lambda n: lambda: workflows.create_run(run(f"new{n}"))),
        "claim": (3, lambda n: lambda: workflows.claim_run(f"new{n}", ANN)),
        "begin a step": (
            2,
            lambda n: lambda: workflows.create_step_log(step(f"s{n}", f"new{n}", status=begun), fence=1),
        ),
        "end a step": (2, lambda n: lambda: workflows.update_step_status(f"s{n}", done, [n], fence=1)),
        "record a step": (
            2,
            lambda n: lambda: workflows.create_step_log(step(f"t{n}", f"new{n}", status=done, output=n), fence=1),
        ),
        "renew": (2, lambda n: lambda: workflows.renew_run(f"new{n}", 1)),
        "complete": (2, lambda n: lambda: workflows.update_run_status(f"new{n}", RunStatus.COMPLETED, fence=1)),
    }
    costs = {name: await cost(database, make) for name, (_, make) in calls.items()}
    assert costs == {name: (statements, statements) for name, (statements, _) in calls.items()}


async def test_a_refused_call_leaves_nothing_behind(database: Database, workflows: PostgresqlWorkflows) -> None:
    outcomes, _ = await together(
        database,
        [
            lambda: workflows.create_step_log(step("a", "r0", status=StepStatus.RUNNING)),
            lambda: workflows.create_step_log(step("a", "r0", status=StepStatus.RUNNING, input=1)),
            lambda: workflows.create_step_log(step("b", "r0"), fence=7),
            lambda: workflows.update_step_status("a", StepStatus.PENDING),
            lambda: workflows.create_step_log(step("c", "nowhere")),
            lambda: workflows.write_steps(
                [
                    StepCreation(step("d", "r0")),
                    StepMove("d", StepStatus.SKIPPED),
                    StepMove("d", StepStatus.RUNNING),
                ]
            ),
            lambda: workflows.update_step_status("a", StepStatus.COMPLETED, "done"),
        ],
    )
    assert [type(outcome) for outcome in outcomes[1:5]] == [Conflict, Fenced, InvalidTransition, NotFound]
    assert isinstance(outcomes[5][2], InvalidTransition)
    stored = await workflows.list_step_logs("r0")
    assert [(one.id, one.status, one.output) for one in stored] == [
        ("a", "completed", "done"),
        ("d", "skipped", None),
    ]
    assert await workflows.get_step_log("c") is None


async def test_runs_that_are_claimed_together_keep_to_their_slots(
    database: Database, workflows: PostgresqlWorkflows
) -> None:
    ids = [f"n{number}" for number in range(6)]
    for id in ids:
        await workflows.create_run(run(id, "narrow"))
    outcomes, statements = await together(database, [partial(workflows.claim_run, id, ANN) for id in ids])
    assert [isinstance(outcome, Claim) for outcome in outcomes] == [True, True, False, False, False, False]
    assert all(isinstance(outcome, SlotsTaken) for outcome in outcomes[2:])
    assert [outcome.ahead for outcome in outcomes[2:]] == [0, 1, 2, 3]
    await workflows.update_run_status("n0", RunStatus.COMPLETED, fence=1)
    assert await workflows.next_runs() == ["n2"]
    outcomes, many = await together(database, [partial(workflows.claim_run, id, ANN) for id in reversed(ids[2:])])
    assert [isinstance(outcome, Claim) for outcome in outcomes] == [False, False, False, True]
    assert (statements, many) == (4, 4)


async def test_a_takeover_interrupts_what_was_running_and_nothing_after_it(
    database: Database, workflows: PostgresqlWorkflows
) -> None:
    await workflows.create_step_log(step("old", "r1", status=StepStatus.RUNNING))
    await together(
        database,
        [
            lambda: workflows.create_step_log(step("just before", "r1", status=StepStatus.RUNNING)),
            lambda: workflows.claim_run("r1", ANN),
            lambda: workflows.create_step_log(step("new", "r1", status=StepStatus.RUNNING), fence=1),
            lambda: workflows.update_step_status("old", StepStatus.COMPLETED),
        ],
    )
    found = {one.id: (one.status, one.error) for one in await workflows.list_step_logs("r1")}
    assert found == {
        "old": ("failed", "interrupted"),
        "just before": ("failed", "interrupted"),
        "new": ("running", None),
    }


async def test_a_whole_run_in_one_transaction(database: Database, workflows: PostgresqlWorkflows) -> None:
    outcomes, _ = await together(
        database,
        [
            lambda: workflows.create_run(run("x", "narrow")),
            lambda: workflows.claim_run("x", ANN),
            lambda: workflows.send_signal("x", "paid", 5, id="1"),
            lambda: workflows.take_signal(step("wait", "x"), ["paid"], fence=1),
            lambda: workflows.send_signal("x", "paid", 5, id="1"),
            lambda: workflows.create_step_log(step("s", "x", status=StepStatus.RUNNING), fence=1),
            lambda: workflows.update_step_status("s", StepStatus.COMPLETED, {"n": 1}, fence=1),
            lambda: workflows.update_run_status("x", RunStatus.COMPLETED, context={"n": 1}, fence=1, result=2),
            lambda: workflows.update_step_status("s", StepStatus.FAILED, fence=1),
        ],
    )
    assert isinstance(outcomes.pop(), InvalidTransition)
    assert [outcome for outcome in outcomes if isinstance(outcome, StoreError)] == []
    assert await workflows.get_run("x") == outcomes[7]
    assert outcomes[7].result == 2
    assert await workflows.get_completed_step_ids("x") == ["wait", "s"]
    assert (await workflows.list_step_logs("x"))[0].output["payload"] == 5
    assert await workflows.list_signals("x") == []


async def test_calls_that_use_the_tables_themselves_see_what_came_before_and_are_seen(
    database: Database, workflows: PostgresqlWorkflows
) -> None:
    await workflows.claim_run("r0", ANN, cleans_up=True)
    await workflows.create_run(run("child", parent_run_id="r0"))
    outcomes, _ = await together(
        database,
        [
            lambda: workflows.create_run(run("other child", parent_run_id="r0"), fence=1),
            lambda: workflows.create_step_log(step("s", "r0", status=StepStatus.RUNNING), fence=1),
            lambda: workflows.cancel_run("r0", "too late"),
            lambda: workflows.renew_run("r0", 1),
            lambda: workflows.fork_run("r0", "fork"),
            lambda: workflows.update_step_status("s", StepStatus.COMPLETED, fence=1),
            lambda: workflows.update_run_status("r0", RunStatus.CANCELLED, fence=1),
            lambda: workflows.delete_run("other child"),
            lambda: workflows.retry_run("r0"),
        ],
    )
    assert isinstance(outcomes.pop(), InvalidTransition)
    assert [outcome for outcome in outcomes if isinstance(outcome, StoreError)] == []
    assert outcomes[3].cancel_by == outcomes[2].cancel_by is not None
    children = [await workflows.get_run(id) for id in ("child", "other child")]
    assert [child and child.status for child in children] == [RunStatus.CANCELLED, None]
    assert [one.id for one in await workflows.list_step_logs("fork")] == []
    assert await workflows.get_completed_step_ids("r0") == ["s"]


async def test_an_error_may_have_a_character_that_the_server_stores_in_no_text(
    workflows: PostgresqlWorkflows,
) -> None:
    await workflows.create_step_log(step("s", "r0", status=StepStatus.RUNNING))
    await workflows.update_step_status("s", StepStatus.FAILED, error="\0 is no text")
    await workflows.update_run_status("r0", RunStatus.FAILED, "it said \0")
    found, stored = await workflows.get_step_log("s"), await workflows.get_run("r0")
    assert found is not None
    assert stored is not None
    assert (found.error, stored.error) == ("\0 is no text", "it said \0")
    assert await workflows.get_run("\0") is None


async def test_no_index_is_written_when_a_step_ends_or_a_lease_is_renewed(
    database: Database, workflows: PostgresqlWorkflows
) -> None:
    await workflows.claim_run("r0", ANN)
    await workflows.create_step_log(step("s", "r0", status=StepStatus.RUNNING), fence=1)
    end = StepMove("s", StepStatus.COMPLETED, "done", fence=1)

    async def operation(transaction: Any) -> list[Any]:
        outcomes = await workflows.carry_out(
            transaction,
            [
                UnitCall(lambda unit: workflows.steps.write(unit, end), Needs(), settles=False),
                UnitCall(lambda unit: workflows.runs.renew(unit, "r0", 1, LATER), Needs(), settles=False),
            ],
        )
        assert not any(isinstance(outcome, StoreError) for outcome in outcomes)
        rows: list[Any] = await transaction.connection.fetch(
            "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_xact_user_tables"
            " WHERE relname IN ('workflow_runs', 'workflow_steps') ORDER BY relname"
        )
        return rows

    for table, updated, in_place in await database.writer.run(operation):
        assert updated == in_place > 0, table
