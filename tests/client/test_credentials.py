"""The file of a bot's credentials: what is written is read back, and what is not kept secret is not used."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from bus.client.credentials import (
    Credentials,
    drop_next,
    prepare_next,
    read_credentials,
    take_next,
    write_credentials,
)
from bus.errors import CredentialsError
from bus.wire.keys import public_text, secret_text

SECRET, WORKER = secret_text(bytes(range(32))), public_text(bytes(range(32, 64)))
MINE = Credentials(url="tcp://127.0.0.1:7710", bot="researcher", secret=SECRET, worker=WORKER)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "researcher.creds"


def put(file: Path, text: str, mode: int = 0o600) -> Path:
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def refused(file: Path) -> str:
    with pytest.raises(CredentialsError) as error:
        read_credentials(file)
    assert error.value.path == str(file)
    assert SECRET[4:] not in str(error.value) + repr(error.value)
    return str(error.value)


@pytest.mark.parametrize("tap", [None, "tcp://127.0.0.1:7711"])
@pytest.mark.parametrize("url", ["tcp://worker.example:7710", 'ipc:///tmp/a "b" \\ü.sock'])
def test_credentials_are_read_back(file: Path, url: str, tap: str | None) -> None:
    others = {"other_urls": (url, "tcp://h2:1"), "other_taps": ("tcp://h2:2",)} if tap else {}
    credentials = msgspec.structs.replace(MINE, url=url, tap=tap, **others)
    write_credentials(file, credentials)
    assert read_credentials(file) == credentials


def test_only_the_owner_may_read_what_was_written(file: Path) -> None:
    before = os.umask(0)
    try:
        write_credentials(file, MINE)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        prepare_next(file, MINE)
        assert take_next(file)
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_nothing_is_overwritten(file: Path) -> None:
    put(file, "another file", 0o644)
    with pytest.raises(CredentialsError, match="exists already"):
        write_credentials(file, MINE)
    assert file.read_text(encoding="utf-8") == "another file"


def test_nothing_is_written_through_a_link(tmp_path: Path, file: Path) -> None:
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CredentialsError, match="exists already"):
        write_credentials(file, MINE)
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_missing_is_told(file: Path) -> None:
    with pytest.raises(CredentialsError, match="cannot be written: No such file or directory"):
        write_credentials(file.parent / "missing" / file.name, MINE)
    with pytest.raises(CredentialsError, match="cannot be written: No such file or directory"):
        prepare_next(file.parent / "missing" / file.name, MINE)


RENEWED = msgspec.structs.replace(MINE, secret=secret_text(bytes(32)))


def test_replacing_leaves_one_file_with_the_new_ones(file: Path) -> None:
    write_credentials(file, MINE)
    assert prepare_next(file, RENEWED) == RENEWED
    assert read_credentials(file) == MINE
    assert take_next(file)
    assert read_credentials(file) == RENEWED
    assert list(file.parent.iterdir()) == [file]
    assert not take_next(file)


def test_an_interrupted_replacement_goes_on_with_its_key(file: Path) -> None:
    """The worker may know it already."""
    write_credentials(file, MINE)
    prepare_next(file, RENEWED)
    assert prepare_next(file, MINE) == RENEWED
    drop_next(file)
    drop_next(file)
    assert prepare_next(file, MINE) == MINE


def test_what_lies_in_the_way_of_a_replacement_is_told(file: Path) -> None:
    write_credentials(file, MINE)
    beside = file.with_name("researcher.creds.next")
    write_credentials(beside, msgspec.structs.replace(MINE, bot="other"))
    with pytest.raises(CredentialsError, match="they are of the bot 'other'; remove them") as refused:
        prepare_next(file, RENEWED)
    assert refused.value.path == str(beside)
    beside.unlink()
    beside.mkdir()
    with pytest.raises(CredentialsError, match="this is not a file"):
        prepare_next(file, RENEWED)


def test_replacing_goes_where_a_link_points(tmp_path: Path, file: Path) -> None:
    behind = tmp_path / "behind.creds"
    write_credentials(behind, MINE)
    file.symlink_to(behind)
    prepare_next(file, RENEWED)
    assert take_next(file)
    assert file.is_symlink()
    assert read_credentials(behind) == RENEWED


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644, 0o666])
def test_a_file_that_others_may_read_is_refused(file: Path, mode: int) -> None:
    write_credentials(file, MINE)
    file.chmod(mode)
    assert f"other users may read or change it; run: chmod 600 {file}" in refused(file)


def test_a_file_that_a_group_may_read_is_refused(file: Path) -> None:
    write_credentials(file, MINE)
    file.chmod(0o640)
    assert "other users may read or change it" in refused(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(file: Path) -> None:
    write_credentials(file, MINE)
    os.chown(file, 12345, 12345)
    assert "it belongs to user 12345" in refused(file)


def written(**changes: object) -> str:
    """Return a file of credentials with other values than they should be."""
    values = {"url": "tcp://h:1", "bot": "a", "secret": SECRET, "worker": WORKER} | changes
    return "\n".join(f"{name} = {msgspec.json.encode(value).decode()}" for name, value in values.items())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the field 'url' is missing"),
        ("\0\0", "it is not TOML"),
        (f"secret = {SECRET}", "it is not TOML"),
        (f'secret = "{SECRET}', "it is not TOML"),
        (written(bot="a b"), "bot must be a name"),
        (written(bot=3), "'bot' must be a string"),
        (written(url="http://h"), "url is not a valid address"),
        (written(tap="h"), "tap is not a valid address"),
        (written(other_urls=["tcp://h:1", "h"]), "other_urls is not a valid address"),
        (written(other_taps=["h"]), "other_taps is not a valid address"),
        (written(secret=WORKER), "secret: this is a public key"),
        (written(secret=SECRET[:-1]), "secret: a secret key (phs_…) has 50 characters, and this has 49"),
        (written(worker=SECRET), "worker: this is a secret key"),
        (written(more=SECRET), "there is no field 'more'"),
    ],
)
def test_a_file_that_is_not_credentials_says_why_without_the_secret(file: Path, text: str, says: str) -> None:
    assert says in refused(put(file, text))


def test_what_is_not_a_file_is_refused(file: Path) -> None:
    assert "cannot be read: No such file or directory" in refused(file)
    assert "this is not a file" in refused(file.parent)
    os.mkfifo(file, 0o600)  # whose reader waits for a writer
    assert "this is not a file" in refused(file)


def test_a_file_without_an_end_is_refused(file: Path) -> None:
    assert "too large" in refused(put(file, "#" * 70_000))


def test_bytes_that_are_no_text_are_refused(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    file.chmod(0o600)
    assert "this is not a file of credentials" in refused(file)


def test_credentials_show_no_secret() -> None:
    shown = f"{MINE!r} {MINE} {list(MINE.__rich_repr__())}"
    assert SECRET[4:] not in shown
    assert "researcher" in shown
