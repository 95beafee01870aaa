"""The commands `reload` and `keys test`: rights that are read again, and what they say about a bot.

`keys` has the latter among its commands.
"""

from __future__ import annotations

import sys

import rich_click as click

from ..model.rights import Action
from .completing import complete_bots
from .console import show_json
from .ending import ask
from .options import Link, asking, linked, name_of
from .streams import EXIT_REFUSED, say

__all__ = ["reload", "test"]


@click.command()
@linked("console")
def reload(link: Link) -> None:
    """Let the worker read its configuration again.

    It takes over roles, private channels and the log, and names the changed keys that need a restart. If the
    configuration is invalid, the worker goes on with the earlier one, and this command says what is wrong. SIGHUP
    does the same.
    """
    reloaded = ask(link, lambda bot: bot.rights.reload())
    if link.as_json:
        show_json(reloaded)
        return
    say(f"taken over: {', '.join(reloaded.changed)}" if reloaded.changed else "nothing has changed")
    if reloaded.restart:
        say(f"for these, restart the worker: {', '.join(reloaded.restart)}")


@click.command("test")
@click.argument("bot", callback=name_of, shell_complete=complete_bots)
@click.argument("action", metavar="ACTION", type=click.Choice([action.value for action in Action]))
@click.argument("object")
@asking
def test(link: Link, bot: str, action: str, object: str) -> None:
    """Say whether BOT may do ACTION to OBJECT, and which rule of the configuration decides.

    OBJECT is the name of a channel, a bot, a workflow, or CHANNEL/GROUP; for read it is own, all, conversation:BOT
    or channel:CHANNEL. Exits with 1 if it is not allowed.
    """
    answer = ask(link, lambda asker: asker.rights.may(bot, action, object))
    if link.as_json:
        show_json(answer)
    else:
        say(f"{'allowed' if answer.allowed else 'denied'}: {answer.rule}")
    if not answer.allowed:
        sys.exit(EXIT_REFUSED)
