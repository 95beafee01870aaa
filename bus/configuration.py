"""A worker's settings, read from its configuration file and from the options that override it.

Owns the reading, for `serve`, for a reload, and for the commands that work on a stopped worker's database.
"""

from __future__ import annotations

from pathlib import Path

from .settings import Settings, SettingsError, parse_settings

__all__ = ["read_settings"]


def read_settings(
    config: Path | None, *, command: str | None = None, tap: str | None = None, database: str | None = None
) -> Settings:
    """Return the settings in a file, or the defaults without one, with the options that are not None.

    Raise SettingsError, which names the file, if they are wrong or cannot be read.
    """
    try:
        settings = parse_settings(config.read_text(encoding="utf-8-sig")) if config is not None else Settings()
        return settings.override(command=command, tap=tap, database=database)
    except (SettingsError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config or 'the options'}: {error}") from error
    except OSError as error:
        raise SettingsError(f"{config} cannot be read: {error.strerror}") from error
