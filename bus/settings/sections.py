"""The sections of a configuration, and what must fit together in all of it.

Owns the structure of `config/posthouse.toml`. All keys are optional, and unknown ones are refused with their path.

Pure: the text is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..model.keyed import VALUE_BYTES_MAX
from ..model.repository import WorkflowRules
from ..model.rights import MEMBER_ROLE
from ..model.values import CONTEXT_BYTES_MAX, OUTPUT_BYTES_MAX, STEP_VALUE_BYTES_MAX
from ..wire.addresses import address_fault, canonical, is_local, listening_fault
from ..wire.limits import CREDIT_MAX, HOPS_MAX, PARKED_MAX, PUBLISH_MESSAGES_MAX
from .faults import refuse
from .leadership import Leadership
from .retention import EventSettings, RetentionSettings
from .rights import ChannelRights, Role, rights_faults
from .store import StoreSettings

__all__ = ["Delivery", "Limits", "Listen", "Log", "Security", "Settings", "Workflows"]

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
PositiveInt = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Rate = Annotated[float, Meta(ge=0, le=1_000_000)]

_AT_ONCE_SECONDS = 0.05
"""Meaning of "at once" for a released message: short, but long enough for a goodbye right after it."""

_ANSWER_ROOM_BYTES = 1024
"""Room around a workflow's record in its answer."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every section has in common."""


class Listen(_Section, frozen=True):
    """Where bots connect."""

    command: str = "tcp://127.0.0.1:7710"
    tap: str = "tcp://127.0.0.1:7711"
    metrics: str = ""
    """Where HTTP answers /metrics, /healthz and /readyz; nowhere if empty. Whoever reaches it may ask."""

    advertised: str = ""
    """Where bots of other machines find this worker, for the others of its house; by default `command`."""

    advertised_tap: str = ""
    """The same for the tap."""

    insecure: bool = False
    """Allows an address beyond loopback although nobody is authenticated there: without keys."""

    def __post_init__(self) -> None:
        """Refuse what is not an address to listen at."""
        refuse(self._faults())

    def _faults(self) -> Iterator[str]:
        for name, address in (("command", self.command), ("tap", self.tap)):
            if (fault := listening_fault(address)) is not None:
                yield (
                    f"listen.{name} {address} is not a valid address to listen at: {fault};"
                    " use tcp://127.0.0.1:7710 or ipc:///path"
                )
        for name, address in (("advertised", self.advertised), ("advertised_tap", self.advertised_tap)):
            if address and (fault := address_fault(address)) is not None:
                yield f"listen.{name} {address} is not an address that bots can connect to: {fault}"
        if self.metrics:
            fault = listening_fault(self.metrics)
            if fault is None and not self.metrics.startswith("tcp://"):
                fault = "HTTP needs tcp://"
            if fault is not None:
                yield (
                    f"listen.metrics {self.metrics} is not a valid address to listen at: {fault};"
                    " use tcp://127.0.0.1:7712"
                )
        if canonical(self.command) == canonical(self.tap) and not self.tap.endswith(":*"):
            yield (
                f"listen.command and listen.tap are both {self.command}, but must differ:"
                " use another port, or another path"
            )


_DEFAULTS: dict[str, Any] = {"default_role": MEMBER_ROLE, "roles": {}, "channels": {}}
"""The rights of a configuration that says nothing of them."""


