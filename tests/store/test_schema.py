"""The schema: the migrations make the one that is written down, and it has all that the store was asked for."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from bus.model.records import RunStatus, StepStatus
from store import open_store
from store.sqlite.file.schema import migrations, statements

WRITTEN = Path(__file__).with_name("schema.sql")

# A column is: its name, its type, `!` where it must have a value, and `=` with its default.
COLUMNS = {
    "bots": "id TEXT | name TEXT! | public_key TEXT | created_at TEXT! | last_seen_at TEXT!",
    "workflows": """
        id TEXT | name TEXT! | owner_type TEXT! | owner_bot_id TEXT | definition TEXT! | created_at TEXT!
        | updated_at TEXT! | replaced TEXT""",
    "workflow_runs": """
        id TEXT | workflow_id TEXT! | workflow_name TEXT! | status TEXT! | trigger_type TEXT!
        | trigger_payload TEXT | context TEXT!='{}' | started_at TEXT! | completed_at TEXT | error TEXT
        | concurrency_key TEXT | holder_bot_id TEXT | fence INTEGER!=0 | lease_expires_at TEXT | claim_id TEXT
        | recoveries INTEGER!=0 | queue_place INTEGER | queued_at TEXT | queued_until TEXT | definition TEXT
        | stopped INTEGER!=0 | created_by_bot_id TEXT | last_holder_bot_id TEXT | progress INTEGER!=0
        | forked_from TEXT | result TEXT | parent_run_id TEXT | not_before TEXT | cleans_up INTEGER!=0
        | cancel_by TEXT | cancel_reason TEXT | attributes TEXT | schedule_id TEXT | scheduled_at TEXT
        | continued_as TEXT""",
    "workflow_cancellations": "run_id TEXT | reason TEXT! | cancel_by TEXT! | after_id TEXT | last_id TEXT!",
    "workflow_signals": """
        run_id TEXT! | id TEXT! | name TEXT! | payload TEXT | sender TEXT | sent_at TEXT! | taken_by TEXT""",
    "workflow_run_attributes": "name TEXT! | value TEXT! | started_at TEXT! | run_id TEXT!",
    "workflow_schedules": """
        id TEXT | workflow_id TEXT! | schedule TEXT! | is_cron INTEGER! | paused INTEGER!=0 | anchor TEXT!
        | next_at TEXT | queued_at TEXT | last_at TEXT | last_run_id TEXT | fired INTEGER!=0 | skipped INTEGER!=0
        | error TEXT | created_at TEXT! | created_by_bot_id TEXT""",
    "workflow_steps": """
        id TEXT | run_id TEXT! | step_id TEXT! | step_name TEXT! | status TEXT! | attempt INTEGER!=1
        | idempotency_key TEXT | input TEXT | output TEXT | error TEXT | started_at TEXT | completed_at TEXT""",
    "bot_messages": """
        seq INTEGER | id TEXT! | sender_bot_id TEXT! | sender_bot_name TEXT! | recipient_type TEXT!
        | recipient_bot_id TEXT | recipient_channel TEXT | message_type TEXT! | body TEXT! | reply_to TEXT
        | timestamp TEXT! | headers TEXT!='{}' | checksum INTEGER! | copied INTEGER!=0
        | tainted INTEGER!=0 | priority INTEGER!=0""",
    "bot_channels": "name TEXT | created_at TEXT! | created_by_bot_id TEXT!",
    "bot_subscriptions": """
        bot_id TEXT! | channel_name TEXT! | subscribed_at TEXT! | start_seq INTEGER!=0 | echo INTEGER!=0
        | group_name TEXT""",
    "channel_groups": "channel_name TEXT! | name TEXT! | created_at TEXT! | start_seq INTEGER!",
    "chat_sessions": "id TEXT | session_type TEXT!='user' | peer_bot_id TEXT",
    "workflow_commits": """
        id TEXT | bot_id TEXT! | run_id TEXT | digest TEXT! | seqs TEXT! | committed_at TEXT!""",
    "mailboxes": "id TEXT! | position INTEGER!",
    "dead_letters": "mailbox_id TEXT! | seq INTEGER! | reason TEXT! | attempts INTEGER! | at TEXT!",
    "scheduled_messages": """
        id TEXT! | due_at TEXT | sender_bot_id TEXT! | sender_bot_name TEXT! | recipient_bot_id TEXT
        | recipient_channel TEXT | message_type TEXT! | body TEXT! | reply_to TEXT | headers TEXT!='{}'
        | expires_at TEXT | checksum INTEGER! | tainted INTEGER!=0 | priority INTEGER!=0""",
    "security_events": """
        id INTEGER | at TEXT! | event TEXT! | bot_id TEXT | key TEXT | address TEXT | object TEXT | detail TEXT
        | times INTEGER! | checksum INTEGER!""",
    "schema_migrations": "name TEXT | checksum TEXT! | applied_at TEXT!",
}

PRIMARY_KEYS = {
    "bots": ["id"],
    "workflows": ["id"],
    "workflow_runs": ["id"],
    "workflow_steps": ["id"],
    "workflow_cancellations": ["run_id"],
    "workflow_signals": ["run_id", "id"],
    "workflow_run_attributes": ["name", "value", "started_at", "run_id"],
    "workflow_schedules": ["id"],
    "bot_messages": ["seq"],
    "bot_channels": ["name"],
    "bot_subscriptions": ["bot_id", "channel_name"],
    "channel_groups": ["channel_name", "name"],
    "workflow_commits": ["id"],
    "mailboxes": ["id"],
    "dead_letters": ["mailbox_id", "seq"],
    "scheduled_messages": [],
    "security_events": ["id"],
    "schema_migrations": ["name"],
}

# From a table's column to another's, and what happens when that one is deleted.
FOREIGN_KEYS = [
    ("workflows", "owner_bot_id", "bots", "id", "NO ACTION"),
    ("workflow_runs", "workflow_id", "workflows", "id", "NO ACTION"),
    ("workflow_steps", "run_id", "workflow_runs", "id", "CASCADE"),
    ("workflow_signals", "run_id", "workflow_runs", "id", "CASCADE"),
    ("workflow_run_attributes", "run_id", "workflow_runs", "id", "CASCADE"),
    ("workflow_schedules", "workflow_id", "workflows", "id", "CASCADE"),
    ("workflow_commits", "run_id", "workflow_runs", "id", "CASCADE"),
    ("bot_subscriptions", "channel_name", "bot_channels", "name", "CASCADE"),
    ("channel_groups", "channel_name", "bot_channels", "name", "CASCADE"),
]

INDEXES = {
    "idx_workflow_runs_workflow_id": ("workflow_runs", ["workflow_id"]),
    "idx_workflow_runs_status": ("workflow_runs", ["status"]),
    "idx_workflow_runs_started_at": ("workflow_runs", ["started_at"]),
    "idx_workflow_runs_newest_of_workflow": ("workflow_runs", ["workflow_id", "started_at"]),
    "idx_workflow_runs_newest_of_status": ("workflow_runs", ["status", "started_at"]),
    "idx_workflow_runs_running": ("workflow_runs", ["workflow_id", "concurrency_key"]),
    "idx_workflow_runs_queued": ("workflow_runs", ["workflow_id", "concurrency_key", "queue_place"]),
    "idx_workflow_runs_parent_run_id": ("workflow_runs", ["parent_run_id"]),
    "idx_workflow_runs_not_before": ("workflow_runs", ["not_before"]),
    "idx_workflow_runs_cancel_by": ("workflow_runs", ["cancel_by"]),
    "idx_workflow_signals_waiting": ("workflow_signals", ["run_id"]),
    "idx_workflow_runs_ended": ("workflow_runs", ["workflow_id", None]),
    "idx_workflow_runs_newest_of_key": ("workflow_runs", ["concurrency_key", "started_at"]),
    "idx_workflow_runs_schedule": ("workflow_runs", ["schedule_id", "scheduled_at"]),
    "idx_workflow_run_attributes_run_id": ("workflow_run_attributes", ["run_id"]),
    "idx_workflow_schedules_workflow_id": ("workflow_schedules", ["workflow_id"]),
    "idx_workflow_schedules_next_at": ("workflow_schedules", ["next_at"]),
    "idx_workflow_schedules_queued_at": ("workflow_schedules", ["queued_at"]),
    "idx_workflow_steps_run_id": ("workflow_steps", ["run_id", None]),
    "idx_workflow_steps_waiting": ("workflow_steps", ["run_id"]),
    "idx_bot_messages_id": ("bot_messages", ["id"]),
    "idx_bot_messages_copied": ("bot_messages", ["id", "sender_bot_id"]),
    "idx_scheduled_messages_id": ("scheduled_messages", ["id", "sender_bot_id"]),
    "idx_bot_messages_pair": ("bot_messages", ["sender_bot_id", "recipient_bot_id"]),
    "idx_bot_messages_channel": ("bot_messages", ["recipient_channel"]),
    "idx_bot_messages_recipient": ("bot_messages", ["recipient_bot_id"]),
    "idx_bot_messages_timestamp": ("bot_messages", ["timestamp"]),
    "idx_bot_messages_reply_to": ("bot_messages", ["reply_to"]),
}


@pytest.fixture
def database(path: Path) -> Iterator[sqlite3.Connection]:
    async def migrate() -> None:
        async with open_store(str(path)):
            pass

    anyio.run(migrate)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


def schema(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Give what a database is made of, without the spaces and quotes that ALTER TABLE sets as it likes."""
    rows = connection.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {(kind, name): re.sub(r"\s*([(),])\s*|\s+", r"\1 ", sql.replace('"', "")) for kind, name, sql in rows}


