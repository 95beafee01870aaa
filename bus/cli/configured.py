"""The options of `serve`, for every command that is about what a worker is configured to do."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import rich_click as click

from ..configuration import Given
from .options import Command

__all__ = ["configured"]


def configured(command: Command) -> Command:
    """Add the options that say how a worker is configured; the command gets them as `given`."""

    @click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="A TOML file: posthouse config --example prints one with every key.",
    )
    @click.option("--bind", metavar="ADDRESS", help="Where bots connect.  [default: tcp://127.0.0.1:7710]")
    @click.option(
        "--tap", metavar="ADDRESS", help="Where the live copy is published.  [default: tcp://127.0.0.1:7711]"
    )
    @click.option(
        "--metrics", metavar="ADDRESS", help="Where HTTP answers /metrics and /readyz.  [default: nowhere]"
    )
    @click.option("--database", metavar="FILE", help="The SQLite file.  [default: posthouse.db]")
    @click.option("--engine", metavar="URL", help="A database of PostgreSQL instead: postgresql://h1,h2,h3/house.")
    @click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
    @click.option(
        "--log-format",
        metavar="FORMAT",
        help="auto, console or json; auto is console on a terminal.  [default: auto]",
    )
    @functools.wraps(command)
    def with_given(
        *,
        config: Path | None,
        bind: str | None,
        tap: str | None,
        metrics: str | None,
        database: str | None,
        engine: str | None,
        log_level: str | None,
        log_format: str | None,
        **rest: Any,
    ) -> None:
        options = {
            "listen": {"command": bind, "tap": tap, "metrics": metrics},
            "store": {"database": database, "engine": engine},
            "log": {"level": log_level, "format": log_format},
        }
        command(given=Given(config, options), **rest)

    return with_given