class Security(_Section, frozen=True):
    """How the worker knows who connects, and what they may do."""

    mode: Annotated[str, Meta(pattern="^(open|keys)$")] = "open"
    """`open`: everybody who may connect can be any bot. `keys`: each connection is the bot of its key."""

    key_file: str = ""
    """The file with the worker's own pair of keys. If it is not named, it is `<database>-key`."""

    default_role: str = MEMBER_ROLE
    """The role of a key without roles; with `none`, such a key may do nothing."""

    roles: dict[str, Role] = {}
    """What each role may do. `member`, `ops` and `admin` exist without being named here."""

    channels: dict[str, ChannelRights] = {}
    """Who may use single channels, whatever the roles say of all channels."""

    def __post_init__(self) -> None:
        """Refuse a role that nobody defines, and rights of bots that nobody knows."""
        refuse(self._faults())

    def _faults(self) -> Iterator[str]:
        named = [name for name in ("default_role", "roles", "channels") if getattr(self, name) != _DEFAULTS[name]]
        for name in () if self.has_keys else named:
            yield f'security.{name} means nothing without keys: set security.mode = "keys", or leave it out'
        yield from rights_faults(self.default_role, self.roles, self.channels)

    @property
    def has_keys(self) -> bool:
        """Whether each connection is known by its key."""
        return self.mode == "keys"


class Delivery(_Section, frozen=True):
    """When a message is redelivered, and when a session ends."""

    ack_wait_seconds: Seconds = 30.0
    """A handler that needs longer sends `extend`; one that died is noticed after this long."""

    max_deliver: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Failures after which a message is a dead letter.

    With the back-off, five give a service two and a half minutes to come back; a fatal message ends five processes.
    """

    backoff_seconds: Annotated[tuple[Annotated[float, Meta(ge=0, le=86_400 * 366)], ...], Meta(min_length=1)] = (
        1.0,
        5.0,
        30.0,
        120.0,
    )
    """The wait after the first, second, … nak without a delay; the last one repeats."""

    heartbeat_seconds: Seconds = 5.0
    """How often a client that sends nothing else sends `ping`."""

    session_timeout_seconds: Seconds = 15.0
    """Three heartbeats: one lost packet ends no session, and a dead bot's messages are not held for long.

    It is also how long a message waits for a vanished client to return, if that was its last failure.
    """

    mailbox_flush_seconds: Seconds = 0.2
    """How long a position or an unconfirmed settle may stay in memory: after a crash, this much is redelivered."""

    tap_head_seconds: Seconds = 2.0
    """How often the tap sends a channel's last seq to those who ask: how late a lost last message is noticed."""

    def nak_wait(self, failures: int) -> float:
        """Return the wait after a nak without a delay, by the number of earlier failures."""
        return self.backoff_seconds[min(failures, len(self.backoff_seconds) - 1)]

    def release_wait(self, returns: int) -> float:
        """Return the wait after a release without a delay, by how often the message returned without a failure.

        At once the first time, and later as after a first nak, because no failure would end it if a message is
        released forever. Not longer than that, because it may have been released by bots that were stopped and
        started.
        """
        return max(_AT_ONCE_SECONDS, self.nak_wait(0) if returns else 0.0)


