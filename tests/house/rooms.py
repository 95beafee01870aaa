"""The rooms of the house: which each may import, and which modules are pure (docs/design.md)."""

from __future__ import annotations

ROOMS = {
    "bus.errors": set(),
    "bus.model": set(),
    "bus.wire": {"bus.model"},
    "bus.settings": {"bus.model", "bus.wire"},
    "bus.configuration": {"bus.settings"},
    "bus.mailbox": {"bus.model", "bus.wire", "bus.settings"},
    "bus.core": {"bus.model", "bus.wire", "bus.settings", "bus.mailbox"},
    "bus.curve": set(),
    "bus.secret_files": set(),
    "bus.worker_key": {"bus.curve", "bus.secret_files", "bus.wire"},
    "bus.transport": {"bus.curve", "bus.wire"},
    "bus.signals": set(),
    "bus.broker": {"bus.core", "bus.mailbox", "bus.model", "bus.settings", "bus.transport", "bus.wire"},
    "bus.client": {"bus.curve", "bus.model", "bus.secret_files", "bus.signals", "bus.transport", "bus.wire"},
    "bus.runs": {"bus.client", "bus.model", "bus.wire"},
    "bus.bot": {"bus.client", "bus.model", "bus.runs", "bus.transport", "bus.wire"},
    "bus.house_key": {"bus.model", "bus.settings", "bus.worker_key"},
    "bus.adopting": {
        "bus.client",
        "bus.house_key",
        "bus.model",
        "bus.settings",
        "bus.wire",
        "bus.worker_key",
    },
    "bus.cli": {
        "bus.adopting",
        "bus.bot",
        "bus.client",
        "bus.curve",
        "bus.model",
        "bus.runs",
        "bus.settings",
        "bus.configuration",
        "bus.signals",
        "bus.wire",
        "bus.worker_key",
    },
    "bus.demo": {"bus.bot", "bus.cli", "bus.client", "bus.model", "bus.wire"},
    "bus.web": {"bus.bot", "bus.cli", "bus.client", "bus.model", "bus.runs", "bus.secret_files", "bus.wire"},
    "bus.integrations": {
        "bus.bot",
        "bus.cli",
        "bus.client",
        "bus.model",
        "bus.runs",
        "bus.secret_files",
        "bus.wire",
    },
    "bus.testing": {"bus.bot", "bus.broker", "bus.client", "bus.model", "bus.runs", "bus.settings", "store"},
    "bus.sync": {"bus.bot", "bus.client", "bus.wire"},
    "bus": {"bus.sync", "bus.bot", "bus.client", "bus.model", "bus.runs", "bus.wire"},
    "bus.__main__": {"bus.cli"},
    "store": {"bus.model"},
    "store.sqlite": {"bus.model", "store"},
    "store.postgresql": {"bus.model", "store"},
}
"""Which rooms each room may import; `bus` is its own `__init__`. `worker` may import them all."""

EVERYWHERE = "bus.errors"
"""What every room may import: it imports none."""

PURE = {"bus.model", "bus.errors", "bus.wire", "bus.settings", "bus.mailbox", "bus.core"}
"""The pure rooms."""

PURE_TOO = {
    "bus.broker.admitting",
    "bus.broker.connections",
    "bus.broker.paging",
    "bus.broker.repeats",
    "bus.client.deliveries",
    "bus.client.forgotten",
    "bus.client.route",
    "bus.runs.replay",
    "bus.web.alarms",
    "bus.web.plots",
    "bus.web.shown",
    "store.findings",
    "store.keyed_rows",
    "store.message_rows",
    "store.moving.movable",
    "store.moving.kinds",
    "store.portions",
    "store.seals",
    "store.urls",
}
"""Pure modules of other rooms."""

IMPURE_IMPORTS = {
    "aiosqlite",
    "anyio",
    "asyncio",
    "asyncpg",
    "logging",
    "os",
    "random",
    "secrets",
    "socket",
    "sqlite3",
    "structlog",
    "subprocess",
    "threading",
    "time",
    "trio",
    "uuid",
    "uuid_utils",
    "zmq",
}

IMPURE_CALLS = {"input", "now", "open", "print", "today", "utcnow"}
WITH_PROTOCOLS = {
    "bus.model.databases",
    "bus.model.keyed",
    "bus.model.leadership",
    "bus.model.openings",
    "bus.model.repository",
    "bus.model.schedules",
    "bus.model.workflows",
}
WITH_PROTOCOLS |= {"store.moving.movable"}
"""The pure modules with `async def`: their protocols describe what a backend does."""

DATABASE_LIBRARIES = {"aiosqlite": "store.sqlite", "sqlite3": "store.sqlite", "asyncpg": "store.postgresql"}
"""Which room alone imports them."""

ENTRIES = {
    "worker",
    "bus.testing",
    "bus.integrations.cloudevents",
    "bus.integrations.openai_agents",
    "bus.integrations.opentelemetry",
    "bus.integrations.pydantic_ai",
    "store.errors",
    "store.records",
    "store.repository",
}
"""What nothing in the house has to import: the process, and what others import (docs/python.md)."""
