"""Commands about a whole database, for which no worker is asked: `check`, `backup` and `restore`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import rich_click as click

from ..configuration import Given
from ..errors import DatabaseUnusable
from ..model.engines import is_engine
from ..settings import SettingsError
from ..settings.environment import variable
from .checking import progress, show_check, show_copy
from .console import show_json
from .exit_codes import exit_codes
from .joined import databases
from .streams import EXIT_DATA, say

__all__ = ["backup", "check", "of_a_store", "restore", "restored"]

_TOOLS = (
    "use pg_basebackup with an archive of the WAL, which restores any moment, or pg_dump, which restores its own;"
    ' docs/postgresql.md has both, "Backups"'
)


def _given(config: Path | None, database: str | None, engine: str | None) -> Given:
    return Given(config, {"store": {"database": database, "engine": engine}})


def _file_or_engine(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None or is_engine(value):
        return value
    return str(click.Path(exists=True, dir_okay=False, readable=False).convert(value, parameter, context))


def of_a_store(
    command: Callable[..., None], engine: str = "A database of PostgreSQL instead: postgresql://…"
) -> Callable[..., None]:
    """Add the options that say which database a command is about, as `serve` finds it."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object."),
        click.option("--config", type=click.Path(path_type=Path), help="The configuration that names it."),
        click.option("--engine", metavar="URL", help=engine),
        click.option("--database", metavar="FILE", help="The database.  [default: the configured one]"),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("file", metavar="[FILE]", required=False, callback=_file_or_engine)
@of_a_store
def check(file: str | None, config: Path | None, database: str | None, engine: str | None, as_json: bool) -> None:
    """Read a whole database: schema, checksums, references, last seq.

    It is FILE, such as a backup, or postgresql://…; without it, the configured one, as for `posthouse serve`. Exits
    with 65 if something is damaged. The database may be in use; it is only read.
    """
    if file is not None and (config or database or engine):
        raise click.UsageError("name the database once: by FILE, or by an option")
    with exit_codes():
        try:
            found = databases().check_of(file or _configured(_given(config, database, engine)))
        except ValueError as error:
            raise SettingsError(str(error)) from error
        if not show_check(found, as_json=as_json):
            sys.exit(EXIT_DATA)


_of_a_database = partial(of_a_store, engine="A database of PostgreSQL: says which of its tools to use.")


def _database(given: Given) -> Path:
    """Return the file that a configuration names. Raise DatabaseUnusable, with what to do, if it is an engine."""
    settings = given.read().store
    if settings.engine:
        raise DatabaseUnusable(
            f"{databases().described(settings.engine)} is PostgreSQL's own to copy and to restore: {_TOOLS}"
        )
    try:
        return Path(databases().database_path(settings.database)).absolute()
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _configured(given: Given) -> str:
    """Return the database that a configuration names: the URL of an engine, or a file that exists."""
    if engine := given.read().store.engine:
        return engine
    path = _database(given)
    _check_database(path, given)
    return str(path)


def _check_database(path: Path, given: Given) -> None:
    """Raise DatabaseUnusable, with where its name comes from, if there is no such file."""
    if not path.exists():
        origin = given.origins().get("store.database", "default")
        named = {
            "default": "the default in this folder",
            "file": f"what {given.config} names",
            "environment": f"what {variable('store', 'database')} names",
            "option": "what --database names",
        }
        raise DatabaseUnusable(
            f"there is no database {path}, {named[origin]}: name the worker's with --database FILE, or its"
            " configuration with --config FILE; its log says which it is ('serving')"
        )


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@_of_a_database
def backup(file: Path, config: Path | None, database: str | None, engine: str | None, as_json: bool) -> None:
    """Copy the database to FILE while the worker goes on, and check the copy.

    FILE has everything that was acknowledged before this began. It replaces an earlier backup there, and nothing
    else, once it was read as by `posthouse check`, and is on the disk; if anything fails, or this is killed, the
    earlier one stays.

    The database is the configured one, as for `posthouse serve`; the answer names it. Run this as the worker's
    user, on the worker's machine. It reads one snapshot: while it does, the write-ahead log beside the database
    grows by what is written.
    """
    if str(file) == "-":
        raise click.UsageError(
            "a backup is a file, which is checked: name one; 'posthouse export -' writes messages"
        )
    with exit_codes():
        given = _given(config, database, engine)
        source = _database(given)
        _check_database(source, given)
        with progress() as tell:
            check = databases().back_up(source, file, tell)
        show_copy(
            check, as_json=as_json, said=f"backed up {source} to {file}", database=str(source), backup=str(file)
        )


@click.command()
@click.argument("backup", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_of_a_database
def restore(backup: Path, config: Path | None, database: str | None, engine: str | None, as_json: bool) -> None:
    """Put a copy of BACKUP in the place of the database, whose worker is stopped.

    BACKUP is checked first; if it is damaged, nothing changes. The old database is not removed: it gets another
    name, with the files beside it.

    What was acknowledged after the backup is not in it. The next start gives the log a new epoch: it assigns the
    same seqs to other messages, and the clients are told to forget what they knew of them.
    """
    with exit_codes():
        target = _database(_given(config, database, engine))
        with progress() as tell:
            check, aside = databases().restore(backup, target, tell)
        said = f"restored {target} from {backup}"
        if aside is not None:
            said += f"; the old one is {aside}: remove it, and {aside.name}-*, when you do not need it any more"
        kept = None if aside is None else str(aside)
        show_copy(check, as_json=as_json, said=said, database=str(target), backup=str(backup), kept=kept)


@click.command()
@_of_a_database
def restored(config: Path | None, database: str | None, engine: str | None, as_json: bool) -> None:
    """Say that PostgreSQL was restored to an earlier moment, which it does not tell by itself.

    The log gets a new epoch: it assigns seqs again, and the clients are told to forget what they knew of them.
    Whoever holds a run loses it. Run this before the workers start, or as soon as you notice; it can be repeated.
    """
    with exit_codes():
        settings = _given(config, database, engine).read().store
        if not settings.engine:
            raise SettingsError("name the engine that was restored with --engine; files are put back by 'restore'")
        try:
            epoch = anyio.run(databases().begin_again, settings.engine)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        named = databases().described(settings.engine)
        if as_json:
            show_json({"database": named, "epoch": epoch})
        else:
            say(f"the log of {named} has a new epoch, {epoch}; the workers can start")
