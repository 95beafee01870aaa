"""`posthouse check` of a database of PostgreSQL's: what it finds, and that a worker notices another schema."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import msgspec
import pytest

from bus.errors import DatabaseDamaged, DatabaseNewer, StoreFailed
from bus.model.repository import (
    AddBot,
    AddChannel,
    AddMessages,
    AddSecurityEvents,
    AddSubscription,
    MailboxState,
    SaveMailbox,
    SecurityEvent,
    UnsettledState,
    lots_of,
)
from store import check_of, open_store
from store.postgresql.server import catalog
from store.postgresql.server.database import open_database

from ..cli.terminal import Posthouse
from ..contract.samples import step
from ..contract.store.samples import add, at, bot, channel, direct, hold_run, to_channel
from .cluster import Node


async def fill(url: str) -> None:
    async with open_store(url) as store:
        later = msgspec.structs.replace(direct("later", "ann", "bob"), due_at=at(9))
        await store.log.apply([AddBot(bot("ann")), AddBot(bot("bob")), AddChannel(channel("news"))])
        await store.log.apply([AddSubscription("bob", "news", at(0)), AddMessages(lots_of([later]), at(0))])
        await add(
            store.log, *(direct(f"m{number}", "ann", "bob") for number in range(5)), to_channel("n", "ann", "news")
        )
        state = MailboxState("bob", 4, unsettled=(UnsettledState(3, 1, 0),))
        await store.log.apply([SaveMailbox(state), AddSecurityEvents((SecurityEvent(1, at(0), "entered", "ann"),))])
        await hold_run(store, "run")
        await store.workflows.create_step_log(step("s", "run"), fence=1)
        await store.workflows.send_signal("run", "go", id="s")


class Database:
    """A database with a bit of everything, to be changed as no worker would."""

    def __init__(self, url: str, node: Node) -> None:
        self.url = url
        self._node = node
        self._name = url.rpartition("/")[2]

    def change(self, sql: str) -> None:
        self._node.query(f"SET search_path = posthouse; {sql}", self._name)

    def check(self) -> tuple[list[str], list[str]]:
        """Return the damage and the warnings."""
        check = check_of(self.url)
        for _ in check.run():
            pass
        return check.damage, check.warnings


@pytest.fixture(scope="module")
def filled(postgresql_node: Node) -> Iterator[str]:
    """The name of a database that is not to be changed."""
    postgresql_node.query("CREATE DATABASE filled")
    anyio.run(fill, postgresql_node.url("filled"))
    yield "filled"
    postgresql_node.query("DROP DATABASE filled")


@pytest.fixture
def database(filled: str, postgresql_node: Node) -> Iterator[Database]:
    """A copy of it for one test."""
    postgresql_node.query(f"CREATE DATABASE changed TEMPLATE {filled}")
    yield Database(postgresql_node.url("changed"), postgresql_node)
    postgresql_node.query("DROP DATABASE changed WITH (FORCE)")


def test_a_sound_database_is_found_sound(database: Database) -> None:
    check = check_of(database.url)
    parts = [progress[0] for progress in check.run()]
    assert (check.damage, check.warnings) == ([], [])
    assert parts == [
        "the schema", "messages", "bots and channels", "mailboxes", "security events", "keyed values", "workflows",
    ]  # fmt: skip
    assert check.counts == {
        "messages": 6,
        "last_seq": 6,
        "scheduled_messages": 1,
        "channels": 1,
        "bots": 2,
        "subscriptions": 1,
        "workflow_runs": 1,
    }


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("UPDATE bot_messages SET body = '\"x\"' WHERE seq IN (2, 3)", "messages 2 to 3: not as stored"),
        ("UPDATE bot_messages SET recipient_bot_id = NULL WHERE seq = 2", "message 2: not as stored"),
        ("UPDATE log_end SET last_seq = 5", "message 6 is beyond the log's end, 5"),
        ("DELETE FROM log", "where it ends, are not there once"),
        ("UPDATE scheduled_messages SET body = '1'", "scheduled message later: not as stored"),
        ("UPDATE bot_subscriptions SET start_seq = 3", "a subscription of 'bob': not as stored"),
        ("UPDATE mailboxes SET position = 7 WHERE id = 'bob'", "the mailbox of 'bob' is at message 7, beyond"),
        ("UPDATE mailboxes SET unsettled = '[' WHERE id = 'bob'", "the mailbox of 'bob' cannot be read"),
        ("DELETE FROM bot_messages WHERE seq = 3", "'bob' has the unsettled message 3, which is missing"),
        ("DELETE FROM mailboxes WHERE id = 'ann'", "the mailbox 'ann' is needed, but missing"),
        ("INSERT INTO dead_letters VALUES ('bob', 9, '', 1, '')", "'bob' is message 9, which is missing"),
        ("UPDATE security_events SET bot_id = 'bob'", "security event 1: not as stored"),
        ("UPDATE workflow_runs SET context = '{'", "the context of 'run' in workflow_runs cannot be read"),
        ("UPDATE workflow_signals SET payload = '{'", "the payload of 'run/s' in workflow_signals cannot be read"),
        ("DELETE FROM workflow_runs", "run 'run' has rows in workflow_steps, but is missing"),
    ],
)
def test_damage_is_found_and_named(database: Database, sql: str, words: str) -> None:
    database.change(sql)
    damage, _ = database.check()
    assert any(words in line for line in damage), damage


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DELETE FROM bot_messages WHERE seq = 2", "message 2: not in the log"),
        ("DELETE FROM bots WHERE id = 'bob'", "message 1 has the unknown recipient 'bob'"),
    ],
)
def test_what_may_be_is_a_warning(database: Database, sql: str, words: str) -> None:
    database.change(sql)
    assert words in "\n".join(database.check()[1])


# ── The schema ───────────────────────────────────────────────────────────────────────────────────────────

_TRIGGER = """
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER extra BEFORE INSERT ON bots FOR EACH ROW EXECUTE FUNCTION nothing()"""


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("DROP INDEX bot_messages_id", "the index bot_messages_id of bot_messages is missing"),
        (
            "DROP INDEX bot_messages_id; CREATE INDEX bot_messages_id ON bot_messages (id)",
            "the index bot_messages_id of bot_messages is altered",
        ),
        ("ALTER TABLE bots DROP COLUMN public_key", "the column public_key of bots is missing"),
        ("ALTER TABLE bots ADD COLUMN more int", "the column more of bots is not posthouse's"),
        ("ALTER TABLE bots ALTER COLUMN name TYPE varchar", "the column name of bots is altered"),
        ("ALTER TABLE bots ADD CHECK (name <> 'x')", "the constraint bots_name_check of bots is not posthouse's"),
        ("ALTER TABLE keys DROP CONSTRAINT keys_bot_id_fkey", "the constraint keys_bot_id_fkey of keys is missing"),
        ("DROP TABLE chat_sessions", "of chat_sessions is missing"),
        (_TRIGGER, "the trigger extra on bots is not posthouse's"),
        ("CREATE RULE extra AS ON INSERT TO bots DO INSTEAD NOTHING", "the rule extra on bots is not posthouse's"),
        ("ALTER TABLE dead_letters SET UNLOGGED", "the table dead_letters is unlogged"),
        ("ALTER TABLE bots ENABLE ROW LEVEL SECURITY", "the table bots has row security"),
    ],
)
def test_a_schema_that_differs_is_found_and_not_served(database: Database, sql: str, words: str) -> None:
    database.change(sql)
    assert words in "\n".join(database.check()[0])

    async def serve() -> None:
        async with open_database(database.url):
            raise AssertionError("it was opened")

    with pytest.raises(DatabaseDamaged, match="is damaged: the") as refused:
        anyio.run(serve)
    assert words in str(refused.value)


def test_what_somebody_added_beside_it_does_no_harm(database: Database) -> None:
    database.change("CREATE TABLE more (x int); CREATE INDEX more_index ON bots (created_at)")
    assert database.check() == ([], [])
    anyio.run(fill_nothing, database.url)


async def fill_nothing(url: str) -> None:
    async with open_database(url) as opened:
        assert all("compared" not in warning for warning in opened.warnings)


def test_without_the_right_to_compare_it_is_said(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_made", {})
    name = database.url.rpartition("/")[2]
    database.change(
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; CREATE ROLE {name} LOGIN; GRANT ALL ON SCHEMA posthouse"
        f" TO {name}; GRANT ALL ON ALL TABLES IN SCHEMA posthouse TO {name}"
    )
    database.url = database.url.replace("postgres@", f"{name}@")
    try:
        damage, warnings = database.check()
    finally:
        database.change(f"DROP OWNED BY {name}; DROP ROLE {name}")
    assert damage == []
    assert "the schema was not compared" in warnings[0]


# ── The command ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_says_what_it_found(database: Database) -> None:
    posthouse = Posthouse()
    text = posthouse.answer("check", database.url)
    assert "is sound: 6 messages, 1 scheduled message, 1 channel, 2 bots" in text
    assert posthouse.json("check", database.url)["ok"] is True
    database.change("UPDATE bot_messages SET body = '1' WHERE seq = 2")
    ended = posthouse.run("check", database.url)
    assert ended.returncode == 65
    assert "damage: message 2: not as stored" in ended.stdout


def test_what_cannot_be_checked_is_one_line(postgresql_url: str, postgresql_node: Node, tmp_path: Path) -> None:
    posthouse = Posthouse()
    code, line = posthouse.refusal("check", postgresql_url)
    assert (code, "is not posthouse's" in line) == (65, True)
    code, line = posthouse.refusal("check", "postgresql://u:s3cret@127.0.0.1:1/house")
    assert (code, "cannot be reached" in line, "s3cret" in line) == (74, True, False)
    code, line = posthouse.refusal("check", postgresql_node.url("none"))
    assert (code, "create it" in line) == (78, True)
    code, line = posthouse.refusal("backup", tmp_path / "x", "--engine", postgresql_url)
    assert (code, "pg_basebackup" in line) == (78, True)


def test_a_newer_schema_is_not_checked(database: Database) -> None:
    database.change("INSERT INTO schema_migrations VALUES ('29990101_9999_later', '', '')")
    with pytest.raises(DatabaseNewer, match="newer posthouse"):
        database.check()


_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'posthouse check'"


def test_a_server_that_ends_meanwhile_is_no_damage(database: Database, postgresql_node: Node) -> None:
    check = check_of(database.url)
    steps = check.run()
    while next(steps)[0] != "mailboxes":
        pass
    postgresql_node.query(_END)
    with pytest.raises(StoreFailed, match="cannot be reached"):
        list(steps)
    assert check.damage == []