class Limits(_Section, frozen=True):
    """Bounds. Exceeding a limit results in an error or in waiting; nothing is dropped silently."""

    frame_bytes_max: Annotated[int, Meta(ge=4096, le=64 * 1024 * 1024)] = 1024 * 1024
    """One frame: a thousand messages of a kilobyte. The worker holds at most a few of them per session."""

    body_bytes_max: Annotated[int, Meta(ge=1, le=32 * 1024 * 1024)] = 256 * 1024
    """One body: four of the largest fit in a frame. Put larger data into a file and send its name."""

    messages_per_publish_max: PositiveInt = PUBLISH_MESSAGES_MAX
    """Beyond this a frame gains nothing, and its sender would wait long for the first answer."""

    publishes_in_flight_max: PositiveInt = 4096
    """Messages that a client may have unanswered: some batches of the writer."""

    in_flight_default: Annotated[int, Meta(ge=0, le=CREDIT_MAX)] = 100
    """The credit of a session that specifies none."""

    in_flight_max: Annotated[int, Meta(ge=1, le=CREDIT_MAX)] = CREDIT_MAX
    """The maximum credit of a session. Below the socket's queue, so that sends never block."""

    parked_max: Annotated[int, Meta(ge=0, le=PARKED_MAX)] = PARKED_MAX
    """Messages that a session may have in flight outside its credit, because their runs wait.

    They are part of the mailbox's row, which is written at most every `mailbox_flush_seconds`: some 300 kB.
    """

    in_flight_bytes_max: PositiveInt = 8 * 1024 * 1024
    """The bodies that a session may have in flight: what one slow bot costs in memory."""

    batch_messages_max: PositiveInt = 4096
    """Messages in one transaction: larger ones gain little and delay the first message."""

    batch_bytes_max: PositiveInt = 8 * 1024 * 1024
    """Bodies in one transaction. When the next one is full, the worker stops reading its socket."""

    backlog_messages_max: PositiveInt = 1_000_000
    """Direct messages that may wait for one bot; beyond it, `mailbox_full` tells senders that nobody reads."""

    backlog_per_sender_max: PositiveInt = 500_000
    """The same of one sender: half, so that none of them fills a mailbox alone."""

    scheduled_messages_max: PositiveInt = 1_000_000
    """Messages that may wait until they are due; beyond it, `busy`."""

    scheduled_per_bot_max: PositiveInt = 500_000
    """The same of one sender: half, so that none of them takes all the room."""

    delayed_per_mailbox_max: PositiveInt = 5000
    """Messages that may wait in a mailbox after a nak; beyond it, nothing new is delivered from it.

    They are part of the mailbox's row, which is written at most every `mailbox_flush_seconds`: some 500 kB.
    """

    bots_max: PositiveInt = 100_000
    """Bots: each costs some kilobytes of memory until it is removed."""

    keys_per_bot_max: Annotated[int, Meta(ge=2, le=10_000)] = 64
    """Keys of one bot. For new ones, the oldest of those that have ended are forgotten; more are `busy`."""

    bots_per_connection_max: PositiveInt = 100
    """New bots of one connection; further ones are `busy`. Bots that exist may be named by any."""

    channels_max: PositiveInt = 100_000
    """Channels: each costs a kilobyte of memory until it is removed."""

    channels_per_bot_max: PositiveInt = 10_000
    """Channels that one bot may create; further ones are `busy`."""

    ready_messages_max: PositiveInt = 10_000
    """Messages a mailbox keeps in memory ahead of its bot's credit; beyond it, it reads from the store again."""

    ready_bytes_max: PositiveInt = 8 * 1024 * 1024
    """The same in bytes of bodies."""

    sessions_max: PositiveInt = 10_000
    """Connections with a session: each costs a descriptor and some kilobytes."""

    held_requests_max: PositiveInt = 1000
    """Requests of one session that wait for its registration or an earlier request to be on disk."""

    expected_replies_max: PositiveInt = 10_000
    """Replies that one session may await; beyond it, the oldest ones come as ordinary messages."""

    queries_max: PositiveInt = 1024
    """Queries (`history`, `status`, …) of all bots that wait or are being answered; more are `busy`."""

    queries_per_bot_max: PositiveInt = 64
    """The same of one bot: bots take turns, so this is not what the others wait for."""

    query_seconds_max: Seconds = 5.0
    """How long answering one query may take, while the others wait; then it is interrupted and `busy`."""

    answers_bytes_max: PositiveInt = 8 * 1024 * 1024
    """Answers on their way to one connection, beyond which its queries wait and its workflow calls are `busy`."""

    unread_bytes_max: PositiveInt = 64 * 1024 * 1024
    """Answers on their way to one connection, beyond which its session ends: it does not read what it asks for."""

    workflow_calls_max: PositiveInt = 4096
    """Concurrent workflow calls of all sessions; more are `busy`. Many share a commit."""

    workflow_bytes_max: PositiveInt = 128 * 1024 * 1024
    """The same in bytes of their frames: what checkpoints that wait for the disk may cost in memory."""

    parts_bytes_max: PositiveInt = 128 * 1024 * 1024
    """What is on its way in parts, of all bots: frames that are not whole yet, and answers that are being read."""

    parts_per_bot_bytes_max: PositiveInt = 64 * 1024 * 1024
    """The same of one bot: half, so that none of them takes all the room."""

    kv_value_bytes_max: Annotated[int, Meta(ge=1, le=256 * 1024 * 1024)] = VALUE_BYTES_MAX
    """One keyed value: as JSON, or decoded if it is bytes. It is written and read at once, in memory."""

    kv_keys_max: PositiveInt = 1_000_000
    """Keys in one keyed store, with those that were deleted a day ago or less: each costs an entry of an index."""

    socket_frames_max: PositiveInt = 10_000
    """Frames for one connection: the answers to all open publishes, the largest credit, and about as much again."""

    receive_frames_max: PositiveInt = 64
    """Frames queued from one connection: a sender that ignores its window is blocked early."""

    sender_messages_per_second_max: Rate = 0.0
    """How fast one bot may publish; 0 means no limit. Off by default: only operators know how fast is too fast."""

    pair_messages_per_second_max: Rate = 0.0
    """The same from one bot directly to one other: it slows two bots that answer each other forever."""

    thread_hops_max: Annotated[int, Meta(ge=0, le=HOPS_MAX)] = 0
    """The hops of a thread whose first message sets none, and the most that it may set; 0 means no limit."""

    rate_burst_seconds: Seconds = 10.0
    """The allowed burst after a silence, as seconds of either rate: one frame of many messages is normal."""

    subscriptions_per_bot_max: PositiveInt = 1000
    """Subscriptions of one bot, in groups or not: each is a source of its mailbox's pages, or another mailbox."""

    pattern_channels_per_bot_max: PositiveInt = 10_000
    """Channels of one bot from which on its patterns bring no more: a page of its mailbox reads each of them."""

    groups_per_channel_max: PositiveInt = 100
    """Groups of one channel, which outlive their members: each gets every message of the channel."""

    tap_heads_max: PositiveInt = 1000
    """Channels whose head is sent at the tap: this many take about 15 ms every `tap_head_seconds`."""

    tap_topics_bytes_max: PositiveInt = 1024 * 1024
    """Topics of all listeners at the tap; beyond it, it is closed and opened again: they cost fifty times that."""

    headers_max: PositiveInt = 32
    """Headers of a message."""

    header_bytes_max: PositiveInt = 1024
    """A header's value, in bytes of UTF-8."""


