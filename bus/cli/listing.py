"""Groups of commands that list their things when they are called alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click
from click.core import ParameterSource

__all__ = ["list_alone"]


def list_alone(context: click.Context, listed: Callable[..., None], *arguments: Any) -> None:
    """List a group's things if it was called without a subcommand. Raise UsageError if options are before one."""
    if context.invoked_subcommand is None:
        listed(*arguments)
        return
    for name in context.params:
        if context.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            raise click.UsageError(f"put the options after '{context.invoked_subcommand}'")
