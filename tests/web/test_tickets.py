"""Links, log-ins and tokens as files."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus.web.tickets import FolderUnusable, Login, LoginLink, Tickets, Token


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def link(tickets: Tickets, person: str = "ann") -> str:
    return tickets.issue(LoginLink(person=person, **tickets.times(timedelta(minutes=10))))


def test_a_link_is_used_up_once(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "web")
    secret = link(tickets)
    found = tickets.use_up(secret)
    assert found is not None
    assert found.person == "ann"
    assert tickets.use_up(secret) is None
    assert tickets.use_up(f"{secret}x") is None
    assert list((tmp_path / "web").iterdir()) == []


def test_a_ticket_expires_and_is_swept(tmp_path: Path) -> None:
    clock = Clock()
    tickets = Tickets(tmp_path / "web", clock)
    secret = link(tickets)
    clock.now += timedelta(minutes=9)
    assert tickets.find(secret, LoginLink) is not None
    clock.now += timedelta(minutes=1)
    assert tickets.find(secret, LoginLink) is None
    assert tickets.use_up(secret) is None
    assert tickets.listed(LoginLink) == []
    link(tickets, "bob")
    assert len(list((tmp_path / "web").iterdir())) == 1


def test_a_secret_is_of_one_kind(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "web")
    login = tickets.issue(Login(person="ann", **tickets.times(None)))
    token = tickets.issue(Token(label="shop", bot="shop", allow=("send:**",), **tickets.times(None)))
    assert tickets.find(login, Token) is None
    assert tickets.find(token, Login) is None
    assert tickets.use_up(login) is None
    assert [each.person for _, each in tickets.listed(Login)] == ["ann"]
    [(name, _)] = tickets.listed(Token)
    assert tickets.end(name)
    assert not tickets.end(name)
    assert tickets.find(token, Token) is None
    assert tickets.end_secret(login)


def test_no_secret_is_kept(tmp_path: Path) -> None:
    tickets = Tickets(tmp_path / "web")
    secret = link(tickets)
    [path] = (tmp_path / "web").iterdir()
    assert secret not in path.name
    assert secret.encode() not in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "web").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("secret", ["", "..", "/etc/passwd", "\udc80", "x" * 100_000])
def test_what_is_no_secret_finds_nothing(tmp_path: Path, secret: str) -> None:
    tickets = Tickets(tmp_path / "web")
    assert tickets.find(secret, Login) is None
    assert not tickets.end(secret)


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(FolderUnusable, match="chmod 700"):
        Tickets(tmp_path / "open")
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderUnusable, match="cannot be used"):
        Tickets(tmp_path / "file" / "web")


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    tickets = Tickets(_closed(tmp_path))
    (tmp_path / ("a" * 64)).write_text("no ticket")
    os.chmod(tmp_path / ("a" * 64), 0o600)
    (tmp_path / "note.txt").write_text("mine")
    link(tickets)
    assert tickets.listed(Login) == []
    assert not tickets.end("note.txt")
    assert (tmp_path / "note.txt").exists()
    tickets.note_origin("http://127.0.0.1:1")
    tickets.note_origin("http://127.0.0.1:2")
    assert tickets.origin() == "http://127.0.0.1:2"


def _closed(folder: Path) -> Path:
    folder.chmod(0o700)
    return folder
