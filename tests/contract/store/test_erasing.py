"""Erasing in the log: the content is gone, the place is kept, and the record says who asked."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from bus.model.keyed import KeyedWrite, SweepKeyed, ValueState
from bus.model.records import RunStatus
from bus.model.repository import (
    AddChannel,
    AddDeadLetters,
    DeadLetter,
    Delayed,
    Erase,
    Erased,
    ErasedValue,
    FindRequest,
    FoundContents,
    FoundRun,
    HistoryRequest,
    MessageLog,
    RemoveMessages,
    SearchRequest,
    Store,
)

from .conftest import LogPlace, stores_only
from .samples import add, at, channel, direct, fill_runs, hold_run, page, read_page, release, to_channel

pytestmark = pytest.mark.anyio


async def erase(log: MessageLog, *seqs: int, id: str = "first", **fields: Any) -> Erased:
    change = Erase(id, "ops", "operator", at(9), seqs, **fields)
    [erased] = (await log.apply([change])).answers
    assert isinstance(erased, Erased)
    return erased


async def found(log: MessageLog, **what: Any) -> FoundContents:
    """Return all that is found, of all portions."""
    whole = FoundContents([], [], [], None, 0, [])
    after: str | None = ""
    while after is not None:
        portion = await log.search(SearchRequest(after=after, **what))
        whole.messages.extend(portion.messages)
        whole.delayed.extend(portion.delayed)
        whole.runs.extend(portion.runs)
        whole.values.extend(portion.values)
        after = portion.after
    return whole


async def test_the_place_is_kept_without_the_content(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob", body=b'"secret"', headers=b'{"x":"secret"}', reply_to="z"), second=1)
    await add(log, direct("b", "ann", "bob"), second=2)
    assert await erase(log, 1, 7) == Erased(seqs=(1,))
    [kept] = await log.messages([1])
    assert (kept.seq, kept.id, kept.sender_bot_id, kept.recipient_bot_id) == (1, "a", "ann", "bob")
    assert (kept.reply_to, kept.timestamp, kept.message_type) == ("z", at(1), "note")
    assert (kept.body, kept.headers) == (b"", b"{}")


async def test_a_page_passes_over_what_is_erased_and_says_so(log: MessageLog) -> None:
    await add(log, *(direct(id, "ann", "bob") for id in "abcd"))
    await erase(log, 2, 3)
    found = await log.read_page(page("bob", ("", 0), seqs=(2,)))
    assert (found.damaged, sorted({*found.erased})) == ((), [2, 3])
    shown = await read_page(log, page("bob", ("", 1), seqs=(2,)))
    assert [message.seq for message in shown.messages] == [4]
    assert shown.recalled == []


async def test_an_erased_id_is_still_known(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"))
    await erase(log, 1)
    [again] = await add(log, direct("a", "ann", "bob"))
    assert (again.seq, again.duplicate) == (1, True)


async def test_an_erasure_is_repeatable(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"), direct("b", "ann", "bob"))
    first = await erase(log, 1)
    again = await erase(log, 1, 2)
    assert (again.again, again.seqs) == (True, first.seqs)
    assert (await log.messages([2]))[0].body != b""
    assert await erase(log, 1, id="second") == Erased()


async def test_a_delayed_message_is_removed(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob", due_at=at(50)), direct("a", "eve", "bob", due_at=at(60)))
    gone = (Delayed("a", "ann"), Delayed("b", "ann"))
    assert await erase(log, delayed=gone) == Erased(delayed=gone[:1])
    state = await log.load()
    assert (dict(state.scheduled), state.next_due_at) == ({"eve": 1}, at(60))


async def test_a_delayed_message_that_became_due_is_erased_in_the_log(log: MessageLog) -> None:
    await add(log, *(direct("a", name, "bob", due_at=at(50)) for name in ("ann", "eve")))
    released = {message.sender_bot_id: message.seq for message in (await release(log, 50)).messages}
    assert await erase(log, delayed=(Delayed("a", "ann"),)) == Erased(seqs=(released["ann"],))
    kept = {message.seq: message.body != b"" for message in await log.messages([*released.values()])}
    assert kept == {released["ann"]: False, released["eve"]: True}


@stores_only
async def test_the_reason_of_a_dead_letter_is_erased_too(log: MessageLog) -> None:
    await add(log, direct("a", "ann", "bob"), direct("b", "ann", "bob"))
    letters = (DeadLetter("bob", 1, "no secret", 1, at(1)), DeadLetter("bob", 2, "another", 1, at(2)))
    await log.apply([AddDeadLetters(letters)])
    await erase(log, 1)
    assert [dead.reason for dead, _ in await log.dead_letters("bob", 9)] == ["another", "erased"]


@stores_only
async def test_a_text_is_found_in_the_reason_of_a_dead_letter(log: MessageLog) -> None:
    await add(log, *(direct(id, "ann", "bob") for id in "abcd"))
    reasons = ["no", "said Secret", 'no "secret"', "none"]
    letters = [
        DeadLetter(name, seq, reasons[seq - 1], 1, at(seq)) for name in ("bob", "eve") for seq in range(1, 5)
    ]
    await log.apply([AddDeadLetters(tuple(letters)), RemoveMessages((3,))])
    await erase(log, 2, id="before")
    await log.apply([AddDeadLetters((DeadLetter("joe", 2, "the secret again", 1, at(9)),))])
    assert sorted({*(await found(log, text="secret")).messages}) == [(2, "b"), (3, "")]
    assert (await erase(log, 2, 3, 4, id="reasons")).seqs == (2, 3, 4)
    assert (await found(log, text="secret")).messages == []
    kept = [(dead.mailbox_id, dead.seq) for dead, _ in await log.dead_letters(None, 99) if dead.reason != "erased"]
    assert sorted(kept) == [("bob", 1), ("eve", 1)]


@stores_only
async def test_many_reasons_are_searched_in_portions(log: MessageLog) -> None:
    letters = [DeadLetter(f"m{seq % 7}", seq, f"reason {seq} of Ann", 1, at(1)) for seq in range(1, 1_202)]
    await log.apply([AddDeadLetters(tuple(letters))])
    assert sorted((await found(log, text="of ann")).messages) == [(seq, "") for seq in range(1, 1_202)]


@stores_only
async def test_histories_and_finding_show_an_erased_message(log: MessageLog) -> None:
    await add(log, to_channel("a", "ann", "news"), to_channel("b", "ann", "news"))
    await erase(log, 1)
    history = await log.history(HistoryRequest(9, channel="news"))
    assert [(message.seq, bool(message.body)) for message in history] == [(2, True), (1, False)]
    message = await log.find(FindRequest("a"))
    assert message is not None
    assert message.body == b""


async def test_runs_that_have_ended_are_removed(store: Store) -> None:
    await fill_runs(store, "w", "done", "failed", status=RunStatus.FAILED)
    await hold_run(store, "held")
    erased = await erase(store.log, runs=("done", "held", "none"))
    assert erased == Erased(runs=("done",), runs_left=("held",))
    assert await store.workflows.get_run("done") is None
    assert await store.workflows.get_run("failed") is not None


async def test_a_message_is_left_while_its_run_has_not_ended(store: Store) -> None:
    """Its bot may fail, and go on with the run only if the message comes again."""
    await add(store.log, direct("held", "ann", "bob"), direct("other", "ann", "bob"))
    await hold_run(store, "held")
    assert await erase(store.log, 1, 2) == Erased(seqs=(2,), runs_left=("held",))
    assert await erase(store.log, 1, id="second", runs=("held",)) == Erased(runs_left=("held",))
    assert (await store.log.messages([1]))[0].body != b""
    await store.workflows.update_run_status("held", RunStatus.COMPLETED, fence=1)
    assert await erase(store.log, 1, id="third", runs=("held",)) == Erased(seqs=(1,), runs=("held",))


async def test_the_record_names_who_and_what(store: Store) -> None:
    await add(store.log, direct("a", "ann", "bob"))
    await erase(store.log, 1, reference="ticket 7")
    await erase(store.log, 1, id="second")
    first, second = await store.log.removals(0, 9)
    assert (first.id, first.at, first.bot_id, first.bot_name) == ("first", at(9), "ops", "operator")
    assert (first.reference, first.erased.seqs, first.scrubbed_at, first.damaged) == ("ticket 7", (1,), None, False)
    assert (second.id, second.erased.seqs) == ("second", ())
    assert [each.id for each in await store.log.removals(first.number, 9)] == ["second"]
    assert [each.id for each in await store.log.removals(0, 1)] == ["first"]


async def test_a_scrub_is_noted_in_the_records_before_it(store: Store) -> None:
    await add(store.log, direct("a", "ann", "bob"), direct("b", "ann", "bob"))
    await erase(store.log, 1)
    await store.log.scrub(at(20))
    await erase(store.log, 2, id="second")
    assert [each.scrubbed_at for each in await store.log.removals(0, 9)] == [at(20), None]
    await store.log.scrub(at(30))
    records = await store.log.removals(0, 9)
    assert [(each.scrubbed_at, each.damaged) for each in records] == [(at(20), False), (at(30), False)]
    [kept] = await add(store.log, direct("c", "ann", "bob"))
    assert kept.seq == 3


@stores_only
async def test_what_was_erased_stays_so(log_place: LogPlace) -> None:
    async with log_place.open() as log:
        await add(log, direct("a", "ann", "bob"))
        await erase(log, 1)
    async with log_place.open() as log:
        assert [message.body for message in await log.messages([1])] == [b""]
        assert (await erase(log, 1)).again


# ── Searching ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def filled(store: Store) -> MessageLog:
    await add(
        store.log,
        direct("a", "ann", "bob", body=b'{"customer":{"email":"Ann@Example.org"}}'),
        direct("b", "ann", "bob", body=b'{"note":"write to ann@example.org soon"}'),
        direct("c", "ann", "bob", headers=b'{"subject":"ann@example.org"}'),
        direct("d", "ann", "bob", body=b'{"items":[{"n":17},{"n":18}]}'),
        direct("e", "ann", "bob", body='{"who":"Müller \\"x\\""}'.encode()),
        direct("f", "ann", "bob", body=b'{"who":"M\\u00FCller"}'),
        direct("a", "eve", "bob", body=b'{"n":0}'),
        direct("h", "ann", "bob", body=b'{"firm":"M\\u0026S \\u003cshop\\u003e","\\u0061t":"A\\/B"}'),
        direct("i", "ann", "bob", body=b'["one\\norange", 1.50e3, "\\ud83d\\ude00", "\xf0\x9f\x98\x81"]'),
        direct("j", "ann", "bob", headers=b'{"firm":"M\\u0026S"}'),
        direct("k", "ann", "bob", body=b'"\\u006D\\u0026S"', due_at=at(60)),
        direct("g", "ann", "bob", body=b'"ann@example.org"', due_at=at(50)),
    )
    return store.log


def ids(contents: FoundContents) -> list[str]:
    return [id for _, id in contents.messages] + [each.id for each in contents.delayed]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"text": "ann@example.org"}, ["a", "b", "c", "g"]),
        ({"text": "müller"}, ["e", "f"]),
        ({"text": 'Müller "x"'}, ["e"]),
        ({"text": "%"}, []),
        ({"text": "M&S"}, ["h", "j", "k"]),
        ({"text": "<shop>"}, ["h"]),
        ({"text": "a/b"}, ["h"]),
        ({"text": "at"}, ["h"]),
        ({"text": "/"}, ["h"]),
        ({"text": "norange"}, []),
        ({"text": "1.50E3"}, ["i"]),
        ({"text": "\N{GRINNING FACE}"}, ["i"]),
        ({"text": "\N{GRINNING FACE WITH SMILING EYES}"}, ["i"]),
        ({"text": "e\no"}, ["i"]),
        ({"header": ("firm", "m&s")}, ["j"]),
        ({"path": ("firm",), "value": "m&s <shop>"}, ["h"]),
        ({"path": ("at",), "value": "a/b"}, ["h"]),
        ({"header": ("subject", "ANN@example.org")}, ["c"]),
        ({"header": ("other", "ann@example.org")}, []),
        ({"path": ("customer", "email"), "value": "ann@example.org"}, ["a"]),
        ({"path": ("note",), "value": "ann@example.org"}, []),
        ({"path": ("items", "n"), "value": "18"}, ["d"]),
        ({"path": ("items", "n"), "value": "1"}, []),
        ({"id": "a"}, ["a", "a"]),
        ({"id": "a", "sender_bot_id": "eve"}, ["a"]),
        ({"id": "g"}, ["g"]),
        ({"id": "z"}, []),
    ],
)
async def test_messages_are_found(filled: MessageLog, what: dict[str, Any], expected: list[str]) -> None:
    assert ids(await found(filled, **what)) == expected


async def test_what_is_erased_is_not_found_again(filled: MessageLog) -> None:
    contents = await found(filled, text="ann@example.org")
    await erase(filled, *(seq for seq, _ in contents.messages), delayed=tuple(contents.delayed))
    assert ids(await found(filled, text="ann@example.org")) == []
    assert ids(await found(filled, id="a", sender_bot_id="ann")) == []


async def test_a_long_log_is_searched_in_portions(store: Store) -> None:
    wanted = [f"m{number}" for number in range(0, 5000, 50)]
    body = {True: b'"secret"', False: b'"x"'}
    await add(store.log, *(direct(f"m{n}", "ann", "bob", body=body[n % 50 == 0]) for n in range(5000)))
    first = await store.log.search(SearchRequest(text="secret"))
    assert first.after is not None
    assert 0 < len(first.messages) < len(wanted)
    assert ids(await found(store.log, text="secret")) == wanted


@pytest.mark.parametrize("what", [{"text": "secret"}, {"header": ("who", "secret")}])
async def test_what_becomes_due_during_a_search_is_found(store: Store, what: dict[str, Any]) -> None:
    later = direct("later", "ann", "bob", body=b'"x"', headers=b'{"who":"secret"}', due_at=at(50))
    await add(store.log, direct("a", "ann", "bob"), later)
    messages: list[tuple[int, str]] = []
    after: str | None = ""
    while after is not None:
        portion = await store.log.search(SearchRequest(after=after, **what))
        messages += portion.messages
        if after == "":
            await release(store.log, 50)
        after = portion.after
    assert messages == [(2, "later")]


async def test_a_run_is_not_found_by_how_its_json_is_written(store: Store) -> None:
    await hold_run(store, "held")
    await store.workflows.update_run_status("held", RunStatus.RUNNING, context={"said": "one\norange"}, fence=1)
    assert (await found(store.log, text="norange")).runs == []
    assert [run.id for run in (await found(store.log, text="e\nor")).runs] == ["held"]


async def test_runs_are_found_by_what_they_contain(store: Store) -> None:
    await fill_runs(store, "w", "done", "other")
    await hold_run(store, "held")
    await store.workflows.update_run_status("held", RunStatus.FAILED, error="no Secret here", fence=1)
    assert (await found(store.log, text="secret")).runs == [FoundRun("held", ended=True)]


async def test_the_run_of_a_message_is_found_with_it(store: Store) -> None:
    await fill_runs(store, "w", "done")
    await hold_run(store, "held")
    await add(store.log, direct("done", "ann", "bob", body=b'"secret"'), direct("held", "ann", "bob", body=b'"x"'))
    assert (await found(store.log, text="secret")).runs == [FoundRun("done", ended=True)]
    assert (await found(store.log, id="held")).runs == [FoundRun("held", ended=False)]


async def test_a_place_that_no_search_ended_in_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        await store.log.search(SearchRequest(after="nowhere:1", text="x"))


# ── Keyed values ─────────────────────────────────────────────────────────────────────────────────────────

_ids = map(str, count())


def put(key: str, value: str, *, store: str = "s", state: ValueState = ValueState.JSON) -> KeyedWrite:
    return KeyedWrite(
        store=store, key=key, state=state, value=value, id=next(_ids), bot_id="ann", keys_max=1_000_000
    )


@pytest.fixture
async def valued(store: Store) -> Store:
    await store.keyed.write_all(
        [
            put("a", '{"customer":{"email":"Ann@Example.org"},"n":[1,18]}'),
            put("b", '"write to ann@example.org soon"', store="t"),
            put("of/ann@example.org", "1"),
            put("c", '"YW5uQGV4YW1wbGUub3Jn"', state=ValueState.BYTES),
            put("d", '"M\\u0026S"'),
            put("bytes/M&S", '"AA=="', state=ValueState.BYTES),
            put("gone", '"ann@example.org"'),
            put("gone", "2"),
        ]
    )
    await store.log.apply([AddChannel(channel("news"))])
    kept = to_channel("k", "ann", "news", body=b'{"at":"ann@example.org"}', headers=b'{"who":"ann"}', retain=True)
    await add(store.log, kept, direct("z", "ann", "bob"))
    await store.log.apply([RemoveMessages((1,))])
    return store


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ({"text": "ann@example.org"}, ["a", "b", "of/ann@example.org", "news"]),
        ({"text": "YW5uQG"}, []),
        ({"text": "m&s"}, ["d", "bytes/M&S"]),
        ({"path": ("customer", "email"), "value": "ann@example.org"}, ["a"]),
        ({"path": ("n",), "value": "18"}, ["a"]),
        ({"path": ("at",), "value": "ann@example.org"}, ["news"]),
        ({"header": ("who", "Ann")}, ["news"]),
        ({"header": ("who", "18")}, []),
        ({"id": "k"}, ["news"]),
        ({"id": "k", "sender_bot_id": "bob"}, []),
        ({"id": "1"}, []),
    ],
)
async def test_keyed_values_are_found(valued: Store, what: dict[str, Any], expected: list[str]) -> None:
    assert [value.key for value in (await found(valued.log, **what)).values] == expected


async def test_keyed_values_are_erased(valued: Store) -> None:
    values = (await found(valued.log, text="ann@example.org")).values
    await valued.keyed.write(put("a", '"changed since"'))
    erased = await erase(valued.log, values=tuple(values))
    assert erased.values == tuple(ErasedValue(each.store, each.revision) for each in values[1:])
    assert (await found(valued.log, text="ann@example.org")).values == []
    assert await valued.keyed.get("t", "b") is None
    left = await valued.keyed.list_values("s", "", after=None, limit=10, bytes_max=1000)
    assert [value.key for value in left.values] == ["a", "bytes/M&S", "c", "d", "gone"]
    told = await valued.keyed.list_changes("t", "", after=1, limit=10, bytes_max=1000)
    assert [(change.key, change.state) for change in told.changes] == [("b", ValueState.DELETED)]
    [record] = await valued.log.removals(0, 10)
    assert record.erased.values == erased.values
    assert (await erase(valued.log)).values == erased.values


async def test_many_keyed_values_are_searched_in_portions(store: Store) -> None:
    writes = [put(f"{number:03}", '"secret"' if number % 10 == 0 else "0") for number in range(450)]
    await store.keyed.write_all(writes)
    wanted = [f"{number:03}" for number in range(0, 450, 10)]
    assert [value.key for value in (await found(store.log, text="secret")).values] == wanted


async def test_a_swept_deletion_leaves_no_key(store: Store) -> None:
    await store.keyed.write(put("of/ann@example.org", "1"))
    await store.keyed.write(put("b", "1"))
    values = (await found(store.log, text="ann@example.org")).values
    await erase(store.log, values=tuple(values))
    await store.log.apply([SweepKeyed(10, 0.0, -1.0)])
    told = await store.keyed.list_changes("s", "", after=0, limit=10, bytes_max=1000)
    assert [change.key for change in told.changes] == ["b"]
