"""The command `posthouse`, the group of all others."""

from __future__ import annotations

import rich_click as click

from .commands import COMMANDS, GROUPS
from .entry import Entry
from .options import Command

__all__ = ["main", "program"]


_HELP = {
    "text_paragraph_linebreaks": "\n\n",
    # An option with its value in one column: three would leave no room for names and texts on narrow terminals.
    "options_table_column_types": ["required", "opt_all_metavar", "help"],
    "append_metavars_help_string": "{}",
}


def _grouped(command: Command) -> Command:
    for title, commands in reversed(GROUPS.items()):
        command = click.command_panel(title, commands=list(commands))(command)
    return command


@click.group(cls=Entry, elsewhere=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@_grouped
@click.rich_config(help_config=_HELP)
@click.version_option(package_name="posthouse", prog_name="posthouse")
def main() -> None:
    """A durable message bus for bots: one process, one file, one command.

    Start a worker with `posthouse serve`, or see one in action with `posthouse demo`.

    In other terminals, `posthouse listen --as ann` is a bot, and `posthouse send ann hello --as bob` another one.
    `posthouse doctor` says what may go wrong, and `posthouse COMMAND --help` what a command does.

    A SPAN of time is 90s, 30m, 1h, 7d or a number of seconds. POSTHOUSE_URL names another worker than that of this
    machine, and POSTHOUSE_CREDENTIALS the file for one with keys. To complete commands and names in a shell, write
    eval "$(_POSTHOUSE_COMPLETE=bash_source posthouse)" into ~/.bashrc, or the same with zsh_source.
    """


def program() -> None:
    """Run as the command, in its own process."""
    Entry.begin()
    main()