class Workflows(_Section, frozen=True):
    """How runs are held, and when they are recovered."""

    lease_seconds: Seconds = 15.0
    """As long as a session may be silent: a holder that renews every third of it outlives a lost connection."""

    lease_seconds_max: Seconds = 3600.0
    """The longest lease that a bot may request: how long a dead one keeps its run, and its slot."""

    cancel_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 60.0
    """How long the program of a cancelled run may clean up: for some calls of other services."""

    recoveries_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 5
    """How often a run may lose its holder without recording a step in between: it may be what kills its holders."""

    output_bytes_max: Annotated[int, Meta(ge=1024, le=1024 * 1024 * 1024)] = OUTPUT_BYTES_MAX
    """The output of a step: what models and pages return. It is decoded and written at once, in memory."""

    sweep_seconds: Seconds = 5.0
    """How often runs with expired leases are searched for and marked as crashed: a third of a lease."""

    signals_max: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    """How many signals may wait for one run: they wait until its program takes them."""

    events: bool = False
    """Whether events of runs are published on `posthouse.runs` even if nobody is subscribed: each is a message."""

    ended_age_seconds: Annotated[float, Meta(ge=0, le=86_400 * 36_600)] = 0.0
    """Runs that ended longer ago than this are removed, with their steps; 0 means no limit."""

    ended_runs_max: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 0
    """Of each workflow, the runs beyond this number of those that ended last are removed; 0 means no limit."""


