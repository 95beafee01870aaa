"""The settings that a worker's environment has: POSTHOUSE_LIMITS_SESSIONS_MAX is `limits.sessions_max`.

Owns the names of the variables, and how their text is read: as it is where a key has text, otherwise as a value in
TOML. An empty variable says nothing.

Pure: the environment is an argument.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import msgspec

from .sections import Settings

__all__ = ["environment_tables", "variable"]

_PREFIX = "POSTHOUSE_"

_KUBERNETES = re.compile("_SERVICE_HOST$|_SERVICE_PORT|_PORT$|_PORT_[0-9]+_")
"""What Kubernetes sets for each service, for instance one that is called posthouse-log."""


def variable(section: str, key: str) -> str:
    """Return the name of a key's variable."""
    return f"{_PREFIX}{section}_{key}".upper()


def environment_tables(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return what an environment says, as the tables of a configuration.

    Keys that do not exist are in it, to be refused like those of a file. Variables of no section are not ours to
    judge: commands and clients have some.
    """
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    tables: dict[str, dict[str, Any]] = {}
    for name, text in environment.items():
        section, _, key = name.removeprefix(_PREFIX).lower().partition("_")
        is_ours = name.startswith(_PREFIX) and name.isupper() and _KUBERNETES.search(name) is None
        if is_ours and section in sections and key and text:
            tables.setdefault(section, {})[key] = text if _is_text(sections[section], key) else _value(text)
    return tables


def _is_text(section: type[msgspec.Struct], key: str) -> bool:
    types = {field.name: field.type for field in msgspec.structs.fields(section)}
    return key in types and isinstance(msgspec.inspect.type_info(types[key]), msgspec.inspect.StrType)


def _value(text: str) -> Any:
    """Return a value in TOML, or the text itself, which is then refused with the type that is expected."""
    try:
        [value] = tomllib.loads(f"value = {text}").values()
    except (ValueError, RecursionError):  # also a value with further keys after it
        return text
    return value