def test_migrated_schema_is_the_written_one(database: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(":memory:")) as written:
        written.executescript(WRITTEN.read_text(encoding="utf-8"))
        assert schema(database) == schema(written)


def test_mailboxes_of_the_first_schema_are_kept() -> None:
    first, *rest = migrations()
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(first.sql)
        insert(database, "bots", id="ann", name="ann", created_at="", last_seen_at="")
        insert(database, "mailboxes", bot_id="ann", position=7, unsettled="[[3,1,0]]", floors='{"":9}', ahead="[8]")
        insert(database, "dead_letters", bot_id="ann", seq=2, reason="term", attempts=1, at="then")
        for migration in rest:
            database.executescript(migration.sql)
        assert database.execute("SELECT * FROM mailboxes").fetchall() == [
            ("ann", 7, "[[3,1,0]]", '{"":9}', "[8]", None, None, None)
        ]
        assert database.execute("SELECT * FROM dead_letters").fetchall() == [("ann", 2, "term", 1, "then")]


def test_comparison_sees_a_difference(database: sqlite3.Connection) -> None:
    before = schema(database)
    database.execute("ALTER TABLE bots ADD COLUMN shoe_size TEXT")
    assert schema(database) != before


def test_migrations_are_numbered_dated_and_recorded(database: sqlite3.Connection) -> None:
    names = [migration.name for migration in migrations()]
    numbers = [name.split("_")[1] for name in names]
    assert numbers == sorted(set(numbers))
    assert all(re.fullmatch(r"\d{8}_\d{4}_[a-z_]+", name) for name in names)
    recorded = database.execute("SELECT name, checksum FROM schema_migrations ORDER BY name").fetchall()
    assert recorded == [(migration.name, migration.checksum) for migration in migrations()]


