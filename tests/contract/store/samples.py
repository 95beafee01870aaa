"""Messages, page requests, commits and runs to begin with: valid, and as short as can be."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

import msgspec

from bus.model.records import BotRecord, Channel, GlobalOwner, RunStatus, WorkflowDefinition, WorkflowRun
from bus.model.repository import (
    Added,
    AddMessages,
    CommitWork,
    LogMessage,
    MessageLog,
    NewMessage,
    Outcome,
    PageRequest,
    Released,
    ReleaseDue,
    Store,
    StoredLot,
    each,
    lots_of,
)

SEQ_MAX = 2**62


def at(second: int) -> str:
    """A time in the stored form, ordered by its argument."""
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000000Z"


def bot(id: str) -> BotRecord:
    return BotRecord(id=id, name=f"name of {id}", created_at=at(0), last_seen_at=at(0))


def channel(name: str) -> Channel:
    return Channel(name=name, created_at=at(0), created_by_bot_id="ann")


def direct(id: str, sender: str, recipient: str, **fields: Any) -> NewMessage:
    return _message(id, sender, recipient_bot_id=recipient, **fields)


def to_channel(id: str, sender: str, name: str, **fields: Any) -> NewMessage:
    return _message(id, sender, recipient_channel=name, **fields)


def _message(id: str, sender: str, **fields: Any) -> NewMessage:
    defaults: dict[str, Any] = {
        "recipient_bot_id": None,
        "recipient_channel": None,
        "message_type": "note",
        "body": b'{"n":1}',
        "reply_to": None,
        "headers": b"{}",
    }
    return NewMessage(**{"id": id, "sender_bot_id": sender, "sender_bot_name": sender, **defaults, **fields})


async def add(log: MessageLog, *messages: NewMessage, second: int = 0) -> list[Added]:
    [outcomes] = (await log.apply([AddMessages(lots_of(messages), at(second))])).answers
    return added(messages, outcomes)


def added(messages: Iterable[NewMessage], outcomes: Iterable[Outcome]) -> list[Added]:
    """Return what became of each message, of the outcomes of their lots."""
    return [one for lot, outcome in zip(lots_of(messages), outcomes, strict=True) for one in each(lot, outcome)]


async def release(log: MessageLog, second: int, messages_max: int = 10) -> Released:
    [released] = (await log.apply([ReleaseDue(at(second), messages_max)])).answers
    assert isinstance(released, Released)
    return released


def page(bot_id: str, *sources: tuple[str, int], skip_own: Collection[str] = (), **fields: Any) -> PageRequest:
    """Ask for a page; `skip_own` names the sources of which the bot's own messages are left out."""
    whole = tuple((source, after_seq, source in skip_own) for source, after_seq in sources)
    defaults: dict[str, Any] = {
        "seqs": (),
        "through_seq": SEQ_MAX,
        "messages_max": 100,
        "bytes_max": 1_000_000,
    }
    return PageRequest(**{"mailbox_id": bot_id, "sources": whole, **defaults, **fields})


class ReadPage(NamedTuple):
    """A page, message by message."""

    recalled: list[LogMessage]
    messages: list[LogMessage]
    complete: bool
    damaged: tuple[int, ...]


async def read_page(log: MessageLog, request: PageRequest) -> ReadPage:
    found = await log.read_page(request)
    return ReadPage(_messages(found.recalled), _messages(found.messages), found.complete, found.damaged)


def _messages(stored: Iterable[StoredLot]) -> list[LogMessage]:
    return [
        LogMessage(**msgspec.structs.asdict(message), seq=seq, timestamp=lot.timestamp)
        for lot in stored
        for seq, message in zip(lot.seqs, lot.lot.messages(), strict=True)
    ]


# ── Runs ─────────────────────────────────────────────────────────────────────────────────────────────────


def work(id: str, *recipients: str, run_id: str | None = None, **fields: Any) -> CommitWork:
    """A commit that sends one message to each recipient, for a run or for none."""
    defaults = CommitWork(
        id=id,
        bot_id="ann",
        digest="of its contents",
        run_id=run_id,
        fence=None if run_id is None else 1,
        steps=[],
        status=None,
        error=None,
        context=None,
        lots=lots_of(direct(f"{id} to {recipient}", "ann", recipient) for recipient in recipients),
        channels=[],
        known_only=False,
        timestamp=at(0),
        number=1,
    )
    return msgspec.structs.replace(defaults, **fields)


async def hold_run(store: Store, id: str) -> None:
    """Let a run of the workflow w be held, with the fence 1."""
    await store.workflows.save_definition(WorkflowDefinition(id="w", name="w", owner=GlobalOwner()))
    run = WorkflowRun(id=id, workflow_id="w", workflow_name="w", trigger_type="manual", started_at=at(0))
    await store.workflows.create_run(run)
    await store.workflows.claim_run(id, "ann")


async def fill_runs(
    store: Store, workflow: str, *ids: str, first: int = 0, status: RunStatus = RunStatus.COMPLETED
) -> None:
    """Create runs that ended one after the other, a second apart."""
    definition = WorkflowDefinition(id=workflow, name=workflow, owner=GlobalOwner())
    await store.workflows.save_definition(definition)
    for number, id in enumerate(ids):
        await store.workflows.create_run(
            WorkflowRun(
                id=id,
                workflow_id=workflow,
                workflow_name=workflow,
                trigger_type="manual",
                started_at=at(0),
                completed_at=at(first + number),
                status=status,
            )
        )
