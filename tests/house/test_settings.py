"""The shipped configuration is the defaults, and a wrong one is refused with the place of its fault."""

from __future__ import annotations

import ast
import itertools
import json
import re
import tomllib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from bus.cli.program import main
from bus.configuration import parse_settings, read_settings
from bus.model.repository import WorkflowRules
from bus.settings import Settings, SettingsError
from bus.settings.environment import variable

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "posthouse.toml"


def test_the_shipped_configuration_is_the_defaults() -> None:
    assert parse_settings(SHIPPED.read_text(encoding="utf-8")) == Settings()


def test_the_shipped_configuration_names_every_key() -> None:
    written = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    known = msgspec.to_builtins(Settings())
    named, kept = (
        {f"{section}.{key}" for section, keys in each.items() for key in keys} for each in (written, known)
    )
    assert sorted(named ^ kept) == [], "config/posthouse.toml and bus/settings differ in these"


def test_the_shipped_configuration_explains_every_key() -> None:
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    bare = [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r"[a-z_]+ =", line) and not before.startswith("# ")
    ]
    assert bare == []


def test_every_setting_is_read() -> None:
    sources = [*(ROOT / "bus").rglob("*.py"), *(ROOT / "store").rglob("*.py"), ROOT / "worker.py"]
    read: set[str] = set()
    for node in (node for path in sources for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Attribute):
            read.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            read.add(node.value)
    known = msgspec.to_builtins(Settings())
    assert [f"{section}.{key}" for section, keys in known.items() for key in keys if key not in read] == []


def test_nothing_is_the_defaults() -> None:
    assert parse_settings("") == Settings()


