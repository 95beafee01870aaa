"""Questions about rights, and the worker's configuration, for those who look after it."""

from __future__ import annotations

from ..wire.answers import MayAnswer, Reloaded
from ..wire.frames import May, Reload
from .caller import Caller

__all__ = ["BotRights"]


class BotRights:
    """The rights of bots, as `bot.rights`. Both raise Forbidden if the worker has no keys."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __repr__(self) -> str:
        return f"<BotRights {self._caller!r}>"

    async def may(self, bot: str, action: str, object: str) -> MayAnswer:
        """Return whether a bot may do something, and which rule of the configuration says so.

        Raise Forbidden for another bot than this one, unless this one is an admin; UnknownBot, NotFound if the bot
        has no valid key; and RequestError if there is no such action, or the object is none of its.
        """
        return await self._caller.request(
            f"whether {bot} may {action}",
            lambda number: May(request=number, bot=bot, action=action, object=object),
            MayAnswer,
        )

    async def reload(self) -> Reloaded:
        """Let the worker read its configuration again; return what it took over, and what needs a restart.

        Raise Forbidden if this bot is no admin; and RequestError if the configuration is invalid: then the earlier
        one holds.
        """
        return await self._caller.request("the reload", lambda number: Reload(request=number), Reloaded)
