"""What a simulated world is made of: bots and channels, and settings whose every bound is reached all the time."""

from __future__ import annotations

import msgspec

from bus.model.records import EVENTS_CHANNEL, PRESENCE_CHANNEL
from bus.settings import Delivery, EventSettings, Keep, Limits, RetentionSettings, Settings

__all__ = ["BOTS", "GROUPS", "SETTINGS", "channels_of", "is_budgeted", "is_watched", "patterns_of", "settings_of"]

BOTS = [f"bot-{number}" for number in range(5)]
CHANNELS = ["news", "work", "idle"]
GROUPS = ["team", "crew"]
PATTERNS = ["*", "work.*", "**"]
EVENTS = EventSettings(age_seconds=30.0, messages_max=10)

# Small enough that every bound is reached all the time.
SETTINGS = Settings(
    delivery=Delivery(
        ack_wait_seconds=3.0,
        max_deliver=4,
        backoff_seconds=(0.5, 2.0),
        heartbeat_seconds=1.0,
        session_timeout_seconds=5.0,
        mailbox_flush_seconds=0.5,
    ),
    limits=Limits(
        ready_messages_max=6,
        ready_bytes_max=400,
        in_flight_max=5,
        in_flight_default=5,
        in_flight_bytes_max=1500,
        parked_max=4,
        batch_messages_max=8,
        batch_bytes_max=1000,
        held_requests_max=3,
        backlog_messages_max=25,
        scheduled_messages_max=15,
    ),
)

# In every seventh world, what one bot may take of it: it keeps other things from happening.
SHARES: dict[str, int] = {"backlog_per_sender_max": 20, "scheduled_per_bot_max": 12, "delayed_per_mailbox_max": 2}
# By the seed: nothing leaves the log; what nobody waits for does; what nobody is at work on does.
RETENTIONS = [
    RetentionSettings(),
    RetentionSettings(
        messages_max=60, sweep_seconds=2.0, portion_messages_max=7, channels={"idle": Keep(age_seconds=20.0)}
    ),
    RetentionSettings(
        age_seconds=40.0,
        sweep_seconds=0.5,
        portion_messages_max=7,
        remove_undelivered=True,
        channels={"news": Keep(messages_max=4), "work": Keep(bytes_max=150)},
    ),
]


def settings_of(seed: int) -> Settings:
    """Return the settings of a world."""
    limits = msgspec.structs.replace(SETTINGS.limits, **(SHARES if seed % 7 == 5 else {}))
    return msgspec.structs.replace(SETTINGS, limits=limits, retention=RETENTIONS[seed % 3], events=EVENTS)


def channels_of(seed: int) -> list[str]:
    """Return what bots of a world subscribe to, and publish on if they may."""
    own = [PRESENCE_CHANNEL] if is_watched(seed) else []
    if patterns_of(seed):
        return [*CHANNELS, *own, *(f"work.{number}" for number in range(12)), "work.eu.1", "work.eu.2"]
    return [*CHANNELS, *own, EVENTS_CHANNEL] if seed % 10 == 8 else [*CHANNELS, *own]


def patterns_of(seed: int) -> list[str]:
    """Return the patterns to which bots of a world subscribe as well."""
    own = ["posthouse.*"] if is_watched(seed) else []
    return [*PATTERNS, *own] if seed % 10 == 9 else []


def is_watched(seed: int) -> bool:
    """Return True for a world in which bots listen to who is there."""
    return seed % 17 == 7


def is_budgeted(seed: int) -> bool:
    """Return True for a world in which bots give threads a budget."""
    return seed % 23 in (11, 16, 20)