def test_a_whole_number_will_do_for_seconds() -> None:
    assert parse_settings("[delivery]\nack_wait_seconds = 60").delivery.ack_wait_seconds == 60.0


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("limit = 1", "limit"),
        ("[limit]\nframe_bytes_max = 4096", "limit"),
        ("[limits]\nxyz = 1", "limits.xyz"),
        ("[listen]\nport = 7710", "listen.port"),
        ("[delivery]\nack_wait = 30", "delivery.ack_wait"),
    ],
)
def test_an_unknown_key_is_refused(text: str, place: str) -> None:
    with pytest.raises(SettingsError, match=rf"`{re.escape(place)}`"):
        parse_settings(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("limits = 1", "limits"),
        ("[limits]\nframe_bytes_max = '1 MiB'", "limits.frame_bytes_max"),
        ("[limits]\nsessions_max = 1.5", "limits.sessions_max"),
        ("[listen]\ninsecure = 'yes'", "listen.insecure"),
        ("[store]\ndatabase = 1", "store.database"),
        ("[delivery]\nbackoff_seconds = 1.0", "delivery.backoff_seconds"),
        ("[delivery]\nbackoff_seconds = [1.0, '5']", "delivery.backoff_seconds"),
    ],
)
def test_a_wrong_type_is_refused(text: str, place: str) -> None:
    with pytest.raises(SettingsError, match=rf"`{re.escape(place)}(\[\d+\])?`"):
        parse_settings(text)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[limits]\nframe_bytes_max = 1", "limits.frame_bytes_max"),
        ("[limits]\nin_flight_max = 1001", "limits.in_flight_max"),
        ("[limits]\nsessions_max = 0", "limits.sessions_max"),
        ("[delivery]\nack_wait_seconds = 0", "delivery.ack_wait_seconds"),
        ("[delivery]\nheartbeat_seconds = inf", "delivery.heartbeat_seconds"),
        ("[delivery]\nmax_deliver = 0", "delivery.max_deliver"),
        ("[delivery]\nbackoff_seconds = []", "delivery.backoff_seconds"),
        ("[delivery]\nbackoff_seconds = [1.0, -1.0]", "delivery.backoff_seconds"),
        ("[workflows]\nlease_seconds = 0", "workflows.lease_seconds"),
        ("[workflows]\nrecoveries_max = -1", "workflows.recoveries_max"),
        ("[log]\nlevel = 'loud'", "log.level"),
        ("[log]\nformat = 'xml'", "log.format"),
    ],
)
def test_a_value_out_of_bounds_is_refused(text: str, place: str) -> None:
    with pytest.raises(SettingsError, match=rf"`{re.escape(place)}(\[\d+\])?`"):
        parse_settings(text)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (
            "[delivery]\nheartbeat_seconds = 15.0",
            ("delivery.session_timeout_seconds", "delivery.heartbeat_seconds"),
        ),
        ("[limits]\nframe_bytes_max = 8192", ("limits.body_bytes_max", "limits.frame_bytes_max")),
        ("[limits]\nin_flight_max = 50", ("limits.in_flight_default", "limits.in_flight_max")),
        (
            "[limits]\nsocket_frames_max = 5000",
            ("limits.socket_frames_max", "limits.publishes_in_flight_max", "limits.in_flight_max"),
        ),
        ("[workflows]\nlease_seconds = 4000", ("workflows.lease_seconds", "workflows.lease_seconds_max")),
    ],
)
def test_a_contradiction_is_refused(text: str, places: tuple[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(text)
    assert all(place in str(refused.value) for place in places)


def test_the_store_keeps_workflows_by_what_is_set() -> None:
    text = "[workflows]\nlease_seconds = 1.5\nlease_seconds_max = 20\nrecoveries_max = 0"
    rules = parse_settings(f"{text}\n[limits]\nframe_bytes_max = 300_000").workflow_rules
    assert (rules.lease_seconds, rules.lease_seconds_max, rules.recoveries_max) == (1.5, 20, 0)
    settings = parse_settings("[workflows]\noutput_bytes_max = 2048")
    assert rules.output_bytes_max == 16 * 1024 * 1024
    assert settings.workflow_rules.output_bytes_max == 2048
    assert rules.record_bytes_max is not None
    assert rules.record_bytes_max < Settings().whole_bytes_max, "there must be room for the rest of a frame"
    with pytest.raises(SettingsError, match="parts_per_bot_bytes_max must be at least"):
        parse_settings("[workflows]\noutput_bytes_max = 67108864")
    assert Settings().workflow_rules.lease_seconds == WorkflowRules().lease_seconds


REACHABLE = [
    "tcp://0.0.0.0:7710",
    "tcp://*:7710",
    "tcp://eth0:7710",
    "tcp://192.168.1.5:7710",
    "tcp://[::]:7710",
    "tcp://bus.example:7710",
    "tcp://127.0.0.1.example:7710",
    "pgm://127.0.0.1:7710",
    "127.0.0.1:7710",
]


@pytest.mark.parametrize("key", ["command", "tap"])
@pytest.mark.parametrize("address", REACHABLE)
def test_an_address_beyond_loopback_is_refused(key: str, address: str) -> None:
    with pytest.raises(SettingsError, match=rf"listen\.{key}"):
        parse_settings(f"[listen]\n{key} = '{address}'")


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:7710", "tcp://192.168.1.5:7710"])
def test_an_address_beyond_loopback_can_be_asked_for(address: str) -> None:
    settings = parse_settings(f"[listen]\ncommand = '{address}'\ninsecure = true")
    assert settings.listen.command == address


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:1",
        "tcp://127.0.0.2:1",
        "tcp://localhost:1",
        "tcp://[::1]:1",
        "ipc:///run/bus",
        "inproc://bus",
    ],
)
def test_an_address_on_this_machine_is_taken(address: str) -> None:
    assert parse_settings(f"[listen]\ncommand = '{address}'").listen.command == address


def test_an_option_is_checked_like_the_file_and_helps_against_what_it_replaces() -> None:
    wrong = {"POSTHOUSE_LISTEN_TAP": "tcp://0.0.0.0:7711"}
    with pytest.raises(SettingsError, match=r"listen\.tap"):
        read_settings(None, environment={}, listen={"tap": "tcp://0.0.0.0:7711"})
    with pytest.raises(SettingsError, match=r"listen\.tap"):
        read_settings(None, environment=wrong)
    listen = {"command": None, "tap": "tcp://127.0.0.1:1"}
    changed = read_settings(None, environment=wrong, listen=listen, store={"database": "other.db"})
    assert (changed.listen.command, changed.listen.tap) == (Settings().listen.command, "tcp://127.0.0.1:1")
    assert changed.store.database == "other.db"


