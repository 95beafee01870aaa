"""Every setting of a worker: its name, unit, default, bounds and reason. Pure.

Other rooms have no number that a person might want to change. `sections` has the tables of `config/posthouse.toml`;
`store`, `retention`, `leadership` and `rights` have those that fill a module. `environment` takes settings from
variables, `changes` decides what a running worker takes over, and `faults` and `words` say what is wrong.
"""

from __future__ import annotations

from .faults import SettingsError
from .retention import EventSettings, Keep, RetentionSettings
from .sections import Delivery, Limits, Listen, Log, Security, Settings, Workflows

__all__ = [
    "Delivery",
    "EventSettings",
    "Keep",
    "Limits",
    "Listen",
    "Log",
    "RetentionSettings",
    "Security",
    "Settings",
    "SettingsError",
    "Workflows",
]
