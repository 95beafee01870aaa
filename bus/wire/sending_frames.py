"""The frames with which a client sends: messages, and commits.

Pure.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw

from ..model.priorities import Priority
from ..model.records import NewSignal, RunStatus, WorkflowRun, WorkflowStepLog
from .fields import ClientFrame, Id, Name, RequestId, Revision, Seq, Seqs, Ttl, ValueKey
from .limits import COMMIT_ITEMS_MAX, ERROR_CHARACTERS_MAX, HOPS_MAX, NAME_CHARACTERS_MAX, WAIT_SECONDS_MAX

__all__ = ["Commit", "CommittedValue", "Publication", "Publish", "ToBot", "ToChannel", "WillFrame"]


class ToBot(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type", tag="direct",
    omit_defaults=True,
):  # fmt: skip
    """One bot, by name or by id."""

    bot: str | None = None
    bot_id: str | None = None


class ToChannel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="channel", gc=False):
    """The subscribers of a channel."""

    name: str


class Publication(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False
):
    """One message of a publish frame. The body is kept as the bytes that were sent."""

    id: str
    recipient: ToBot | ToChannel
    body: Raw
    message_type: str = "message"
    reply_to: str | None = None
    headers: dict[str, str] = {}
    expects_reply: bool = False
    ttl: Annotated[float, Meta(gt=0, le=WAIT_SECONDS_MAX)] | None = None
    delay: Annotated[float, Meta(ge=0, le=WAIT_SECONDS_MAX)] | None = None
    retain: bool = False
    """Whether it becomes the last value of its channel."""
    priority: Priority = "normal"
    hops: Annotated[int, Meta(ge=0, le=HOPS_MAX)] | None = None
    """How many messages may follow, each an answer to the one before."""
    deadline: Annotated[float, Meta(gt=0, le=WAIT_SECONDS_MAX)] | None = None
    """After so many seconds its thread ends."""


class Publish(ClientFrame, frozen=True, tag="publish"):
    """Messages to store and deliver."""

    request: RequestId
    messages: list[Publication]


class WillFrame(ClientFrame, frozen=True, tag="will"):
    """Leaves a message that is sent if the bot vanishes, and stays away for `delay` seconds; None takes it back."""

    request: RequestId
    message: Publication | None
    delay: Annotated[float, Meta(ge=0, le=WAIT_SECONDS_MAX)] | None = None


class CommittedValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A keyed value to put, or to delete, with a commit. On the wire the store is called `kv`."""

    store: Name = msgspec.field(name="kv")
    key: ValueKey
    kind: Literal["json", "bytes", "deleted"] = "json"
    value: Raw = Raw(b"null")
    expected: Revision | None = None
    ttl: Ttl | None = None


class Commit(ClientFrame, frozen=True, tag="commit"):
    """Commits a bot's work for a run, or for a message, in one transaction."""

    request: RequestId
    id: Id
    run_id: Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)] | None = None
    fence: Seq | None = None
    steps: Annotated[list[WorkflowStepLog], Meta(max_length=COMMIT_ITEMS_MAX)] = []
    context: Any = None
    status: RunStatus | None = None
    error: Annotated[str, Meta(max_length=ERROR_CHARACTERS_MAX)] | None = None
    messages: Annotated[list[Publication], Meta(max_length=COMMIT_ITEMS_MAX)] = []
    acks: Seqs = []
    result: Any = None
    """Of a run that is completed by it."""
    runs: Annotated[list[WorkflowRun], Meta(max_length=COMMIT_ITEMS_MAX)] = []
    """Runs to be created, whose parent is the run of the commit."""
    signals: Annotated[list[NewSignal], Meta(max_length=COMMIT_ITEMS_MAX)] = []
    values: Annotated[list[CommittedValue], Meta(max_length=COMMIT_ITEMS_MAX)] = []
    """Keyed values to write."""
