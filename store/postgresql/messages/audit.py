"""Messages, channels and subscriptions in PostgreSQL, as an audit trail: the MessageRepository.

`rows` stores messages as rows, and `arrivals` adds them to the log. The broker's side is in `log`.
"""

from __future__ import annotations

import asyncpg

from bus.errors import Conflict, NotFound
from bus.model.records import BotMessage, BotSubscription, Channel
from bus.model.repository import HistoryRequest, each, lots_of
from bus.model.values import normal_record, row_limit, same_values

from ...message_rows import new_of, record_of
from ...seals import seal
from ..server.database import Database
from ..server.writer import Transaction
from .arrivals import Arrivals
from .conversations import Conversations
from .questions import history
from .rows import fetch

__all__ = ["PostgresMessages"]

_SEQ_MAX = (1 << 63) - 2

_ADD_CHANNEL = """
    INSERT INTO bot_channels (name, created_at, created_by_bot_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"""

_SUBSCRIBE = """
    INSERT INTO bot_subscriptions (bot_id, channel_name, subscribed_at, start_seq, echo, checksum)
    VALUES ($1, $2, $3, $4, false, $5) ON CONFLICT DO NOTHING"""

_UNSUBSCRIBE = "DELETE FROM bot_subscriptions WHERE bot_id = $1 AND channel_name = $2 RETURNING bot_id"


class PostgresMessages:
    """The MessageRepository over PostgreSQL; see `bus.model.repository` for what each method promises."""

    def __init__(self, database: Database, arrivals: Arrivals, conversations: Conversations) -> None:
        self._database = database
        self._arrivals = arrivals
        self._conversations = conversations

    def __repr__(self) -> str:
        return f"<PostgresMessages {self._database.url}>"

    async def save_message(self, message: BotMessage) -> None:
        """Append a message; repeating it changes nothing."""
        wanted = normal_record(message, f"message {message.id!r}")
        [new] = lots_of([new_of(wanted)])

        async def operation(transaction: Transaction) -> None:
            [outcome] = await self._arrivals.add(transaction, [new], message.timestamp)
            [added] = each(new, outcome)
            if added.duplicate:
                stored = await fetch(transaction.connection, "WHERE seq = $1", added.seq)
                if not stored or not same_values(record_of(stored[0]), wanted):
                    raise Conflict(f"message {message.id!r} is stored with other contents")
            else:
                await self._conversations.open(transaction.connection, [new], message.timestamp)

        await self._database.writer.run(operation)

    async def get_messages_between(self, bot_a: str, bot_b: str, limit: int = 50) -> list[BotMessage]:
        """Return the direct messages between two bots, newest first."""
        request = HistoryRequest(row_limit(limit), between=(bot_a, bot_b))
        found = await history(self._database.read, request, _SEQ_MAX)
        return [record_of(message) for message in found]

    async def get_channel_messages(self, channel: str, limit: int = 50) -> list[BotMessage]:
        """Return a channel's messages, newest first."""
        request = HistoryRequest(row_limit(limit), channel=channel)
        found = await history(self._database.read, request, _SEQ_MAX)
        return [record_of(message) for message in found]

    async def list_channels(self) -> list[Channel]:
        """List all channels by name."""
        rows = await self._database.read.fetch(
            "SELECT name, created_at, created_by_bot_id FROM bot_channels ORDER BY name"
        )
        return [Channel(name=row[0], created_at=row[1], created_by_bot_id=row[2]) for row in rows]

    async def create_channel(self, channel: Channel) -> None:
        """Create a channel; an existing one is left unchanged."""

        async def operation(transaction: Transaction) -> None:
            values = (channel.name, channel.created_at, channel.created_by_bot_id)
            await transaction.connection.execute(_ADD_CHANNEL, *values)

        await self._database.writer.run(operation)

    async def subscribe(self, subscription: BotSubscription) -> None:
        """Subscribe a bot from now on; an existing subscription is left unchanged."""

        async def operation(transaction: Transaction) -> None:
            values = (
                subscription.bot_id,
                subscription.channel_name,
                subscription.subscribed_at,
                transaction.last_seq,
            )
            try:
                await transaction.connection.execute(_SUBSCRIBE, *values, seal(*values, 0, None))
            except asyncpg.ForeignKeyViolationError as error:
                raise NotFound("channel", subscription.channel_name) from error

        await self._database.writer.run(operation)

    async def unsubscribe(self, bot_id: str, channel_name: str) -> bool:
        """End a subscription; return False if there was none."""

        async def operation(transaction: Transaction) -> bool:
            return await transaction.connection.fetchval(_UNSUBSCRIBE, bot_id, channel_name) is not None

        return await self._database.writer.run(operation)

    async def get_subscriptions(self, bot_id: str) -> list[BotSubscription]:
        """List a bot's subscriptions by channel."""
        sql = "SELECT channel_name, subscribed_at FROM bot_subscriptions WHERE bot_id = $1 ORDER BY channel_name"
        rows = await self._database.read.fetch(sql, bot_id)
        return [BotSubscription(bot_id=bot_id, channel_name=row[0], subscribed_at=row[1]) for row in rows]

    async def get_channel_subscribers(self, channel_name: str) -> list[str]:
        """List the ids of a channel's subscribers."""
        sql = "SELECT bot_id FROM bot_subscriptions WHERE channel_name = $1 ORDER BY bot_id"
        return [row[0] for row in await self._database.read.fetch(sql, channel_name)]
