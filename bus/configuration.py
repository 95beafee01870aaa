"""A worker's settings, read from its configuration file, its environment, and the options that override both.

Owns the reading, for `serve`, for a reload, and for the commands that work on a stopped worker's database.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from .settings import Settings, SettingsError
from .settings.changes import take_over
from .settings.environment import environment_tables, variable
from .settings.faults import faults_of

__all__ = ["Given", "Rereading", "parse_settings", "read_settings"]

_DATABASES = ("database", "engine")
"""The keys that say where everything is stored: whoever has one of them names the database."""

_DATABASE_NAMES = frozenset(f"store.{key}" for key in _DATABASES)


def read_settings(
    config: Path | None, *, environment: Mapping[str, str] | None = None, **options: Mapping[str, Any]
) -> Settings:
    """Return the settings in a file, or the defaults without one.

    What the environment says goes before the file (`os.environ` if it is None), and an option before both. Options
    are the keys of sections; those that are None say nothing.

    Raise SettingsError, which names where they come from, if they are wrong or cannot be read.
    """
    tables = environment_tables(os.environ if environment is None else environment)
    variables = [variable(section, key) for section in tables for key in tables[section]]
    for section, keys in options.items():
        tables[section] = _over(tables.get(section, {}), {key: new for key, new in keys.items() if new is not None})
    try:
        return parse_settings("" if config is None else config.read_text(encoding="utf-8-sig"), tables)
    except (SettingsError, UnicodeDecodeError) as error:
        places = [str(place) for place in (config, ", ".join(variables)) if place]
        faults = error.faults if isinstance(error, SettingsError) else (str(error),)
        raise SettingsError(*faults, place=" and ".join(places) or "the options") from error
    except OSError as error:
        raise SettingsError(f"{config} cannot be read: {error.strerror}") from error


class Given(msgspec.Struct, frozen=True):
    """What a command line says of a worker: which configuration, and the options that override it."""

    config: Path | None
    options: Mapping[str, Mapping[str, Any]]

    def read(self) -> Settings:
        """Return the settings, as `read_settings`."""
        return read_settings(self.config, **self.options)

    def origins(self) -> dict[str, str]:
        """Return where each setting comes from that is no default: "file", "environment" or "option".

        Raise SettingsError as `read` does: what is wrong is not looked at any further.
        """
        self.read()
        file = {} if self.config is None else tomllib.loads(self.config.read_text(encoding="utf-8-sig"))
        found: dict[str, str] = {}
        places = {"file": file, "environment": environment_tables(os.environ), "option": self.options}
        for place, tables in places.items():
            for section, keys in tables.items():
                given = [f"{section}.{key}" for key, value in keys.items() if value is not None]
                if any(name in _DATABASE_NAMES for name in given):
                    found = {name: origin for name, origin in found.items() if name not in _DATABASE_NAMES}
                found |= dict.fromkeys(given, place)
        return found


def parse_settings(text: str, before: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Parse a TOML configuration; the keys of the tables `before` go before its own.

    Raise SettingsError, which names each wrong key and what to write there.
    """
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not TOML: {error}") from error
    except ValueError as error:  # from int(), which reads at most 4,300 digits
        raise SettingsError("not a configuration: a number has more digits than can be read") from error
    except RecursionError as error:
        raise SettingsError("not a configuration: its lists and tables are nested too deeply") from error
    for section, table in (before or {}).items():
        if isinstance(data.setdefault(section, {}), dict):
            data[section] = _over(data[section], table)
    try:
        return msgspec.convert(data, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(*faults_of(data, Settings)) from error


def _over(table: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a section with the keys that go before its own. A database goes before an engine, and the reverse."""
    replaced = _DATABASES if any(key in before for key in _DATABASES) else ()
    return {key: value for key, value in table.items() if key not in replaced} | dict(before)


class Rereading:
    """Reads a configuration again, and knows what it said last when it was valid."""

    def __init__(self, read: Callable[[], Settings], settings: Settings) -> None:
        self._read = read
        self._last = settings

    def __call__(self) -> Settings:
        """Read it. Raise SettingsError if it is invalid, or cannot be read."""
        self._last = self._read()
        return self._last

    def latest(self, settings: Settings) -> Settings:
        """Return settings with what a running worker takes over from it now, or from when it was last valid."""
        with suppress(SettingsError):
            self()
        return take_over(settings, self._last).settings