def test_runs_of_a_database_without_leases_can_be_held(path: Path) -> None:
    """Those that can still go on get the definition that they would have gone on with."""
    first = migrations()[0]
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE schema_migrations (name TEXT PRIMARY KEY, checksum TEXT, applied_at TEXT)")
        old.executescript(first.sql)
        old.execute("INSERT INTO schema_migrations VALUES (?, ?, '')", (first.name, first.checksum))
        definition = '{"id":"w","name":"w","owner":{"type":"global"}}'
        insert(old, "workflows", id="w", name="w", owner_type="global", definition=definition, **STAMPS)
        for status in RunStatus:
            a_run(old, status, status)
        old.commit()

    async def look() -> None:
        async with open_store(str(path)) as store:
            for status in RunStatus:
                ended = status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
                kept = await store.workflows.get_run_definition(status)
                assert kept == (None if ended else await store.workflows.get_definition("w"))
                assert await store.workflows.get_lease(status) is None
            assert (await store.workflows.claim_run("running", "ann")).fence == 1

    anyio.run(look)


def test_statements_are_split_where_they_end() -> None:
    sql = "-- one; two\nCREATE TABLE a (x DEFAULT ';');\n\nCREATE TRIGGER t AFTER INSERT ON a BEGIN\n"
    trigger = "  DELETE FROM a;\n  DELETE FROM a;\nEND;\n"
    assert statements(sql + trigger) == [
        "-- one; two\nCREATE TABLE a (x DEFAULT ';');",
        f"CREATE TRIGGER t AFTER INSERT ON a BEGIN\n{trigger}".strip(),
    ]
    for migration in migrations():
        assert "".join("".join(statements(migration.sql)).split()) == "".join(migration.sql.split())