@pytest.mark.parametrize(
    ("file", "environment", "options", "url"),
    [
        ("", {}, {}, "posthouse.db"),
        ("engine = 'postgresql:///a'", {}, {}, "postgresql:///a"),
        ("database = 'posthouse.db'\nengine = 'postgresql:///a'", {}, {}, "postgresql:///a"),
        ("database = 'a.db'", {"POSTHOUSE_STORE_ENGINE": "postgresql:///b"}, {}, "postgresql:///b"),
        ("engine = 'postgresql:///a'", {"POSTHOUSE_STORE_DATABASE": "b.db"}, {}, "b.db"),
        ("", {"POSTHOUSE_STORE_DATABASE": "b.db"}, {"engine": "postgresql:///c"}, "postgresql:///c"),
        ("", {"POSTHOUSE_STORE_ENGINE": "postgresql:///b"}, {"database": "c.db"}, "c.db"),
        ("engine = 'postgresql:///a'", {"POSTHOUSE_STORE_ENGINE": ""}, {"database": None}, "postgresql:///a"),
    ],
)
def test_whoever_names_a_database_names_the_only_one(
    tmp_path: Path, file: str, environment: dict[str, str], options: dict[str, str], url: str
) -> None:
    config = tmp_path / "posthouse.toml"
    config.write_text(f"[store]\n{file}\n", encoding="utf-8")
    assert read_settings(config, environment=environment, store=options).store.url == url


def test_what_is_no_toml_is_refused() -> None:
    with pytest.raises(SettingsError, match="not TOML"):
        parse_settings("[limits")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[limits]\nsessions_max = 0", "`limits.sessions_max` must be a whole number, at least 1, not 0"),
        ("[limits]\nsessions_max = true", "`limits.sessions_max` must be a whole number, not true"),
        ("[limits]\nsessions_max = 10.5", "`limits.sessions_max` must be a whole number, not 10.5"),
        (
            "[delivery]\nack_wait_seconds = nan",
            "`delivery.ack_wait_seconds` must be a number, more than 0, not nan",
        ),
        (
            "[delivery]\nack_wait_seconds = inf",
            "`delivery.ack_wait_seconds` must be a number, at most 86400, not inf",
        ),
        ("[delivery]\nbackoff_seconds = [1, inf]", "`delivery.backoff_seconds[1]` must be a number, at most"),
        ("[delivery]\nbackoff_seconds = []", "`delivery.backoff_seconds` must have at least one value"),
        (
            "[delivery]\nack_wait_seconds = 1" + "0" * 400,
            "`delivery.ack_wait_seconds` is a number out of range",
        ),
        ("[store]\nwal_warning_bytes = 1" + "0" * 40, "`store.wal_warning_bytes` must be a whole number, at most"),
        ("[retention]\nbytes_max = 1" + "0" * 40, "`retention.bytes_max` must be a whole number, at most"),
        ("[log]\nlevel = 'INFO'", "`log.level` must be debug, info, warning or error, not 'INFO'"),
        ("[listen]\ncommand = 7710", "`listen.command` must be text in quotes, not 7710"),
        ("[listen]\ninsecure = 'yes'", "`listen.insecure` must be true or false, not 'yes'"),
        ("limits = 1", "`limits` must be a table, not 1"),
        ("[limits]\nsession_max = 1", "unknown key `limits.session_max`; did you mean `limits.sessions_max`?"),
        ("[limit]\nsessions_max = 1", "unknown key `limit`; did you mean `limits`?"),
        ("[listen]\ndatabase = 'x'", "unknown key `listen.database`; did you mean `store.database`?"),
        (
            "[store]\nengine = 'mysql://u:secret@h/x'",
            "store.engine is not a URL of PostgreSQL: write postgresql://",
        ),
        ("[store]\ndatabase = 'postgresql://h/x'", "write a postgresql:// URL as store.engine (--engine)"),
        ("[store]\ndatabase = 'a.db'\nengine = 'postgresql:///x'", "are two databases: name one of them"),
        ("level = 'info'", "unknown key `level`; did you mean `log.level`?"),
        ("[retention.channels.news]\nage = 1", "channel 'news' in [retention.channels]: unknown key `age`"),
        ("[retention.channels]\nnews = 1", "channel 'news' in [retention.channels]"),
        ("[limits]\nsessions_max = 1" + "0" * 5000, "a number has more digits than can be read"),
        ("x = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("[listen]\ncommand = 'tcp://127.0.0.1:99999'", "99999 is not a port, which is a number from 1 to 65535"),
        ("[listen]\ntap = 'tcp://127.0.0.1:0'", "0 is not a port"),
        ("[listen]\ncommand = 'tcp://::1:7710'", "in brackets"),
        ("[listen]\ntap = 'tcp://localhost:7710'", "but must differ"),
        ("[listen]\ncommand = 'ipc:///a'\ntap = 'ipc:///a'", "but must differ"),
    ],
)
def test_a_fault_is_a_sentence_with_a_way_out(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(text)
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)
    assert not re.search(r"\$|regex|\^|Expected|`(int|str|float|object|array)`", str(refused.value))


