"""Keys in the log in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from bus.model.repository import AddKey, NoteKeyUse, RevokeKeys

if TYPE_CHECKING:
    from .fake_log import FakeLog

__all__ = ["change_keys"]


def change_keys(log: FakeLog, change: AddKey | RevokeKeys | NoteKeyUse) -> None:
    match change:
        case AddKey(key):
            for forgotten in change.forget:
                log.keys.pop(forgotten, None)
            assert key.public_key not in log.keys
            assert key.bot_id in log.bots
            log.keys[key.public_key] = key
            if change.replaces is not None:
                ends = {"replaced_by": key.public_key, "expires_at": change.replaced_until}
                log.keys[change.replaces] = replace(log.keys[change.replaces], **ends)
        case RevokeKeys(public_keys, at):
            for each in public_keys:
                if each in log.keys and log.keys[each].revoked_at is None:
                    log.keys[each] = replace(log.keys[each], revoked_at=at)
        case NoteKeyUse(used_at):
            for each, at in used_at.items():
                if each in log.keys:
                    log.keys[each] = replace(log.keys[each], last_used_at=at)
