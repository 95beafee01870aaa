"""A store that has one of everything, and what can be asked of it wherever it is."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict, replace

from bus.model.budgeting import budgeted
from bus.model.budgets import Budget
from bus.model.keyed import KeyedWrite, ValueState
from bus.model.keys import Key, Purpose
from bus.model.occurrences import IntervalTimes
from bus.model.records import RunStatus, StepStatus
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddDeadLetters,
    AddKey,
    AddPattern,
    AddSecurityEvents,
    AddSubscription,
    DeadLetter,
    MailboxState,
    SaveMailbox,
    SecurityEvent,
    SecurityRequest,
    Store,
    UnsettledState,
)
from bus.model.schedules import WorkflowSchedule

from .samples import ANN, BOB, bot, definition, owned, run, step
from .store.samples import add, at, channel, direct, hold_run, to_channel, work

__all__ = ["LATE", "furnish", "inventory"]

LATE = 600
"""The second at which the delayed message is due."""


async def furnish(store: Store, *, messages: int = 30) -> None:
    """Fill an empty store with one of everything, and with some more messages."""
    await _fill_log(store, messages)
    await _fill_workflows(store)
    await _fill_keyed(store)


async def _fill_log(store: Store, messages: int) -> None:
    log = store.log
    await log.apply(
        [
            *(AddBot(bot(id, name=f"name of {id}")) for id in (ANN, BOB, "eve \N{HONEYBEE}")),
            AddChannel(channel("news")),
            AddSubscription(BOB, "news", at(1), echo=True),
            AddSubscription(ANN, "news", at(1), start_seq=2, group="readers"),
            AddPattern("eve \N{HONEYBEE}", "n*", at(1), start_seq=1, echo=True),
            AddSubscription("eve \N{HONEYBEE}", "news", at(1), 1, echo=True, pattern="n*"),
            AddKey(Key(public_key="k1", bot_id=ANN, created_at=at(0), roles=("plain", "more"), label="a \N{KEY}")),
            AddKey(Key(public_key="k2", bot_id=BOB, purpose=Purpose.ADMIN, created_at=at(0), expires_at=at(500))),
        ]
    )
    await add(log, direct("first", ANN, BOB), to_channel("second", BOB, "news"), second=2)
    await add(
        log,
        direct("first", BOB, ANN, reply_to="second"),  # another sender's, with the same id
        direct("odd", ANN, ANN, message_type="zero \0, escape \x1b", body='"\\u0000 \N{HONEYBEE}"'.encode()),
        direct("external", "eve \N{HONEYBEE}", BOB, tainted=True, headers=b'{"a":"b"}', expires_at=at(900)),
        budgeted(direct("answer", BOB, ANN, reply_to="external"), Budget(4, at(900))),
        direct("urgent", ANN, BOB, priority=1),
        direct("idle", "eve \N{HONEYBEE}", BOB, priority=-1, tainted=True),
        direct("late", ANN, BOB, due_at=at(LATE), priority=-1),
        to_channel("later", BOB, "news", due_at=at(LATE), tainted=True, message_type="\0"),
        second=3,
    )
    for n in range(messages):
        await add(log, direct(f"m{n}", ANN, BOB), to_channel(f"c{n}", BOB, "news"), second=4 + n)
    unsettled = (UnsettledState(1, 2, 1), UnsettledState(3, 1, 0, at(50), 2.5, retried=True, vanished=("x",)))
    event = SecurityEvent(1, at(5), "refused \0", ANN, "k1", "tcp://\x1b", "news", None, 3)
    await log.apply(
        [
            SaveMailbox(MailboxState(BOB, 7, unsettled, {"news": 3}, (9, 11), (4, 5))),
            AddDeadLetters(
                (DeadLetter(BOB, 2, "why \0 not", 5, at(6)), DeadLetter("news/readers", 2, "term", 1, at(6)))
            ),
            AddSecurityEvents((event, SecurityEvent(2, at(6), "came"))),
        ]
    )


async def _fill_workflows(store: Store) -> None:
    workflows = store.workflows
    await hold_run(store, "held")
    await workflows.save_definition(definition("w", description="later", concurrency=2))  # replaces the one before
    await workflows.save_definition(owned("of ann", ANN))
    await workflows.save_schedule(WorkflowSchedule("s", "w", IntervalTimes(seconds=60), input={"n": 1}))
    await workflows.create_run(run("waits", attributes={"kind": "x", "who": "y"}, concurrency_key="k"))
    await workflows.create_run(run("failed", trigger_payload=[1.0, "\N{HONEYBEE}"], context={"a": [None]}))
    await workflows.update_run_status("failed", RunStatus.FAILED, "because \0")
    await workflows.create_run(run("done", parent_run_id="held", started_at=at(9)))
    await workflows.update_run_status("done", RunStatus.COMPLETED, result={"r": 1})
    for id in ("b", "a", "c"):  # created in another order than that of their ids
        await workflows.create_step_log(step(id, "held", input={"of": id}), fence=1)
    await workflows.update_step_status("b", StepStatus.COMPLETED, output=1.0, fence=1)
    await workflows.create_step_log(step("asks", "waits", status=StepStatus.WAITING_APPROVAL))
    await workflows.create_step_log(step("broke", "failed", status=StepStatus.FAILED, error="zero \0"))
    for number in range(3):
        await workflows.send_signal("held", "go", number, id=f"s{2 - number}", sender="eve")
    await workflows.take_signal(step("took", "held"), ["go"], fence=1)
    await store.log.apply([work("commit", ANN, BOB, run_id="held", timestamp=at(40))])


async def _fill_keyed(store: Store) -> None:
    await _write(store, "a", ValueState.JSON, "1", ttl_seconds=3600.0)
    await _write(store, "a", ValueState.JSON, '"\\u0000 \N{HONEYBEE}"')
    await _write(store, "b", ValueState.BYTES, '"AA=="')
    await _write(store, "b", ValueState.DELETED, None)


async def _write(store: Store, key: str, state: ValueState, value: str | None, **fields: Any) -> None:
    id = f"{key} {value}"
    write = KeyedWrite(store="s", key=key, state=state, value=value, id=id, bot_id=ANN, keys_max=10, **fields)
    await store.keyed.write(write)


async def inventory(store: Store) -> dict[str, Any]:
    """Return what a store has, as its ports tell it, in an order that is the same everywhere."""
    workflows, state = store.workflows, await store.log.load()
    lists = {name: sorted(value, key=repr) for name, value in asdict(state).items() if isinstance(value, list)}
    runs = sorted(run.id for run in await workflows.list_all_runs(limit=None))
    messages = await store.log.messages(range(1, state.last_seq + 1))
    return {
        "log": replace(state, **lists),
        "messages": messages,
        "between": await store.messages.get_messages_between(ANN, BOB),
        "dead letters": await store.log.dead_letters(BOB, limit=10),
        "events": await store.log.security_events(SecurityRequest(limit=10)),
        "definitions": await workflows.list_definitions(),
        "runs": await workflows.list_all_runs(limit=None),
        "records": [await workflows.get_run(id) for id in runs],
        "defined by": [await workflows.get_run_definition(id) for id in runs],
        "leases": [await workflows.get_lease(id) for id in runs],
        "steps": [await workflows.list_step_logs(id) for id in runs],
        "signals": [await workflows.list_signals(id) for id in runs],
        "schedules": await workflows.list_schedules(),
        "changes": await store.keyed.list_changes("s", "", after=0, limit=10, bytes_max=1000),
        "last revision": await store.keyed.last_revision(),
        "approvals": await workflows.list_waiting_approvals(),
    }
