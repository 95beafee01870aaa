"""Bots' keys in the log: what each change does."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bus.errors import Conflict
from bus.model.keys import Key, Purpose
from bus.model.repository import AddBot, AddKey, MessageLog, NoteKeyUse, RevokeKeys

from .conftest import stores_only
from .samples import at, bot

pytestmark = pytest.mark.anyio

FIRST = Key(public_key="php_first", bot_id="ann", created_at=at(1), roles=("ops", "billing"), label="laptop")
SECOND = Key(public_key="php_second", bot_id="ann", created_at=at(2), created_by="php_first")


async def keys(log: MessageLog) -> dict[str, Key]:
    return {key.public_key: key for key in (await log.load()).keys}


async def newest(log: MessageLog) -> str | None:
    [found] = (await log.load()).bots
    return found.public_key


async def test_a_key_is_kept_with_all_its_fields(log: MessageLog) -> None:
    key = replace(FIRST, purpose=Purpose.ADMIN, created_by="php_other", expires_at=at(9), replaced_by="php_next")
    await log.apply([AddBot(bot("ann")), AddKey(key)])
    assert await keys(log) == {"php_first": key}


@stores_only
async def test_a_key_that_is_replaced_expires(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddKey(FIRST)])
    await log.apply([AddKey(SECOND, replaces="php_first", replaced_until=at(5))])
    replaced = replace(FIRST, replaced_by="php_second", expires_at=at(5))
    assert await keys(log) == {"php_first": replaced, "php_second": SECOND}
    assert await newest(log) == "php_second"


@stores_only
async def test_keys_are_revoked_once(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddKey(FIRST), AddKey(SECOND)])
    await log.apply([RevokeKeys(("php_second",), at(5))])
    assert await newest(log) == "php_first"
    await log.apply([RevokeKeys(("php_first", "php_second", "php_gone"), at(6))])
    assert {name: key.revoked_at for name, key in (await keys(log)).items()} == {
        "php_first": at(6),
        "php_second": at(5),
    }
    assert await newest(log) is None


async def test_the_use_of_keys_is_noted(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddKey(FIRST), AddKey(SECOND)])
    await log.apply([NoteKeyUse({"php_second": at(7), "php_gone": at(7)})])
    assert await keys(log) == {"php_first": FIRST, "php_second": replace(SECOND, last_used_at=at(7))}


async def test_ended_keys_are_forgotten(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddKey(FIRST)])
    await log.apply([AddKey(SECOND, forget=("php_first",))])
    assert await keys(log) == {"php_second": SECOND}


@stores_only
async def test_a_known_key_is_a_conflict(log: MessageLog) -> None:
    await log.apply([AddBot(bot("ann")), AddKey(FIRST)])
    with pytest.raises(Conflict, match="php_first is known already"):
        await log.apply([AddKey(FIRST)])
