"""The records that the store keeps, and their enums.

Owns the fields of the records, with their names as in JSON. A record is frozen, compares by value, and refuses
unknown fields when it is decoded. The values that the broker and the log exchange are in `changes`.

Pure: no clock, no randomness, no I/O.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

__all__ = [
    "CONSOLE_ID",
    "CONSOLE_NAME",
    "CONTINUED",
    "EVENTS_CHANNEL",
    "OWN_IDS",
    "PRESENCE_CHANNEL",
    "RUNS_CHANNEL",
    "TOLD_CHANNELS",
    "WORKER_CHANNELS",
    "WORKER_ID",
    "WORKER_NAME",
    "BotMessage",
    "BotOwner",
    "BotRecord",
    "BotSubscription",
    "Channel",
    "ChannelRecipient",
    "Claim",
    "CronTrigger",
    "DirectRecipient",
    "EventTrigger",
    "FileWatchTrigger",
    "GlobalOwner",
    "Lease",
    "ManualTrigger",
    "NewSignal",
    "Owner",
    "Recipient",
    "Record",
    "RecoveredRun",
    "RetryPolicy",
    "RetryStrategy",
    "RunStatus",
    "RunSummary",
    "Signal",
    "StepPage",
    "StepStatus",
    "StepType",
    "Trigger",
    "WebhookTrigger",
    "WorkflowDefinition",
    "WorkflowRun",
    "WorkflowStep",
    "WorkflowStepLog",
    "is_reserved",
    "later",
    "parse_timestamp",
    "timestamp",
]


def timestamp(moment: datetime) -> str:
    """Return a time in the form that is stored and sent: RFC 3339, UTC, microseconds, `Z`.

    The form has a fixed width, so that the order of texts is the order of times.
    """
    utc = moment.astimezone(UTC)
    if type(utc) is not datetime:
        return utc.isoformat(timespec="microseconds")[:-6] + "Z"
    written = msgspec.json.encode(utc)[1:-1].decode()  # ten times as fast
    return written if utc.microsecond else f"{written[:-1]}.000000Z"


def later(text: str, seconds: float) -> str:
    """Return a stored time plus a number of seconds, rounded up, so that waiting for it never ends early."""
    return timestamp(parse_timestamp(text) + timedelta(microseconds=math.ceil(seconds * 1_000_000)))


def parse_timestamp(text: str) -> datetime:
    """Parse a time in any RFC 3339 form. Raises ValueError if it is invalid or has no zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it with Z or an offset")
    return moment.astimezone(UTC)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every record has in common."""


# ── Bots, messages, channels ─────────────────────────────────────────────────────────────────────────────

CONTINUED = "continued"
"""The `trigger_type` of a run as which another one continues, its parent."""

WORKER_ID = "00000000-0000-0000-0000-000000000000"
"""The nil UUID (RFC 9562): the sender of the worker's own messages. No bot has it."""

WORKER_NAME = "posthouse"
"""The name that goes with it. Names that begin with it and a dot are reserved, too."""

CONSOLE_ID = "00000000-0000-0000-0000-000000000001"
"""The id of those who only ask, where there are no keys. No bot has it."""

CONSOLE_NAME = f"{WORKER_NAME}.console"
"""The name that goes with it."""

OWN_IDS = {WORKER_NAME: WORKER_ID, CONSOLE_NAME: CONSOLE_ID}
"""Both, by their names."""


def is_reserved(bot_name: str) -> bool:
    """Return True for a name that only the worker uses."""
    lowered = bot_name.lower()
    return lowered == WORKER_NAME or lowered.startswith(f"{WORKER_NAME}.")


RUNS_CHANNEL = "posthouse.runs"
"""The channel of the worker's events of runs. Nobody else publishes on it."""

EVENTS_CHANNEL = "posthouse.events"
"""The channel on which the worker tells of itself (`events`), unless a bot created it under an earlier version."""

PRESENCE_CHANNEL = "posthouse.presence"
"""The channel on which the worker tells which bots are there, under the same condition."""

