"""The command `doctor`: what a worker's machine, files and state need a person for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import rich_click as click

from ..configuration import Given
from ..errors import DatabaseUnusable, StoreFailure, WorkerUnavailable
from ..settings import Settings, SettingsError
from ..wire.addresses import nearest
from .console import show_json, show_rows
from .diagnosis import Finding, file_findings, machine_findings, worker_findings
from .ending import first, open_bot, run
from .joined import databases
from .options import Link, asking
from .streams import EXIT_REFUSED

__all__ = ["doctor"]


@click.command()
@asking
@click.option("--config", type=click.Path(path_type=Path), help="The configuration of the worker.")
@click.option("--database", metavar="FILE", help="The database.  [default: the configured one]")
@click.option("--engine", metavar="URL", help="A database of PostgreSQL instead, as for posthouse serve.")
def doctor(link: Link, config: Path | None, database: str | None, engine: str | None) -> None:
    """Check what may go wrong, and show what to do about it.

    Looks at the configuration, the database's place and disk, the worker's key, the machine's limits and clock, and
    at a running worker: its backlogs, dead letters, and runs that nobody executes. Changes nothing. The worker is
    asked where --config says that it listens, unless --url names another one.

    Run it as the worker's user, on the worker's machine. Exits with 1 if something keeps a worker from serving;
    warnings alone exit with 0. `posthouse check` reads the database itself.
    """
    given = Given(config, {"store": {"database": database, "engine": engine}})
    findings = [*_of_the_machine(given), *_of_the_worker(_configured(link, given))]
    if link.as_json:
        show_json(findings)
    else:
        show_rows(("", "about", "finding"), [(each.level, each.about, each.text) for each in findings], nothing="")
    if any(each.level == "fault" for each in findings):
        sys.exit(EXIT_REFUSED)


def _configured(link: Link, given: Given) -> Link:
    """Return a link to the worker of a configuration that says where it listens, unless the command names one."""
    with suppress(SettingsError):
        if not link.urls and "listen.command" in given.origins():
            return msgspec.structs.replace(link, urls=(nearest(given.read().listen.command),))
    return link


def _of_the_machine(given: Given) -> Iterator[Finding]:
    try:
        settings = given.read()
    except SettingsError as error:
        yield from (Finding("fault", "settings", line) for line in error.lines)
        return
    yield Finding("ok", "settings", "the defaults" if given.config is None else str(given.config.absolute()))
    yield from _of_the_database(settings)
    yield from machine_findings(settings)


def _of_the_database(settings: Settings) -> Iterator[Finding]:
    store = settings.store
    try:
        warnings = databases().examine(store.url)
        for warning in warnings:
            yield Finding("warning", "database", warning)
        if not warnings:
            yield Finding("ok", "database", databases().described(store.url))
        if not store.engine:
            yield from file_findings(Path(databases().database_path(store.database)).absolute(), settings)
    except (DatabaseUnusable, StoreFailure, ValueError, OSError) as error:
        yield Finding("fault", "database", str(error))


def _of_the_worker(link: Link) -> list[Finding]:
    async def asked() -> list[Finding]:
        findings: list[Finding] = []
        try:
            async with open_bot(link, max_in_flight=0) as bot:
                findings += [finding async for finding in worker_findings(bot)]
        except* WorkerUnavailable as errors:
            findings.append(Finding("warning", "worker", f"its state is unknown: {first(errors)}"))
        return findings

    return run(asked)
