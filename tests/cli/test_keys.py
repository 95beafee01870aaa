"""The commands about keys, against a worker with keys and against the database of one that is stopped."""

from __future__ import annotations

import os
import pty
import re
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bus.client.bot_keys import public_half
from bus.client.credentials import read_credentials
from bus.model.records import parse_timestamp
from bus.wire.keys import read_invitation

from ..integration.wire_worker import free_endpoints
from .terminal import COMMAND, TIMEOUT_SECONDS, Posthouse

ADMIN = "posthouse.db-admin.creds"


def commands_in(folder: Path, *, keys: bool = True) -> Posthouse:
    """Return the commands as they are run in a folder with the configuration of a worker."""
    url, tap = free_endpoints(2)
    configure(folder, url, tap, keys=keys)
    found = Posthouse(url, folder / "posthouse.db", tap)
    found.directory = folder
    for name in ("POSTHOUSE_URL", "POSTHOUSE_CREDENTIALS"):
        found.environment.pop(name, None)
    return found


def configure(folder: Path, url: str, tap: str, *, keys: bool) -> None:
    mode = "keys" if keys else "open"
    (folder / "posthouse.toml").write_text(
        f'[listen]\ncommand = "{url}"\ntap = "{tap}"\n[security]\nmode = "{mode}"\n', encoding="utf-8"
    )