TOLD_CHANNELS = (EVENTS_CHANNEL, PRESENCE_CHANNEL)
"""Those whose messages are noticed in memory, and are not kept for long."""

WORKER_CHANNELS = (RUNS_CHANNEL, *TOLD_CHANNELS)


class BotRecord(Record, frozen=True):
    """A participant, known by a UUID and a unique name."""

    id: str
    name: str
    created_at: str
    last_seen_at: str
    public_key: str | None = None


class DirectRecipient(Record, frozen=True, tag_field="type", tag="direct"):
    """One bot."""

    bot_id: str


class ChannelRecipient(Record, frozen=True, tag_field="type", tag="channel"):
    """The subscribers of a channel."""

    name: str


Recipient = DirectRecipient | ChannelRecipient


class BotMessage(Record, frozen=True, omit_defaults=True):
    """One message of the audit trail. `body` is any JSON value."""

    id: str
    sender_bot_id: str
    sender_bot_name: str
    recipient: Recipient
    message_type: str
    body: Any
    timestamp: str
    reply_to: str | None = None


class Channel(Record, frozen=True):
    """A channel, created when it is first used."""

    name: str
    created_at: str
    created_by_bot_id: str


class BotSubscription(Record, frozen=True):
    """A bot's subscription to a channel."""

    bot_id: str
    channel_name: str
    subscribed_at: str


# ── Workflows ────────────────────────────────────────────────────────────────────────────────────────────


class RunStatus(StrEnum):
    """The seven states of a run."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CRASHED = "crashed"
    CANCELLED = "cancelled"


class StepStatus(StrEnum):
    """The six states of a step."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    WAITING_APPROVAL = "waiting_approval"


class StepType(StrEnum):
    """What a step of a definition does."""

    AGENT = "agent"
    SKILL = "skill"
    CODE = "code"
    HTTP = "http"
    CONDITIONAL = "conditional"
    LOOP = "loop"
    APPROVAL = "approval"
    SUB_WORKFLOW = "sub_workflow"


class RetryStrategy(StrEnum):
    """How a failed step is retried."""

    SIMPLE = "simple"
    LLM_SELF_CORRECT = "llm_self_correct"


class GlobalOwner(Record, frozen=True, tag_field="type", tag="global"):
    """A definition that belongs to no bot."""


class BotOwner(Record, frozen=True, tag_field="type", tag="bot"):
    """A definition that belongs to one bot; `slug` is the bot's readable name, kept as given."""

    bot_id: str
    slug: str = ""


Owner = GlobalOwner | BotOwner


class RetryPolicy(Record, frozen=True):
    """How often, and how, a step is tried."""

    max_attempts: int = 3
    strategy: RetryStrategy = RetryStrategy.SIMPLE


class WorkflowStep(Record, frozen=True):
    """One step of a definition. `config` is an object tagged by the step's type; `ui` is kept as given."""

    id: str
    name: str
    type: StepType
    config: dict[str, Any]
    depends_on: tuple[str, ...] = ()
    condition: str | None = None
    timeout_secs: int | None = None
    retry: RetryPolicy | None = None
    ui: Any = None


class ManualTrigger(Record, frozen=True, tag_field="type", tag="manual"):
    """Started by hand."""


class CronTrigger(Record, frozen=True, tag_field="type", tag="cron"):
    """Started by the clock."""

    schedule: str
    timezone: str | None = None


class WebhookTrigger(Record, frozen=True, tag_field="type", tag="webhook"):
    """Started by an HTTP call."""

    path: str
    auth: Any = None
    when: str | None = None


class EventTrigger(Record, frozen=True, tag_field="type", tag="event"):
    """Started by an event."""

    source: str
    event_type: str
    when: str | None = None


class FileWatchTrigger(Record, frozen=True, tag_field="type", tag="file_watch"):
    """Started by a change to a file."""

    paths: tuple[str, ...]
    patterns: tuple[str, ...] | None = None
    when: str | None = None


Trigger = ManualTrigger | CronTrigger | WebhookTrigger | EventTrigger | FileWatchTrigger


