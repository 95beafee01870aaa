"""Records to begin with: valid, and as short as can be."""

from __future__ import annotations

from typing import Any

from bus.model.records import (
    BotMessage,
    BotOwner,
    BotRecord,
    Channel,
    ChannelRecipient,
    DirectRecipient,
    GlobalOwner,
    WorkflowDefinition,
    WorkflowRun,
    WorkflowStepLog,
)
from bus.model.repository import AddBot, Store

GLOBAL = GlobalOwner()

ANN = "01990000-0000-7000-8000-00000000000a"
BOB = "01990000-0000-7000-8000-00000000000b"
"""The bots who hold runs."""


def at(second: int) -> str:
    """A time in the stored form, ordered by its argument."""
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000000Z"


def definition(id: str, **fields: Any) -> WorkflowDefinition:
    return WorkflowDefinition(**{"id": id, "name": id, "owner": GLOBAL, **fields})


def owned(id: str, bot_id: str, **fields: Any) -> WorkflowDefinition:
    return definition(id, owner=BotOwner(bot_id=bot_id), **fields)


def run(id: str, workflow_id: str = "w", **fields: Any) -> WorkflowRun:
    defaults = {"workflow_name": workflow_id, "trigger_type": "manual", "started_at": at(0)}
    return WorkflowRun(**{"id": id, "workflow_id": workflow_id, **defaults, **fields})


def step(id: str, run_id: str = "r", **fields: Any) -> WorkflowStepLog:
    return WorkflowStepLog(**{"id": id, "run_id": run_id, "step_id": id, "step_name": id, **fields})


def direct(id: str, sender: str, recipient: str, **fields: Any) -> BotMessage:
    return _message(id, sender, recipient=DirectRecipient(bot_id=recipient), **fields)


def to_channel(id: str, sender: str, channel: str, **fields: Any) -> BotMessage:
    return _message(id, sender, recipient=ChannelRecipient(name=channel), **fields)


def _message(id: str, sender: str, **fields: Any) -> BotMessage:
    defaults = {"message_type": "note", "body": {"text": id}, "timestamp": at(0)}
    return BotMessage(**{"id": id, "sender_bot_id": sender, "sender_bot_name": sender, **defaults, **fields})


def channel(name: str, created_by_bot_id: str = "ann") -> Channel:
    return Channel(name=name, created_at=at(0), created_by_bot_id=created_by_bot_id)


def bot(id: str, **fields: Any) -> BotRecord:
    return BotRecord(**{"id": id, "name": id, "created_at": at(0), "last_seen_at": at(0), **fields})


async def add_bots(store: Store, *ids: str) -> None:
    await store.log.apply([AddBot(bot(id)) for id in ids])
