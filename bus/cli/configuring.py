"""The command `posthouse config`: what a worker is configured to do, and files to begin with.

Owns where these are: in this package, if that was installed, or in config/ of the code.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import rich_click as click

from ..configuration import Given
from ..settings import Settings
from .configured import configured
from .console import show_json, show_rows
from .exit_codes import exit_codes
from .joined import databases
from .streams import say

__all__ = ["config"]

_EXAMPLES = {
    "settings": "posthouse.toml",
    "unit": "posthouse.service",
    "web-unit": "posthouse-web.service",
    "alerts": "prometheus/posthouse.rules.yml",
    "dashboard": "grafana/posthouse.json",
}

_FOLDERS = (Path(__file__).parents[1] / "config", Path(__file__).parents[2] / "config")


@click.command()
@click.option(
    "--example",
    type=click.Choice([*_EXAMPLES]),
    is_flag=False,
    flag_value="settings",
    metavar="[WHAT]",
    help="Without WHAT, print every setting with its default and its reason. WHAT is unit or web-unit for systemd,"
    " alerts for Prometheus, or dashboard for Grafana.",
)
@click.option("--changed", is_flag=True, help="Only what differs from the defaults.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@configured
def config(given: Given, *, example: str | None, changed: bool, as_json: bool) -> None:
    """Show the settings of a worker, and where each comes from: default, file, environment or option.

    They are those with which `posthouse serve` would start here, with the same options. An option overrides the
    environment, which has a variable for each key (POSTHOUSE_LIMITS_SESSIONS_MAX for sessions_max in [limits]), and
    overrides the file that --config names. Exits with 78 if something is wrong with them.

    To begin a file: posthouse config --example > posthouse.toml
    """
    if example is not None:
        folder = next(each for each in _FOLDERS if each.exists())
        say((folder / _EXAMPLES[example]).read_text(encoding="utf-8"), end="")
        return
    with exit_codes():
        settings, origins = given.read(), given.origins()
        known, defaults = msgspec.to_builtins(settings), msgspec.to_builtins(Settings())
        if settings.store.engine:
            known["store"]["engine"] = databases().described(settings.store.engine)
        rows = [
            (f"{section}.{key}", origins.get(f"{section}.{key}", "default"), value)
            for section, keys in known.items()
            for key, value in keys.items()
            if not changed or value != defaults[section][key]
        ]
    if as_json:
        show_json({name: {"value": value, "from": origin} for name, origin, value in rows})
        return
    written = [(name, origin, msgspec.json.encode(value).decode()) for name, origin, value in rows]
    show_rows(("setting", "from", "value"), written, nothing="all settings are the defaults")