class WorkflowDefinition(Record, frozen=True):
    """A workflow as its author wrote it. `concurrency` is the maximum number of simultaneous runs."""

    id: str
    name: str
    owner: Owner
    version: str = "1.0.0"
    description: str | None = None
    concurrency: int | None = None
    timeout_secs: int | None = None
    triggers: tuple[Trigger, ...] = ()
    steps: tuple[WorkflowStep, ...] = ()
    metadata: dict[str, Any] = {}


class WorkflowRun(Record, frozen=True):
    """One execution of a workflow. `context`, `trigger_payload` and `result` are JSON values.

    A completed run may have a `result`. `parent_run_id` is the run that started it, and nobody claims it before
    `not_before`. One that is to be cancelled has in `cancel_by` until when its program may clean up. One that was
    completed because it continues as a new run has that one's id in `continued_as`. `attributes` are at most 16
    short texts by which it is found (`RunFilter`).
    """

    id: str
    workflow_id: str
    workflow_name: str
    trigger_type: str
    started_at: str
    status: RunStatus = RunStatus.PENDING
    context: Any = msgspec.field(default_factory=dict)
    trigger_payload: Any = None
    completed_at: str | None = None
    error: str | None = None
    concurrency_key: str | None = None
    result: Any = None
    parent_run_id: str | None = None
    not_before: str | None = None
    cancel_by: str | None = None
    continued_as: str | None = None
    attributes: dict[str, str] = {}


class WorkflowStepLog(Record, frozen=True):
    """The durable record of one attempt at one step. `input` and `output` are JSON values."""

    id: str
    run_id: str
    step_id: str
    step_name: str
    status: StepStatus = StepStatus.PENDING
    attempt: int = 1
    idempotency_key: str | None = None
    input: Any = None
    output: Any = None
    error: str | None = None
    started_at: str | None = None
    completed_at: str | None = None


class NewSignal(Record, frozen=True):
    """A signal to be sent to a run. `payload` is a JSON value; a run has one signal with an `id`."""

    id: str
    run_id: str
    name: str
    payload: Any = None


class Signal(Record, frozen=True):
    """A signal that was sent to a run: by whom (a bot's name), and when. `payload` is a JSON value."""

    id: str
    run_id: str
    name: str
    payload: Any
    sender: str | None
    sent_at: str


class StepPage(Record, frozen=True):
    """Some of a run's step logs, in the order in which they began, and whether `more` follow."""

    steps: tuple[WorkflowStepLog, ...]
    more: bool


class RunSummary(Record, frozen=True):
    """A run as listed for people: its holder and what it waits for, without its context and payload.

    `queued_at` is since when it has waited for a slot. `recoveries` counts how often it was found without a live
    holder since a step was recorded, or a person last resumed it. `stopped` says that a person paused it.
    """

    id: str
    workflow_id: str
    workflow_name: str
    status: RunStatus
    trigger_type: str
    started_at: str
    completed_at: str | None
    error: str | None
    concurrency_key: str | None
    holder: str | None
    fence: int
    lease_expires_at: str | None
    recoveries: int
    queued_at: str | None
    stopped: bool = False
    parent_run_id: str | None = None
    not_before: str | None = None
    cancel_by: str | None = None
    continued_as: str | None = None
    attributes: dict[str, str] = {}


class Lease(Record, frozen=True):
    """Who holds a run, and until when unless it is renewed. An expired lease holds nothing.

    `cancel_by` is that of the run: the holder is to clean up until then.
    """

    run_id: str
    holder: str
    fence: int
    expires_at: str
    cancel_by: str | None = None


class Claim(Record, frozen=True):
    """A claimed run. Writes are made with `fence`, and raise Fenced once somebody else has claimed the run."""

    run: WorkflowRun
    fence: int
    expires_at: str


class RecoveredRun(Record, frozen=True):
    """A run that was found without a live holder and is now crashed; `holder` was the last one, if any."""

    run: RunSummary
    holder: str | None