# ── What the store was asked for ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("table", COLUMNS)
def test_columns(database: sqlite3.Connection, table: str) -> None:
    found = {
        f"{name} {kind}{'!' if not_null else ''}{'' if default is None else f'={default}'}"
        for _, name, kind, not_null, default, _ in database.execute(f"PRAGMA table_info({table})")
    }
    assert {column.strip() for column in COLUMNS[table].split("|")} <= found


@pytest.mark.parametrize("table", PRIMARY_KEYS)
def test_primary_keys(database: sqlite3.Connection, table: str) -> None:
    rows = database.execute(f"PRAGMA table_info({table})").fetchall()
    keys = sorted((row[5], row[1]) for row in rows if row[5])
    assert [name for _, name in keys] == PRIMARY_KEYS[table]


@pytest.mark.parametrize(("table", "column", "other", "key", "on_delete"), FOREIGN_KEYS)
def test_foreign_keys(
    database: sqlite3.Connection, table: str, column: str, other: str, key: str, on_delete: str
) -> None:
    rows = database.execute(f"PRAGMA foreign_key_list({table})").fetchall()
    assert (column, other, key, on_delete) in [(row[3], row[2], row[4], row[6]) for row in rows]


@pytest.mark.parametrize("index", INDEXES)
def test_indexes(database: sqlite3.Connection, index: str) -> None:
    table, columns = INDEXES[index]
    assert index in [row[1] for row in database.execute(f"PRAGMA index_list({table})")]
    assert [row[2] for row in database.execute(f"PRAGMA index_info({index})")] == columns


def test_what_is_unique(database: sqlite3.Connection) -> None:
    insert(database, "bots", id="b1", name="ann", created_at="", last_seen_at="")
    refuses(database, "bots", id="b2", name="ann", created_at="", last_seen_at="")
    workflow = {"name": "n", "definition": "{}", "created_at": "", "updated_at": ""}
    insert(database, "workflows", id="w1", owner_type="global", **workflow)
    insert(database, "workflows", id="w2", owner_type="bot", owner_bot_id="b1", **workflow)
    refuses(database, "workflows", id="w3", owner_type="global", **workflow)
    refuses(database, "workflows", id="w3", owner_type="bot", owner_bot_id="b1", **workflow)
    insert(database, "bot_messages", **MESSAGE, id="m1", recipient_type="direct")
    refuses(database, "bot_messages", **MESSAGE, id="m1", recipient_type="direct")
    refuses(database, "bot_messages", **MESSAGE | {"sender_bot_id": "c"}, id="m1", recipient_type="direct")
    copy = MESSAGE | {"sender_bot_id": "c", "copied": 1}
    insert(database, "bot_messages", **copy, id="m1", recipient_type="direct")
    refuses(database, "bot_messages", **copy, id="m1", recipient_type="direct")
    insert(database, "bot_messages", **copy | {"sender_bot_id": "d"}, id="m1", recipient_type="direct")
    waiting = {name: value for name, value in MESSAGE.items() if name != "timestamp"} | {"recipient_bot_id": "d"}
    insert(database, "scheduled_messages", **waiting, id="m1")
    refuses(database, "scheduled_messages", **waiting, id="m1")
    insert(database, "scheduled_messages", **waiting | {"sender_bot_id": "c"}, id="m1")
    session = {"session_type": "bot-to-bot", "created_at": ""}
    insert(database, "chat_sessions", id="s1", opened_by_bot_id="a", peer_bot_id="b", **session)
    refuses(database, "chat_sessions", id="s2", opened_by_bot_id="b", peer_bot_id="a", **session)