MANY = """
level = "info"
limits = { sessions_max = 0, headers_max = "many" }
delivery = 5
[listen]
command = "tcp://127.0.0.1:99999"
tap = "tcp://127.0.0.1:0"
[retention.channels.news]
age = 1
[security]
mode = "kyes"
[security.roles.billing]
publsh = ["x"]
limits = { sessions = 0 }
[security.roles.clerk]
publish = ["**.x", "own"]
"""


def test_all_faults_are_told_at_once_each_with_its_key() -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(MANY)
    wanted = [
        "unknown key `level`; did you mean `log.level`?",
        "`limits.sessions_max` must be a whole number, at least 1, not 0",
        "`limits.headers_max` must be a whole number, not 'many'",
        "`delivery` must be a table, not 5",
        "listen.command tcp://127.0.0.1:99999 is not a valid address to listen at: ",
        "listen.tap tcp://127.0.0.1:0 is not a valid address to listen at: ",
        "the limits of channel 'news' in [retention.channels]: unknown key `age`",
        "`security.mode` must be open or keys, not 'kyes'",
        "role 'billing' in [security.roles]: unknown key `publsh`; did you mean `publish`?; a role has ",
        "role 'billing' in [security.roles]: `limits.sessions` must be a whole number, at least 1, not 0",
        "role 'clerk' in [security.roles]: '**.x' in `publish`: ",
        "role 'clerk' in [security.roles]: 'own' in `publish`: ",
    ]
    assert [fault[: len(sentence)] for fault, sentence in zip(refused.value.faults, wanted, strict=True)] == wanted
    assert str(refused.value).startswith(
        "12 faults: (1) unknown key `level`; did you mean `log.level`?; (2) `limits."
    )


def test_all_contradictions_are_told_at_once_when_each_key_is_right_by_itself() -> None:
    text = "[delivery]\nheartbeat_seconds = 15\n[workflows]\nlease_seconds = 4000\n[log]\nlevel = 'info'"
    with pytest.raises(SettingsError) as refused:
        parse_settings(text)
    assert [fault.split()[0] for fault in refused.value.faults] == [
        "delivery.session_timeout_seconds",
        "workflows.lease_seconds",
    ]
    with pytest.raises(SettingsError) as refused:
        parse_settings(text.replace("'info'", "'loud'"))
    assert refused.value.faults == ("`log.level` must be debug, info, warning or error, not 'loud'",)


