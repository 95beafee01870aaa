"""The command `signal`: telling a run something that it waits for, now or later."""

from __future__ import annotations

import msgspec
import rich_click as click

from ..bot import Bot
from ..client.ids import chosen_id
from ..errors import NotFound, RunEnded, TooManySignals, WorkerUnavailable
from ..model.records import Signal
from .completing import complete_runs
from .console import show_json
from .ending import Impossible, ask
from .finding import find_run
from .options import Link, WithText, body_of, linked, not_empty, shown
from .streams import plain, say

__all__ = ["signal"]


@click.command(cls=WithText)
@click.argument("run_id", metavar="RUN", callback=shown, shell_complete=complete_runs)
@click.argument("signal_name", metavar="NAME", callback=shown)
@click.argument("payload", metavar="[JSON]", default="null", callback=body_of)
@click.option(
    "--id",
    "signal_id",
    metavar="ID",
    callback=not_empty,
    help="Its id, with which it can be sent again; by default a UUID.",
)
@linked("console")
def signal(link: Link, run_id: str, signal_name: str, payload: msgspec.Raw, signal_id: str | None) -> None:
    """Send the signal NAME to a run that waits for it (`run.wait`), or will.

    JSON is its payload, by default null; what is not JSON is text, and `-` reads it from standard input. The signal
    is kept until the run takes it. The command returns when it is on the worker's disk.
    """
    id = chosen_id(signal_id)

    async def sent(bot: Bot) -> Signal:
        run = await find_run(bot.workflows, run_id)
        try:
            return await bot.workflows.send_signal(run.id, signal_name, msgspec.json.decode(payload), id=id)
        except (NotFound, RunEnded, TooManySignals) as error:
            raise Impossible(error.message) from None
        except WorkerUnavailable as error:
            raise WorkerUnavailable(f"{error}; to be safe, send it again with --id {id}") from error

    found = ask(link, sent)
    if link.as_json:
        show_json(found)
    else:
        say(plain(f"signal {found.name} of {found.sender} waits for run {found.run_id} to take it"))