class Log(_Section, frozen=True):
    """What the worker reports to its operators."""

    level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$")] = "info"
    format: Annotated[str, Meta(pattern="^(auto|console|json)$")] = "auto"
    """`auto` is console on a terminal, and otherwise JSON, one object a line."""


class Settings(_Section, frozen=True):
    """All settings."""

    listen: Listen = Listen()
    security: Security = Security()
    store: StoreSettings = StoreSettings()
    leadership: Leadership = Leadership()
    delivery: Delivery = Delivery()
    limits: Limits = Limits()
    retention: RetentionSettings = RetentionSettings()
    events: EventSettings = EventSettings()
    workflows: Workflows = Workflows()
    log: Log = Log()

    @property
    def workflow_rules(self) -> WorkflowRules:
        """The store's rules for workflows: a written record must fit into the frame that returns it."""
        return WorkflowRules(
            lease_seconds=self.workflows.lease_seconds,
            lease_seconds_max=self.workflows.lease_seconds_max,
            cancel_seconds=self.workflows.cancel_seconds,
            recoveries_max=self.workflows.recoveries_max,
            signals_max=self.workflows.signals_max,
            output_bytes_max=self.workflows.output_bytes_max,
            record_bytes_max=self.whole_bytes_max - _ANSWER_ROOM_BYTES,
        )

    @property
    def whole_bytes_max(self) -> int:
        """What a frame in parts may have: a step's input and output, a context, and messages; or a keyed value."""
        values = STEP_VALUE_BYTES_MAX + self.workflows.output_bytes_max + CONTEXT_BYTES_MAX
        keyed = self.limits.kv_value_bytes_max * 4 // 3 + STEP_VALUE_BYTES_MAX
        return max(self.limits.frame_bytes_max, values + self.limits.batch_bytes_max, keyed)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other, and addresses where nobody knows who connects."""
        refuse(self._faults())

    def _faults(self) -> Iterator[str]:
        for name, address in (("command", self.listen.command), ("tap", self.listen.tap)):
            yield from self._reach_faults(name, address)
        if self.delivery.session_timeout_seconds <= self.delivery.heartbeat_seconds:
            yield "delivery.session_timeout_seconds must be longer than delivery.heartbeat_seconds"
        if self.limits.body_bytes_max > self.limits.frame_bytes_max:
            yield "limits.body_bytes_max must not be above limits.frame_bytes_max"
        if self.limits.in_flight_default > self.limits.in_flight_max:
            yield "limits.in_flight_default must not be above limits.in_flight_max"
        if self.limits.publishes_in_flight_max + self.limits.in_flight_max > self.limits.socket_frames_max:
            yield (
                "limits.socket_frames_max must not be below limits.publishes_in_flight_max and limits.in_flight_max"
                " together: a client that keeps to these would be cut off"
            )
        if not self.whole_bytes_max <= self.limits.parts_per_bot_bytes_max <= self.limits.parts_bytes_max:
            yield (
                f"limits.parts_per_bot_bytes_max must be at least {self.whole_bytes_max}, which a commit may have,"
                " and not be above limits.parts_bytes_max; raise them with workflows.output_bytes_max"
            )
        if self.workflows.lease_seconds > self.workflows.lease_seconds_max:
            yield "workflows.lease_seconds must not be above workflows.lease_seconds_max"

    def _reach_faults(self, name: str, address: str) -> Iterator[str]:
        if self.security.has_keys and address.startswith("inproc://"):
            yield f'listen.{name} {address} cannot have keys: use tcp:// or ipc://, or mode = "open"'
        if not (self.security.has_keys or self.listen.insecure or is_local(address)):
            yield (
                f"listen.{name} {address} is reachable from other machines, and nobody is authenticated there: "
                'bind 127.0.0.1, or give each bot a key (security.mode = "keys"), or set listen.insecure = true'
            )