# ── What a row must be ───────────────────────────────────────────────────────────────────────────────────

MESSAGE = {
    "sender_bot_id": "b",
    "sender_bot_name": "b",
    "message_type": "note",
    "body": "{}",
    "timestamp": "",
    "checksum": 0,
}


def insert(database: sqlite3.Connection, table: str, **values: object) -> None:
    marks = ", ".join(f":{name}" for name in values)
    database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", values)


def refuses(database: sqlite3.Connection, table: str, **values: object) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(database, table, **values)


STAMPS = {"created_at": "", "updated_at": ""}


def a_workflow(database: sqlite3.Connection) -> None:
    insert(database, "workflows", id="w", name="w", owner_type="global", definition="{}", **STAMPS)


def a_run(database: sqlite3.Connection, id: str, status: str) -> None:
    fields = {"workflow_id": "w", "workflow_name": "w", "trigger_type": "manual", "started_at": ""}
    insert(database, "workflow_runs", id=id, status=status, **fields)


def test_statuses(database: sqlite3.Connection) -> None:
    a_workflow(database)
    for run_status in RunStatus:
        a_run(database, run_status, run_status)
    with pytest.raises(sqlite3.IntegrityError):
        a_run(database, "r", "waiting_approval")
    for step_status in StepStatus:
        fields = {"run_id": "running", "step_id": "s", "step_name": "s"}
        insert(database, "workflow_steps", id=step_status, status=step_status, **fields)
    refuses(database, "workflow_steps", id="s", status="crashed", **fields)


def test_kinds_of_owner_and_recipient(database: sqlite3.Connection) -> None:
    insert(database, "bots", id="b", name="b", created_at="", last_seen_at="")
    fields = {"name": "w", "definition": "{}", "created_at": "", "updated_at": ""}
    refuses(database, "workflows", id="w", owner_type="nobody", **fields)
    refuses(database, "workflows", id="w", owner_type="bot", **fields)
    refuses(database, "workflows", id="w", owner_type="bot", owner_bot_id="nobody", **fields)
    refuses(database, "workflows", id="w", owner_type="global", owner_bot_id="b", **fields)
    for number, kind in enumerate(("direct", "channel")):
        insert(database, "bot_messages", **MESSAGE, id=f"{number}", recipient_type=kind)
    refuses(database, "bot_messages", **MESSAGE, id="m", recipient_type="everybody")


def test_what_goes_with_what(database: sqlite3.Connection) -> None:
    a_workflow(database)
    a_run(database, "r", "running")
    insert(database, "workflow_steps", id="s", run_id="r", step_id="s", step_name="s", status="running")
    insert(database, "bot_channels", name="news", created_at="", created_by_bot_id="b")
    insert(database, "bot_subscriptions", bot_id="b", channel_name="news", subscribed_at="")
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("DELETE FROM workflows")
    database.execute("DELETE FROM workflow_runs")
    database.execute("DELETE FROM bot_channels")
    assert database.execute("SELECT COUNT(*) FROM workflow_steps").fetchone() == (0,)
    assert database.execute("SELECT COUNT(*) FROM bot_subscriptions").fetchone() == (0,)
    database.execute("DELETE FROM workflows")