@contextmanager
def serving(posthouse: Posthouse, *options: str) -> Iterator[None]:
    """Run the worker of a folder, until it is to be stopped."""
    with (posthouse.directory / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [*COMMAND, "serve", "--config", "posthouse.toml"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=posthouse.directory,
            env=posthouse.environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    try:
        # By its address: before its credentials are there, another worker may answer at the default one.
        asked = ("status", "--url", posthouse.url, "--timeout", "2", *options)
        posthouse.wait_until(lambda: posthouse.run(*asked).returncode == 0)
        yield
    finally:
        worker.terminate()
        assert worker.wait(TIMEOUT_SECONDS) == 0


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posthouse]:
    """The commands beside a running worker with keys. Its admin's credentials are found by themselves."""
    posthouse = commands_in(tmp_path_factory.mktemp("keyed"))
    with serving(posthouse):
        yield posthouse


def rows(posthouse: Posthouse, bot: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = posthouse.json("keys", "list", bot)
    return sorted(found, key=lambda row: str(row["created_at"]))


def test_an_admin_needs_no_options(keyed: Posthouse) -> None:
    assert keyed.json("bots")
    [row] = rows(keyed, "posthouse-admin")
    assert (row["purpose"], row["sessions"]) == ("admin", 1)


def test_a_new_key_is_a_file_with_which_its_bot_connects(keyed: Posthouse) -> None:
    said = keyed.answer("keys", "new", "alice", "--role", "member", "--role", "writer", "--label", "laptop")
    assert said.startswith("alice.creds is written: bot alice connects with it")
    file = keyed.directory / "alice.creds"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    mine = read_credentials(file)
    assert (mine.bot, mine.url, mine.tap) == ("alice", keyed.url, keyed.tap_url)
    [row] = rows(keyed, "alice")
    assert (row["purpose"], row["roles"], row["label"]) == ("bot", ["member", "writer"], "laptop")
    assert row["public_key"] == public_half(mine)

    assert "stored as" in keyed.answer("send", "alice", "hi", "--credentials", "alice.creds")
    heard = keyed.json("listen", "--count", "1", "--credentials", "alice.creds")
    assert (heard["sender_bot_name"], heard["body"]) == ("alice", "hi")
    # It is saved with the mailboxes, and shown when it is.
    keyed.wait_until(lambda: rows(keyed, "alice")[0]["last_used_at"] is not None)


def test_the_environment_names_credentials(keyed: Posthouse) -> None:
    keyed.answer("keys", "new", "envoy")
    keyed.environment["POSTHOUSE_CREDENTIALS"] = "envoy.creds"
    try:
        assert "stored as" in keyed.answer("send", "envoy", "hi")
        code, line = keyed.refusal("keys", "list")
        assert code == 77
        assert "purpose 'admin'" in line
    finally:
        del keyed.environment["POSTHOUSE_CREDENTIALS"]


def test_a_key_may_be_for_another_place(keyed: Posthouse) -> None:
    options = ["--file", "far.creds", "--bot-url", "tcp://worker.example:7710", "--expires", "60", "--admin"]
    made = keyed.json("keys", "new", "far", *options)
    assert (made["file"], made["bot_name"]) == ("far.creds", "far")
    mine = read_credentials(keyed.directory / "far.creds")
    assert (mine.url, mine.tap) == ("tcp://worker.example:7710", None)
    [row] = rows(keyed, "far")
    assert row["purpose"] == "admin"
    assert row["expires_at"] == made["expires_at"]


def test_a_key_whose_secret_is_elsewhere_needs_no_file(keyed: Posthouse, tmp_path: Path) -> None:
    keyed.answer("keys", "new", "elsewhere", "--file", tmp_path / "e.creds")
    key = public_half(read_credentials(tmp_path / "e.creds"))
    keyed.answer("keys", "revoke", "elsewhere")
    said = keyed.run("keys", "new", "elsewhere", "--public-key", key)
    assert said.returncode == 1, "it is known, and revoked"
    secret = read_credentials(tmp_path / "e.creds").secret
    wrong = keyed.run("keys", "new", "elsewhere", "--public-key", secret)
    assert wrong.returncode == 2
    assert "this is a secret key" in wrong.stderr
    assert secret[4:] not in wrong.stderr
    assert not (keyed.directory / "elsewhere.creds").exists()


def test_a_refused_key_leaves_no_file(keyed: Posthouse) -> None:
    code, line = keyed.refusal("keys", "new", "posthouse")
    assert code == 1
    assert "reserved" in line
    assert not (keyed.directory / "posthouse.creds").exists()


def test_no_file_is_overwritten(keyed: Posthouse) -> None:
    (keyed.directory / "taken.creds").write_text("mine", encoding="utf-8")
    code, line = keyed.refusal("keys", "new", "taken")
    assert code == 77
    assert "it exists already" in line
    assert (keyed.directory / "taken.creds").read_text(encoding="utf-8") == "mine"
    assert rows(keyed, "posthouse-admin")
    assert keyed.refusal("keys", "list", "taken")[0] == 1, "no bot was registered"


def test_an_invitation_makes_a_key_on_another_machine_once(keyed: Posthouse, tmp_path: Path) -> None:
    invited = keyed.json("keys", "invite", "guest", "--ttl", "10m", "--role", "member")
    invitation = read_invitation(invited["invitation"])
    assert (invitation.bot, invitation.url, invitation.tap) == ("guest", keyed.url, keyed.tap_url)
    [row] = rows(keyed, "guest")
    lasts = parse_timestamp(row["expires_at"]) - parse_timestamp(row["created_at"])
    assert lasts == timedelta(minutes=10)

    there = Posthouse(keyed.url)
    there.directory, there.environment = tmp_path, keyed.environment
    said = there.answer("keys", "enrol", stdin=invited["invitation"] + "\n")
    assert said.startswith("guest.creds is written: bot guest connects with it")
    assert "stored as" in there.answer("send", "guest", "hi", "--credentials", "guest.creds")
    row, mine = rows(keyed, "guest")
    assert (row["purpose"], mine["purpose"], mine["roles"]) == ("enrol", "bot", ["member"])

    code, line = there.refusal("keys", "enrol", "--file", "again.creds", stdin=invited["invitation"])
    assert code == 77
    assert "used" in line
    assert sorted(each.name for each in tmp_path.iterdir()) == ["guest.creds"]


def test_an_invitation_is_printed_alone(keyed: Posthouse) -> None:
    ended = keyed.run("keys", "invite", "printed")
    assert read_invitation(ended.stdout.strip()).bot == "printed"
    assert "for bot printed, once, until 2" in ended.stderr
    assert ended.stdout.strip() not in ended.stderr


@pytest.mark.parametrize("text", ["", "phi_", "hello", "phi_AV5UyALZfiPVqa0zeqpX"])
def test_what_is_no_invitation_is_wrong_usage(keyed: Posthouse, text: str) -> None:
    ended = keyed.run("keys", "enrol", stdin=text)
    assert ended.returncode == 2
    assert "cannot be used as an invitation" in " ".join(ended.stderr.split())


def test_a_terminal_does_not_show_an_invitation(keyed: Posthouse, tmp_path: Path) -> None:
    invitation = keyed.json("keys", "invite", "typist")["invitation"]
    ours, theirs = pty.openpty()
    environment = keyed.environment | {"PYTHONPATH": str(Path(__file__).parents[2])}
    program = subprocess.Popen(
        [*COMMAND, "keys", "enrol"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"invitation" not in shown:
        shown += os.read(ours, 1000)
    os.write(ours, f"{invitation}\n".encode())
    assert program.wait(TIMEOUT_SECONDS) == 0
    shown += os.read(ours, 10_000)
    os.close(ours)
    assert b"guest" not in shown
    assert b"typist.creds is written" in shown
    assert invitation[4:].encode() not in shown


def test_a_revoked_key_is_refused(keyed: Posthouse) -> None:
    keyed.answer("keys", "new", "eve")
    keyed.answer("send", "eve", "hi", "--credentials", "eve.creds")
    assert keyed.answer("keys", "revoke", "eve") == "revoked 1 key of bot eve; 0 sessions ended\n"
    code, line = keyed.refusal("send", "eve", "hi", "--credentials", "eve.creds")
    assert code == 77
    assert f"the worker at {keyed.url} refused the key of bot 'eve'" in line
    assert keyed.json("keys", "revoke", "eve") == {"revoked": 0, "sessions": 0}
    assert re.search(r"^eve +bot +revoked ", keyed.answer("keys", "list", "eve"), re.MULTILINE)


def test_one_of_several_keys_is_revoked(keyed: Posthouse) -> None:
    keyed.answer("keys", "new", "twins", "--file", "first.creds")
    keyed.answer("keys", "new", "twins", "--file", "second.creds")
    first = public_half(read_credentials(keyed.directory / "first.creds"))
    keyed.answer("keys", "revoke", "twins", first)
    assert keyed.refusal("send", "twins", "1", "--credentials", "first.creds")[0] == 77
    keyed.answer("send", "twins", "2", "--credentials", "second.creds")


@pytest.mark.parametrize("bot", ["rotator", "posthouse-admin"])
def test_a_rotated_key_replaces_the_file(keyed: Posthouse, bot: str) -> None:
    file = ADMIN if bot == "posthouse-admin" else f"{bot}.creds"
    if file != ADMIN:
        keyed.answer("keys", "new", bot)
    before = read_credentials(keyed.directory / file)
    said = keyed.answer("keys", "rotate", file, "--grace", "0.001")
    assert said == f"{file} has a new key of bot {bot}; the old one is valid for another 0.001 s\n"
    after = read_credentials(keyed.directory / file)
    assert after.secret != before.secret
    assert keyed.json("bots", "--credentials", file)
    [old, new] = [row for row in rows(keyed, bot) if row["public_key"] in (public_half(before), public_half(after))]
    assert old["purpose"] == new["purpose"]
    assert old["replaced_by"] == new["public_key"] == public_half(after)


def test_other_names_than_the_credentials_are_wrong_usage(keyed: Posthouse) -> None:
    ended = keyed.run("send", "posthouse-admin", "hi", "--as", "somebody")
    assert ended.returncode == 2
    assert f"The credentials {ADMIN} are of the bot 'posthouse-admin'" in " ".join(ended.stderr.split())


def test_credentials_that_others_may_read_are_refused(keyed: Posthouse) -> None:
    keyed.answer("keys", "new", "open-book")
    (keyed.directory / "open-book.creds").chmod(0o644)
    code, line = keyed.refusal("bots", "--credentials", "open-book.creds")
    assert code == 77
    assert line.endswith("other users may read or change it; run: chmod 600 open-book.creds")


def test_without_credentials_one_is_told_what_is_missing(keyed: Posthouse, tmp_path: Path) -> None:
    there = Posthouse(keyed.url)
    there.directory = tmp_path
    code, line = there.refusal("bots")
    assert code == 77
    assert "takes only bots with a key" in line
    for command in (["new", "x"], ["list"], ["invite", "x"], ["revoke", "x"]):
        code, line = there.refusal("keys", *command)
        assert code == 77
        assert "managing keys needs the credentials of an admin" in line
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_does_not_come_leaves_the_file(keyed: Posthouse, tmp_path: Path) -> None:
    [nobody] = free_endpoints(1)
    ended = keyed.run(
        "keys", "new", "lost", "--credentials", ADMIN, "--url", nobody, "--timeout", "0.1", "--file", tmp_path / "l"
    )
    assert ended.returncode == 69
    assert "whether the worker knows the key" in ended.stderr
    assert (tmp_path / "l").exists()


def test_the_credentials_beside_a_database_are_for_its_worker_only(keyed: Posthouse) -> None:
    [nobody] = free_endpoints(1)
    code, line = keyed.refusal("bots", "--url", nobody, "--timeout", "0.1")
    assert code == 69
    assert f"no worker answers at {nobody}" in line


def test_no_secret_is_in_the_database_or_the_log(keyed: Posthouse) -> None:
    keyed.answer("keys", "new", "discreet")
    keyed.answer("send", "discreet", "hi", "--credentials", "discreet.creds")
    keyed.answer("keys", "rotate", "discreet.creds")
    files = [keyed.directory / name for name in (ADMIN, "discreet.creds")]
    secrets = [read_credentials(file).secret for file in files]
    kept = [keyed.directory / name for name in ("posthouse.db", "posthouse.db-wal", "worker.log")]
    found = b"".join(file.read_bytes() for file in kept)
    assert public_half(read_credentials(keyed.directory / "discreet.creds")).encode() in found
    assert [secret for secret in secrets if secret[4:40].encode() in found] == []


# ── A worker that is stopped ─────────────────────────────────────────────────────────────────────────────


def test_a_running_workers_database_is_left_alone(keyed: Posthouse) -> None:
    for command in (["adopt", "adopted"], ["new", "intruder"]):
        code, line = keyed.refusal("keys", *command, "--config", "posthouse.toml")
        assert code == 75
        assert "is in use by the worker" in line
    assert not (keyed.directory / "adopted").exists()
    assert not (keyed.directory / "intruder.creds").exists()


def test_every_bot_of_an_open_worker_is_adopted(tmp_path: Path) -> None:
    posthouse = commands_in(tmp_path, keys=False)
    options = ["--url", posthouse.url]
    with serving(posthouse, *options):
        posthouse.answer("status", "--as", "console", *options)
        for bot in ("anna", "bert"):
            posthouse.answer("send", "console", "hi", "--as", bot, *options)
        assert posthouse.refusal("keys", "list", *options)[0] == 77
    configure(tmp_path, posthouse.url, posthouse.tap_url, keys=True)
    adopt = ["keys", "adopt", "creds", "--config", "posthouse.toml"]
    posthouse.answer("keys", "new", "boss", "--admin", "--config", "posthouse.toml")
    assert [each["bot"] for each in posthouse.json(*adopt)] == ["anna", "bert", "console"]
    assert posthouse.json(*adopt) == [], "they have keys now"
    assert stat.S_IMODE((tmp_path / "creds").stat().st_mode) == 0o700
    with serving(posthouse, "--credentials", "boss.creds"):
        for bot in ("anna", "bert"):
            posthouse.answer("send", "console", "hi", "--credentials", f"creds/{bot}.creds")
        found = posthouse.json("keys", "list", "--credentials", "boss.creds")
        assert {row["bot_name"]: row["label"] for row in found} == {
            "anna": "adopted",
            "bert": "adopted",
            "boss": "",
            "console": "adopted",
        }
        history = posthouse.json("history", "--between", "anna", "console", "--credentials", "boss.creds")
        assert len(history) == 2, "it is the same bot"


def test_an_interrupted_adoption_goes_on(tmp_path: Path) -> None:
    """The files were written, and the database did not hear of it."""
    posthouse = commands_in(tmp_path, keys=False)
    with serving(posthouse, "--url", posthouse.url, "--as", "console"):
        pass
    adopt = ["keys", "adopt", "creds", "--config", "posthouse.toml"]
    database = (tmp_path / "posthouse.db").read_bytes()
    posthouse.answer(*adopt)
    before = read_credentials(tmp_path / "creds" / "console.creds")
    (tmp_path / "posthouse.db").write_bytes(database)
    posthouse.answer(*adopt)
    assert read_credentials(tmp_path / "creds" / "console.creds") == before
    configure(tmp_path, posthouse.url, posthouse.tap_url, keys=True)
    with serving(posthouse, "--credentials", "creds/console.creds"):
        pass


@pytest.mark.parametrize("command", ["adopt", "new"])
def test_a_database_that_is_missing_is_not_made(tmp_path: Path, command: str) -> None:
    posthouse = Posthouse()
    posthouse.directory = tmp_path
    code, line = posthouse.refusal("keys", command, "x", "--database", "missing.db")
    assert code == 78
    assert "missing.db does not exist" in line
    assert list(tmp_path.iterdir()) == []
