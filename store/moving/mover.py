"""Moving all records of one store to another, so that a worker there goes on where the one here stopped.

Owns the order in which things are done, which is what a kill in the middle leaves behind: until every record was
read from both and compared, the source is whole and may be served; then it is closed, and only then the target is
opened. So at no time may both be served, and at most a repetition of the move is needed until one is
(docs/decisions/0085-moving-house.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec
import uuid_utils

from bus.errors import DatabaseDamaged, DatabaseUnusable
from bus.model.databases import LogHead, Moved, Tell
from bus.model.records import timestamp

from .kinds import KINDS, MESSAGES, Kind, Row, RowKey, is_damaged
from .movable import Movable, Move, Site, Standing, State, refusal

__all__ = ["move", "reopen", "survey"]


async def survey(source: Site, target: Site) -> tuple[Standing, Standing]:
    """Return what two stores have, without changing them; raise what a move would, if it is refused at once.

    A worker may be using them.
    """
    here, there = await source.look(), await target.look()
    if here.log is None:
        raise DatabaseUnusable(f"there is no store at {source.name}: nothing can be moved")
    _plan(source.name, here, target.name, there)
    return here, there


async def move(source: Site, target: Site, tell: Tell) -> Moved:
    """Move a store, or go on with a move that was interrupted.

    Nothing is acknowledged or delivered meanwhile: both are locked against workers. When this returns, the target
    is open for service, and has every record as it was, with the same seqs, ids, positions and epoch; and the
    source is refused by a worker. If this raises or is killed, call it again; the source may also be served again,
    which ends the move.

    Raise DatabaseInUse if a worker serves one of them; DatabaseUnusable if the target is not empty, or something
    cannot be stored there; DatabaseDamaged if a record is damaged so that a worker would not serve it, or is not
    the same in both; and what opening a store raises.
    """
    async with source.open() as old:
        here = await old.standing()
        plan = _plan(old.place, here, target.name, await target.look())
        assert here.log is not None
        if plan is None:
            return Moved(old.place, target.name, here.log, here.counts, already=True)
        if plan is State.LEAVING:
            await old.check()
        async with target.open(new=True) as new:
            return await _Mover(old, new, here.log, here.counts, tell).run(plan)


async def reopen(source: Site) -> LogHead:
    """Let a store that was moved go on from where it was left, under a new epoch; return its log.

    What was acknowledged at the other place is not in it: clients are told to forget what they know of its seqs.
    Raise DatabaseUnusable if it was not moved.
    """
    async with source.open() as leaving:
        here = await leaving.standing()
        if here.move is None or here.move.state is not State.LEFT:
            raise DatabaseUnusable(f"{leaving.place} was not moved: serve it as it is")
        await leaving.part()
        log = (await leaving.standing()).log
        assert log is not None
        return log


def _plan(source: str, here: Standing, target: str, there: Standing) -> State | None:
    """Return how far the move is: LEAVING, or LEFT if only the target is to be opened; None if it is over.

    Raise DatabaseUnusable if these two cannot be moved.
    """
    if here.move is not None and here.move.state is State.ARRIVING:
        raise refusal(source, here.move) or AssertionError
    left = here.move is not None and here.move.state is State.LEFT
    if there.move is not None and there.move.state is State.ARRIVING:
        begun = not left and not any(there.counts.values())  # the log is taken over after the move is noted
        if here.move is not None and here.move.id == there.move.id and (begun or _epoch(here) == _epoch(there)):
            return State.LEFT if left else State.LEAVING
        raise DatabaseUnusable(
            f"{target} has a part of {there.move.place}, which was served since, or is another store: remove what"
            " has arrived there, and begin again"
        )
    if left:
        if there.move is None and _epoch(here) == _epoch(there):
            return None
        raise refusal(source, here.move) or AssertionError
    if not there.is_empty:
        raise DatabaseUnusable(f"{target} is not empty: move to a new place, or remove what is there")
    return State.LEAVING


def _epoch(standing: Standing) -> str | None:
    return None if standing.log is None else standing.log.epoch


class _Mover:
    """One attempt to finish a move."""

    def __init__(
        self, source: Movable, target: Movable, log: LogHead, counts: Mapping[str, int], tell: Tell
    ) -> None:
        self._source = source
        self._target = target
        self._log = log
        self._counts = counts
        self._tell = tell

    async def run(self, plan: State) -> Moved:
        """Do what is left of it."""
        damaged: list[int] = []
        if plan is State.LEAVING:
            await self._begin()
            await self._copy()
            damaged = await self._compare()
            await self._hand_over()
        await self._target.open_up()
        self._tell(("opening", 1, 1))
        warnings = [*self._source.warnings, *self._target.warnings]
        return Moved(self._source.place, self._target.place, self._log, self._counts, damaged, warnings)

    async def _begin(self) -> None:
        """Note the move in both, unless that was done before."""
        here, there = await self._source.standing(), await self._target.standing()
        if _plan(self._source.place, here, self._target.place, there) is not State.LEAVING:
            raise AssertionError
        if any(there.counts.values()):
            return
        if there.move is None:
            begun = Move(str(uuid_utils.uuid7()), State.LEAVING, self._target.place, timestamp(datetime.now(UTC)))
            await self._source.note(begun)
            self._tell(("beginning", 1, 3))
            arriving = msgspec.structs.replace(begun, state=State.ARRIVING, place=self._source.place)
            await self._target.note(arriving)
            self._tell(("beginning", 2, 3))
        await self._target.take_over(self._log)  # not before a worker would refuse it
        self._tell(("beginning", 3, 3))

    async def _copy(self) -> None:
        """Copy what the target does not have yet: of each kind, it has the first records."""
        done = sum((await self._target.standing()).counts.values())
        for kind in KINDS:
            after = await self._target.last_key(kind)
            while rows := await self._source.read(kind, after):
                _check_texts(self._source.place, kind, rows)
                await self._target.write(kind, rows)
                after = kind.key(rows[-1])
                done += len(rows)
                self._tell(("copying", done, self._total))

    @property
    def _total(self) -> int:
        return sum(self._counts.values())

    async def _compare(self) -> list[int]:
        """Read every record from both, and raise DatabaseDamaged at the first difference."""
        damaged: list[int] = []
        done = 0
        for kind in KINDS:
            after: RowKey | None = None
            while True:
                theirs = await self._target.read(kind, after)
                ours = await self._source.read(kind, after)
                both = min(len(ours), len(theirs))
                if ours[:both] != theirs[:both] or (not both and ours != theirs):
                    self._differ(kind, ours, theirs)
                if not both:
                    break
                if kind is MESSAGES:
                    damaged += [row[0] for row in theirs[:both] if is_damaged(row)]
                after = kind.key(ours[both - 1])
                done += both
                self._tell(("comparing", done, self._total))
        there = await self._target.standing()
        if there.log != self._log or sum(there.counts.values()) != self._total:
            raise DatabaseDamaged(
                f"{self._target.place} has {there.log} and {there.counts}, but {self._source.place} has {self._log}"
                f" and {self._counts}: remove what has arrived, and begin again"
            )
        await self._target.check()
        return damaged

    def _differ(self, kind: Kind, ours: Sequence[Row], theirs: Sequence[Row]) -> None:
        pairs = zip([*ours, None], [*theirs, None], strict=False)
        row = next(our or their for our, their in pairs if our != their)
        raise DatabaseDamaged(
            f"{kind.label} {_shown(kind, row)} is not the same in {self._target.place} as in {self._source.place}:"
            " remove what has arrived, and begin again"
        )

    async def _hand_over(self) -> None:
        """Close the source. From here on only the target may be served, once it is opened."""
        move = (await self._source.standing()).move
        assert move is not None
        await self._source.note(msgspec.structs.replace(move, state=State.LEFT))
        self._tell(("opening", 0, 1))


def _check_texts(place: str, kind: Kind, rows: Sequence[Row]) -> None:
    """Raise DatabaseDamaged if a text is not UTF-8, as it may be in a file."""
    try:
        msgspec.msgpack.encode(rows)
    except UnicodeEncodeError as error:
        found = next(row for row in rows if not _is_utf8(row))
        raise DatabaseDamaged(
            f"{place} is damaged: a text of {kind.label} {_shown(kind, found)} is not UTF-8; restore a copy"
        ) from error


def _is_utf8(row: Row) -> bool:
    return all(value.encode(errors="replace").decode() == value for value in row if isinstance(value, str))


def _shown(kind: Kind, row: Row | None) -> str:
    return "?" if row is None else " ".join(f"{value!r}" for value in kind.key(row))
