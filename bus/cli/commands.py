"""The commands, in the groups in which `--help` lists them, and the module of each.

A module is imported when its command is run, and all are for `--help`.
"""

from __future__ import annotations

__all__ = ["COMMANDS", "GROUPS"]

GROUPS = {
    "Worker": {
        "serve": "worker:serve",
        "demo": "bus.demo.demo:demo",
        "bot": "bus.cli.runner:bot",
        "status": "bus.cli.messages:status",
        "top": "bus.cli.top:top",
        "doctor": "bus.cli.doctor:doctor",
        "config": "bus.cli.configuring:config",
        "web": "bus.web.command:web",
        "mcp": "bus.integrations.mcp.command:mcp",
        "a2a": "bus.integrations.a2a_command:a2a",
        "reload": "bus.cli.rights:reload",
    },
    "Messages": {
        "send": "bus.cli.messages:send",
        "publish": "bus.cli.messages:publish",
        "request": "bus.cli.messages:request",
        "listen": "bus.cli.messages:listen",
        "history": "bus.cli.messages:history",
        "kv": "bus.cli.values:kv",
    },
    "Looking": {
        "message": "bus.cli.looking:message",
        "mailbox": "bus.cli.looking:mailbox",
        "sessions": "bus.cli.looking:sessions",
        "bots": "bus.cli.messages:bots",
        "channels": "bus.cli.messages:channels",
        "subscriptions": "bus.cli.messages:subscriptions",
        "delayed": "bus.cli.delayed:delayed",
        "dead-letters": "bus.cli.dead_letters:dead_letters",
        "events": "bus.cli.events:events",
        "audit": "bus.cli.audit:audit",
    },
    "Workflows": {
        "workflows": "bus.cli.workflows:workflows",
        "runs": "bus.cli.runs:runs",
        "run": "bus.cli.runs:show_one",
        "approvals": "bus.cli.approvals:approvals",
        "approve": "bus.cli.approvals:approve",
        "reject": "bus.cli.approvals:reject",
        "signal": "bus.cli.signals:signal",
        "pause": "bus.cli.runs:pause",
        "resume": "bus.cli.runs:resume",
        "cancel": "bus.cli.runs:cancel",
        "retry": "bus.cli.retrying:retry",
        "fork": "bus.cli.retrying:fork",
        "schedules": "bus.cli.schedules:schedules",
        "prune": "bus.cli.pruning:prune",
    },
    "Keys": {
        "keys": "bus.cli.keys:keys",
    },
    "Removing": {
        "remove": "bus.cli.removing:remove",
        "purge": "bus.cli.removing:purge",
        "erase": "bus.cli.erasing:erase",
        "scrub": "bus.cli.erasing:scrub",
        "removals": "bus.cli.removals:removals",
    },
    "The database": {
        "backup": "bus.cli.databases:backup",
        "restore": "bus.cli.databases:restore",
        "restored": "bus.cli.databases:restored",
        "check": "bus.cli.databases:check",
        "compact": "bus.cli.compacting:compact",
        "export": "bus.cli.exporting:export",
        "import": "bus.cli.importing:import_",
        "move": "bus.cli.moving:move",
    },
}
"""The commands by name, as `module:function`, in their groups."""

COMMANDS = {name: place for group in GROUPS.values() for name, place in group.items()}
"""All of them."""
