"""The module of each command: it is imported when the command is run, and all are for `--help`."""

from __future__ import annotations

__all__ = ["COMMANDS"]

COMMANDS = {
    "approvals": "bus.cli.approvals:approvals",
    "approve": "bus.cli.approvals:approve",
    "audit": "bus.cli.audit:audit",
    "backup": "bus.cli.databases:backup",
    "bots": "bus.cli.messages:bots",
    "cancel": "bus.cli.runs:cancel",
    "check": "bus.cli.databases:check",
    "channels": "bus.cli.messages:channels",
    "dead-letters": "bus.cli.dead_letters:dead_letters",
    "doctor": "bus.cli.doctor:doctor",
    "demo": "bus.demo.demo:demo",
    "erase": "bus.cli.erasing:erase",
    "fork": "bus.cli.retrying:fork",
    "history": "bus.cli.messages:history",
    "keys": "bus.cli.keys:keys",
    "listen": "bus.cli.messages:listen",
    "move": "bus.cli.moving:move",
    "pause": "bus.cli.runs:pause",
    "prune": "bus.cli.pruning:prune",
    "publish": "bus.cli.messages:publish",
    "purge": "bus.cli.removing:purge",
    "reject": "bus.cli.approvals:reject",
    "reload": "bus.cli.rights:reload",
    "removals": "bus.cli.erasing:removals",
    "request": "bus.cli.messages:request",
    "restore": "bus.cli.databases:restore",
    "restored": "bus.cli.databases:restored",
    "resume": "bus.cli.runs:resume",
    "retry": "bus.cli.retrying:retry",
    "run": "bus.cli.runs:show_one",
    "runs": "bus.cli.runs:runs",
    "schedules": "bus.cli.schedules:schedules",
    "scrub": "bus.cli.erasing:scrub",
    "send": "bus.cli.messages:send",
    "serve": "worker:serve",
    "signal": "bus.cli.signals:signal",
    "status": "bus.cli.messages:status",
    "subscriptions": "bus.cli.messages:subscriptions",
    "web": "bus.web.command:web",
    "workflows": "bus.cli.workflows:workflows",
}
"""The commands by name, as `module:function`."""