def test_each_fault_of_a_file_is_a_line_that_names_it(tmp_path: Path) -> None:
    config = tmp_path / "posthouse.toml"
    config.write_text("[limits]\nsessions_max = 0\nheader_max = 1\n", encoding="utf-8")
    ended = CliRunner().invoke(main, ["config", "--config", str(config)])
    assert (ended.exit_code, ended.stdout) == (78, "")
    first, second = ended.stderr.splitlines()
    assert first == f"posthouse: {config}: `limits.sessions_max` must be a whole number, at least 1, not 0"
    assert second == f"posthouse: {config}: unknown key `limits.header_max`; did you mean `limits.headers_max`?"
    doctor = CliRunner().invoke(main, ["doctor", "--config", str(config), "--json"])
    told = [each["text"] for each in json.loads(doctor.stdout) if each["about"] == "settings"]
    assert [f"posthouse: {text}" for text in told] == [first, second]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[security.roles.billing]\npublsh = ['x']",
            "role 'billing' in [security.roles]: unknown key `publsh`; did you mean `publish`?; a role has",
        ),
        ("[security.roles.billing]\npublish = 'x'", "role 'billing' in [security.roles]: `publish` must be a list"),
        (
            "[security.roles.billing]\npublish = ['**.x']",
            "role 'billing' in [security.roles]: '**.x' in `publish`: **",
        ),
        ("[security.roles.billing]\npublish = ['own']", "'own' in `publish`: `own` means nothing for publish"),
        ("[security.roles.billing]\ngroup = ['work']", "'work' in `group`: a group is written as CHANNEL/GROUP"),
        ("[security.roles.billing]\nread = ['audit']", "'audit' in `read`: what may be read is own, all,"),
        (
            "[security.roles.billing]\ndeny = [{ action = 'publsh', object = 'x' }]",
            "'publsh' is not an action; the actions are publish, send, subscribe,",
        ),
        ("[security.roles.billing]\ndeny = [{ action = 'publish', object = '' }]", "the object '': it is empty"),
        ("[security.roles.billing]\ndeny = [{ action = 'publish' }]", "role 'billing' in [security.roles]"),
        ("[security.roles.admin]", "security.roles.admin cannot be defined"),
        ("[security.roles.none]", "security.roles.none cannot be defined"),
        ("[security.roles.'a b']", "security.roles: 'a b' is not a valid name"),
        (
            "security.default_role = 'memebr'",
            "security.default_role is 'memebr'; the roles are member, ops, admin",
        ),
        (
            "[security.channels.board]\nsubscribe = ['role:chairs']",
            "security.channels.board names the role 'chairs'",
        ),
        (
            "[security.channels.board]\npublish = ['**.x']",
            "channel 'board' in [security.channels]: '**.x' in `publish`",
        ),
        ("[security.channels.board]\nprivat = true", "unknown key `privat`; did you mean `private`?"),
        ("[security.channels.'a b']", "security.channels: 'a b' is not a valid name"),
    ],
)
def test_a_fault_in_the_rights_is_said_with_its_role_or_channel(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(f"security.mode = 'keys'\n{text}")
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "text",
    ["security.default_role = 'none'", "[security.roles.billing]", "[security.channels.board]\nprivate = true"],
)
def test_rights_without_keys_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"means nothing without keys: set security\.mode"):
        parse_settings(text)
    assert parse_settings(f"security.mode = 'keys'\n{text}").security.has_keys


def test_a_byte_order_mark_is_passed_over() -> None:
    assert parse_settings("\ufeff[limits]\nsessions_max = 7").limits.sessions_max == 7


@pytest.mark.parametrize("host", ["[::1]", "127.8.9.1", "localhost", "[::ffff:127.0.0.1]", "[0:0:0:0:0:0:0:1]"])
def test_loopback_is_local(host: str) -> None:
    assert parse_settings(f"[listen]\ncommand = 'tcp://{host}:7710'").listen.command.endswith(":7710")


