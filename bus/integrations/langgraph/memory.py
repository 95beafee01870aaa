"""LangGraph's long-term memory in a keyed store of the worker.

Owns keys and rows: an item is a value under `LABEL/LABEL/!KEY`. The `!` comes before everything else in the order
of keys, so that the items of a namespace are followed by those of the namespaces in it.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    validate_op_namespace,
)

from ...bot import Bot
from ...client.keyed import KeyedValue
from ...errors import RevisionConflict
from ..bot_loop import BotOpening, InKeyedStore

__all__ = ["LangGraphStore"]

_STORE = "langgraph.memory"

_MARK = "!"
_AFTER_MARK = '"'
"""What comes directly after the mark, and in no key: labels and keys are quoted."""

_PAGE_ITEMS = 100

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": operator.eq,
    "$ne": operator.ne,
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}

AnItem = TypeVar("AnItem", bound=Item)


class LangGraphStore(InKeyedStore, BaseStore):
    """Keeps what LangGraph's agents remember across threads: `builder.compile(store=LangGraphStore(bot))`.

    Create it in the event loop in which the bot was connected. Its methods may then be called from everywhere:
    those that begin with `a` in any event loop, and the others in any thread but that of the bot's loop. Programs
    without an event loop use `from_conn_string`.

    When a method returns, what it wrote is on the worker's disk. Values are JSON. Items are found in the order of
    their namespaces and keys; a `query` in natural language is not used, because nothing is embedded. Times to live
    are in minutes, as LangGraph has them, and the worker ends items by its own clock; `ttl` has the defaults.
    `store` is the name of the keyed store.
    """

    supports_ttl = True

    def __init__(self, bot: Bot, *, store: str = _STORE, ttl: TTLConfig | None = None) -> None:
        self.ttl_config = ttl
        self._keep_in(bot, store)

    @classmethod
    def from_conn_string(
        cls,
        url: str | None = None,
        *,
        bot: str | None = "langgraph",
        store: str = _STORE,
        ttl: TTLConfig | None = None,
        **options: Any,
    ) -> BotOpening[LangGraphStore]:
        """Connect a bot for a block: `with LangGraphStore.from_conn_string() as store:`, or `async with`.

        The arguments besides `store` and `ttl` are those of `bus.connect`; with `credentials=`, pass `bot=None`.
        """
        return cls._opening(url, bot, options, store=store, ttl=ttl)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Carry out operations: what is read first, and then what is put, of each key the last value."""
        return self._loop.call(self._batch, list(ops))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what `batch` does."""
        return await self._loop.run(self._batch, list(ops))

    async def _batch(self, ops: Sequence[Op]) -> list[Result]:
        for op in ops:
            validate_op_namespace(op)
        results = await asyncio.gather(*map(self._read_in_turn, ops))
        puts = {_key(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}
        await asyncio.gather(*(self._put(key, op) for key, op in puts.items()))
        return list(results)

    async def _read_in_turn(self, op: Op) -> Result:
        async with self._reads:
            return await self._read(op)

    async def _read(self, op: Op) -> Result:
        if isinstance(op, GetOp):
            found = await self.kv.get(_key(op.namespace, op.key))
            if found is not None and op.refresh_ttl:
                await self._refresh(found)
            return None if found is None else _item(Item, found)
        if isinstance(op, SearchOp):
            return await self._search(op)
        if isinstance(op, ListNamespacesOp):
            return await self._namespaces(op)
        return None

    async def _put(self, key: str, op: PutOp) -> None:
        if op.value is None:
            await self.kv.delete(key)
            return
        now = datetime.now(UTC).isoformat()
        while True:
            found = await self.kv.get(key)
            row = {
                "value": op.value,
                "created_at": now if found is None else found.value["created_at"],
                "updated_at": now,
                "ttl": op.ttl,
            }
            try:
                await self.kv.put(key, row, expected=0 if found is None else found.revision, ttl=_seconds(op.ttl))
            except RevisionConflict:
                continue  # somebody else put it meanwhile
            return

    async def _refresh(self, found: KeyedValue) -> None:
        """Let an item live on from now, unless it was put anew since it was read."""
        seconds = _seconds(found.value["ttl"])
        if seconds is not None:
            with suppress(RevisionConflict):
                await self.kv.put(found.key, found.value, expected=found.revision, ttl=seconds)

    async def _search(self, op: SearchOp) -> list[SearchItem]:
        end = op.offset + op.limit
        size = _PAGE_ITEMS if op.filter else max(1, min(_PAGE_ITEMS, end))
        prefix = _folder(op.namespace_prefix)
        matching: list[KeyedValue] = []
        after: str | None = None
        while len(matching) < end and (page := await self.kv.list(prefix, after=after, limit=size)):
            matching += [found for found in page if not op.filter or _fits(found.value["value"], op.filter)]
            after = page[-1].key
        chosen = matching[op.offset : end]
        if op.refresh_ttl:
            await asyncio.gather(*map(self._refresh, chosen))
        return [_item(SearchItem, found) for found in chosen]

    async def _namespaces(self, op: ListNamespacesOp) -> list[tuple[str, ...]]:
        conditions = op.match_conditions or ()
        beginnings = [_folder(_known(each)) for each in conditions if each.match_type == "prefix"]
        prefix = max(beginnings, key=len, default="")
        found: set[tuple[str, ...]] = set()
        after: str | None = None
        while page := await self.kv.list(prefix, after=after, limit=1):
            folder = page[0].key.partition(_MARK)[0]
            namespace = _labels(folder)
            if all(_matches(namespace, condition) for condition in conditions):
                found.add(namespace[: op.max_depth])
            after = folder + _AFTER_MARK  # past all items of this namespace
        return sorted(found)[op.offset : op.offset + op.limit]


def _folder(namespace: Sequence[str]) -> str:
    return "".join(f"{quote(label, safe='')}/" for label in namespace)


def _labels(folder: str) -> tuple[str, ...]:
    return tuple(map(unquote, folder.split("/")[:-1]))


def _key(namespace: Sequence[str], key: str) -> str:
    return f"{_folder(namespace)}{_MARK}{quote(key, safe='')}"


def _item(kind: type[AnItem], found: KeyedValue) -> AnItem:
    folder, _, key = found.key.partition(_MARK)
    row = found.value
    return kind(
        namespace=_labels(folder),
        key=unquote(key),
        value=row["value"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _seconds(ttl_minutes: float | None) -> float | None:
    return None if ttl_minutes is None else ttl_minutes * 60


def _known(condition: MatchCondition) -> Sequence[str]:
    """Return the labels of a path up to the first wildcard."""
    path = list(condition.path)
    return path[: path.index("*")] if "*" in path else path


def _matches(namespace: Sequence[str], condition: MatchCondition) -> bool:
    path = condition.path
    if len(namespace) < len(path):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", label) for wanted, label in zip(path, part, strict=True))


def _fits(value: Any, wanted: Any) -> bool:
    """Return True if a value is as a filter wants it: equal, in some fields equal, or so by comparisons."""
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    if any(key.startswith("$") for key in wanted):
        return all(_compares(value, name, operand) for name, operand in wanted.items())
    return isinstance(value, Mapping) and all(_fits(value.get(key), each) for key, each in wanted.items())


def _compares(value: Any, name: str, operand: Any) -> bool:
    if name not in _COMPARISONS:
        raise ValueError(f"a filter has one of {', '.join(_COMPARISONS)}, and not {name!r}")
    try:
        return bool(_COMPARISONS[name](value, operand))
    except TypeError:  # None, or something of another type, is neither less nor greater
        return False
