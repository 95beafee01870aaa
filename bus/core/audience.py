"""Who listens to what the worker tells: events of runs, and events of the worker itself.

Owns who makes them be written: a setting, a subscription to their channel, or a listener at the tap. Otherwise
nothing is written, and nothing looked up. The store writes an event in the transaction of what it tells of, beside
the log, as a message that is due at once; `scheduling` moves it into the log. What the core notices by itself is in
`events`.

Pure.
"""

from __future__ import annotations

from ..model.records import EVENTS_CHANNEL, PRESENCE_CHANNEL, RUNS_CHANNEL, TOLD_CHANNELS
from ..settings import Settings
from .directory import Directory
from .scheduling import Scheduling
from .tapping import Tapping

__all__ = ["Audience"]


class Audience:
    """See the module."""

    def __init__(self, settings: Settings, directory: Directory, tapping: Tapping, scheduling: Scheduling) -> None:
        self._publish = {
            RUNS_CHANNEL: "always" if settings.workflows.events else "subscribed",
            EVENTS_CHANNEL: settings.events.publish,
            PRESENCE_CHANNEL: "never" if settings.events.publish == "never" else "subscribed",
        }
        self._publish |= dict.fromkeys(set(TOLD_CHANNELS) - directory.worker_channels, "never")
        self.directory = directory
        self._tapping = tapping
        self._scheduling = scheduling

    def __repr__(self) -> str:
        return f"<Audience of {[channel for channel in self._publish if self.wants(channel)]}>"

    @property
    def warnings(self) -> list[str]:
        """What operators should know of the channels on which the worker would tell of itself, and cannot."""
        taken = [name for name in TOLD_CHANNELS if name not in self.directory.worker_channels]
        return [self._warning(name, self.directory.channels[name].channel.created_by_bot_id) for name in taken]

    def _warning(self, channel: str, creator_id: str) -> str:
        creator = self.directory.bots.get(creator_id)
        by = "a bot" if creator is None else f"bot {creator.name!r}"
        return (
            f"channel {channel!r} was created by {by} under an earlier version, and stays an ordinary"
            " channel: this worker publishes no events there; watch 'posthouse audit --follow' and the metrics"
            f" instead, or run 'posthouse remove channel {channel}' and restart the worker"
        )

    def wants(self, channel: str) -> bool:
        """Return True if what the worker tells on one of its channels is to be written."""
        publish = self._publish[channel]
        if publish != "subscribed":
            return publish == "always"
        entry = self.directory.channels.get(channel)
        if entry is not None and entry.mailboxes:
            return True
        # Where the tap does not show the worker's events, who may read them finds them in the history. They are
        # bounded in the log, whoever listens; those of runs are not.
        return self._tapping.has_listener(channel, hidden=channel == EVENTS_CHANNEL)

    def written(self, channel: str) -> None:
        """Note that the store wrote an event for a channel: it enters the log with the next tick."""
        self._scheduling.expect_events(channel)