@pytest.mark.parametrize(
    "host", ["[::]", "[::ffff:0.0.0.0]", "[::ffff:192.168.1.5]", "[fe80::1]", "0.0.0.0", "*", "127.1"]
)
def test_what_other_machines_reach_is_not_local(host: str) -> None:
    with pytest.raises(SettingsError, match="insecure"):
        parse_settings(f"[listen]\ncommand = 'tcp://{host}:7710'")
    assert parse_settings(f"[listen]\ncommand = 'tcp://{host}:7710'\ninsecure = true").listen.insecure


# ── The environment ──────────────────────────────────────────────────────────────────────────────────────────


ENVIRONMENT = {
    "POSTHOUSE_LISTEN_COMMAND": "tcp://127.0.0.1:1",
    "POSTHOUSE_LISTEN_INSECURE": "true",
    "POSTHOUSE_LIMITS_SESSIONS_MAX": "7",
    "POSTHOUSE_LIMITS_HEADERS_MAX": "",
    "POSTHOUSE_DELIVERY_BACKOFF_SECONDS": "[1, 2.5]",
    "POSTHOUSE_STORE_DATABASE": "2026",
    "POSTHOUSE_RETENTION_CHANNELS": "{news = {messages_max = 5}}",
    "POSTHOUSE_URL": "tcp://127.0.0.1:2",
    "POSTHOUSE_LOG": "debug",
    "POSTHOUSE_LOG_SERVICE_HOST": "10.0.0.1",
    "POSTHOUSE_LOG_SERVICE_PORT_HTTP": "80",
    "POSTHOUSE_LIMITS_PORT": "tcp://10.0.0.1:80",
    "POSTHOUSE_STORE_PORT_80_TCP_ADDR": "10.0.0.1",
    "POSTHOUSE_limits_headers_max": "9",
    "SESSIONS_MAX": "8",
}


def test_the_environment_goes_before_the_file_and_an_option_before_both(tmp_path: Path) -> None:
    config = tmp_path / "posthouse.toml"
    config.write_text("[limits]\nsessions_max = 5\nheaders_max = 6\n[log]\nlevel = 'error'", encoding="utf-8")
    options = {"command": None, "tap": "tcp://127.0.0.1:3"}
    settings = read_settings(config, environment=ENVIRONMENT, listen=options)
    assert (settings.limits.sessions_max, settings.limits.headers_max, settings.log.level) == (7, 6, "error")
    assert (settings.listen.command, settings.listen.tap) == ("tcp://127.0.0.1:1", "tcp://127.0.0.1:3")
    assert (settings.listen.insecure, settings.store.database) == (True, "2026")
    assert settings.delivery.backoff_seconds == (1.0, 2.5)
    assert settings.retention.channels["news"].messages_max == 5


def test_every_key_has_a_variable() -> None:
    known = msgspec.to_builtins(Settings())
    values = {variable(section, key): (section, key) for section, keys in known.items() for key in keys}
    written = {
        name: known[section][key]
        if isinstance(known[section][key], str)
        else json.dumps(known[section][key])  # of numbers, lists and empty tables, TOML is the same
        for name, (section, key) in values.items()
    }
    assert read_settings(None, environment=written) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("POSTHOUSE_LIMITS_SESSIONS_MAX", "many", "`limits.sessions_max` must be a whole number"),
        ("POSTHOUSE_LIMITS_SESSIONS_MAX", "7\nheaders_max = 1", "`limits.sessions_max` must be a whole number"),
        ("POSTHOUSE_LIMITS_SESSIONS_MAX", "0", "`limits.sessions_max` must be a whole number, at least 1"),
        ("POSTHOUSE_LIMITS_SESSION_MAX", "7", "did you mean `limits.sessions_max`"),
        ("POSTHOUSE_LOG_LEVEL", "loud", "`log.level` must be debug, info, warning or error"),
        ("POSTHOUSE_DELIVERY_BACKOFF_SECONDS", "[" * 5000, "`delivery.backoff_seconds` must be a list"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(name: str, text: str, fault: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(None, environment={name: text})
    assert str(refused.value).startswith(f"{name}: ")
    assert fault in str(refused.value)
