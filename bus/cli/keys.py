"""The command `posthouse keys`: giving bots keys, and taking them away.

Owns the files that the commands write, and which half of a pair goes where: a secret is made here, goes into a file
that only its owner can read, and is never an argument, an output, or sent. An invitation is the exception, because
it is made to be handed on. It is read from standard input, and its first use uses it up.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from ..adopting import Addresses, NewKey, credentials_of_all, stopped_worker
from ..client.bot_keys import new_credentials, public_half
from ..client.credentials import Credentials, read_credentials, write_credentials
from ..client.endpoint import VARIABLE
from ..client.enrolling import credentials_for, enrol
from ..curve import new_secret, public_of
from ..errors import CredentialsError, InvalidKey
from ..errors.words import amount
from ..model.keys import Purpose
from ..model.records import timestamp
from ..wire.answers import ListedKey
from ..wire.keys import Invitation, canonical_public, invitation_text, public_text, read_invitation, read_public
from ..wire.limits import NAME_CHARACTERS_MAX
from .completing import complete_bots
from .console import Time, show_json, show_rows
from .ending import ask, run
from .joined import databases
from .keeping import Keeper, Running, Stopped, deny, settings_of
from .numbers import seconds, seconds_or_none
from .options import Command, Link, Patience, address_of, asking, linked, name_of, read_input, waiting
from .rights import test
from .streams import EXIT_UNAVAILABLE, note, say

__all__ = ["keys"]


_USE = f"bot {{bot}} connects with it (credentials=, --credentials, {VARIABLE})"


@click.group("keys")
def keys() -> None:
    """Add keys to bots, list them, and revoke them.

    A worker with keys (mode = "keys") takes only bots whose key it knows. A bot's key is in a file of credentials.
    Managing keys needs credentials of an admin: those that the worker wrote beside its database at its first start
    with keys are found in the current folder.
    """


# ── Parts of a key ───────────────────────────────────────────────────────────────────────────────────────


class _Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a new key is to be, and by which addresses its bot reaches the worker."""

    roles: tuple[str, ...]
    label: str
    bot_url: str | None
    bot_tap: str | None

    def addresses(self, here: Addresses) -> Addresses:
        """Return how the bot reaches the worker, if it is reached like this here."""
        tap = self.bot_tap or (here.tap if self.bot_url is None else None)
        return Addresses(self.bot_url or here.url, tap, here.worker)


def _wanting(command: Command) -> Command:
    """Add the options of a new key to a command."""
    for option in (
        click.option("--bot-tap", metavar="ADDRESS", callback=address_of, help="The same of the tap."),
        click.option(
            "--bot-url",
            metavar="ADDRESS",
            callback=address_of,
            help="The worker's address for this bot, if it is not the one used here.",
        ),
        click.option(
            "--label",
            metavar="TEXT",
            default="",
            callback=_label,
            help="A note for people, such as the machine that it is for.",
        ),
        click.option(
            "--role",
            "roles",
            metavar="NAME",
            multiple=True,
            callback=name_of,
            help="What the bot may do, by a role of the worker's configuration. Repeatable.",
        ),
    ):
        command = option(command)
    return command


def _label(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if len(value) > NAME_CHARACTERS_MAX or not value.isprintable():
        raise click.BadParameter(f"use at most {NAME_CHARACTERS_MAX} printable characters")
    return value


def _key_of(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Check a public key."""
    try:
        return None if value is None else canonical_public(value)
    except InvalidKey as error:
        raise click.BadParameter(str(error)) from None


@contextmanager
def _written(file: str | None, mine: Credentials | None) -> Iterator[None]:
    """Create a file of credentials, if one is wanted, and remove it if their key is refused.

    It stays if no answer came: then the worker may know the key.
    """
    if file is None or mine is None:
        yield
        return
    try:
        write_credentials(file, mine)
    except CredentialsError as error:
        deny(str(error))
    try:
        yield
    except SystemExit as ended:
        if ended.code != EXIT_UNAVAILABLE:
            os.unlink(file)
            raise
        note(f"whether the worker knows the key in {file} is unknown: try it, or remove the file and begin again")
        raise


# ── New keys ─────────────────────────────────────────────────────────────────────────────────────────────


class _New(_Wanted, frozen=True, kw_only=True):
    """The key that `new` is to make, and where."""

    target: str | None
    expires: float | None
    admin: bool
    public_key: str | None
    config: Path | None
    database: str | None


def _of_stopped(command: Command) -> Command:
    """Add the options that name a stopped worker to a command."""
    for option in (
        click.option(
            "--config", metavar="FILE", type=click.Path(path_type=Path), help="The same by its configuration."
        ),
        click.option("--database", metavar="FILE", help="The database of a worker that is stopped."),
    ):
        command = option(command)
    return command


@keys.command("new")
@click.argument("bot", callback=name_of, shell_complete=complete_bots)
@click.option("--file", "target", metavar="FILE", help="The file to create.  [default: BOT.creds]")
@_wanting
@click.option(
    "--expires", type=seconds, metavar="SPAN", help="How long the key is valid, such as 90d; by default, for good."
)
@click.option("--admin", is_flag=True, help="The key may also manage keys.")
@_of_stopped
@click.option(
    "--public-key",
    metavar="KEY",
    callback=_key_of,
    help="Use this key, whose secret half is elsewhere; no file is created.",
)
@linked("console")
def new(link: Link, bot: str, **options: Any) -> None:
    """Make a key for BOT, and a file of credentials with which it connects.

    BOT is registered if it is unknown. It may have several keys: one for each machine, for instance. The secret
    half of the key is only in the file, which its owner alone can read; the worker gets the public half.
    """
    wanted = _New(**options)
    is_stopped = wanted.config is not None or wanted.database is not None
    keeper: Keeper = Stopped(settings_of(wanted.config, wanted.database)) if is_stopped else Running(link)
    file, mine, public_key = None, None, wanted.public_key
    if public_key is None:
        here, file = wanted.addresses(keeper.addresses()), wanted.target or f"{bot}.creds"
        mine = new_credentials(bot, here.url, worker=here.worker, tap=here.tap)
        public_key = public_half(mine)
    key = NewKey(
        bot=bot,
        public_key=public_key,
        purpose=Purpose.ADMIN if wanted.admin else Purpose.BOT,
        roles=wanted.roles,
        label=wanted.label,
        expires_seconds=wanted.expires,
    )
    with _written(file, mine):
        added = keeper.add(key)
    if link.as_json:
        show_json({"file": file, **added})
    elif file is None:
        say(f"bot {bot} may connect with the key {key.public_key}")
    else:
        say(f"{file} is written: {_USE.format(bot=bot)}")


@keys.command("invite")
@click.argument("bot", callback=name_of, shell_complete=complete_bots)
@_wanting
@click.option(
    "--ttl",
    type=seconds,
    default="1h",
    show_default=True,
    help="How long the invitation is valid: 90s, 30m, 1h or 7d, or a number of seconds.",
)
@linked("console")
def invite(link: Link, bot: str, ttl: float, **options: Any) -> None:
    """Print an invitation, with which BOT gets a key on another machine.

    There, `posthouse keys enrol` reads it from standard input. It is used up by that, and no secret is sent to the
    worker. Until then, whoever has it can become BOT: hand it on as you would a password.
    """
    wanted, keeper, secret = _Wanted(**options), Running(link), new_secret()
    here = wanted.addresses(keeper.addresses())
    invitation = Invitation(secret=secret, worker=read_public(here.worker), bot=bot, url=here.url, tap=here.tap)
    key = NewKey(
        bot=bot,
        public_key=public_text(public_of(secret)),
        purpose=Purpose.ENROL,
        roles=wanted.roles,
        label=wanted.label,
        expires_seconds=ttl,
    )
    added = keeper.add(key)
    if link.as_json:
        show_json({"invitation": invitation_text(invitation), "bot": bot, "expires_at": added["expires_at"]})
    else:
        say(invitation_text(invitation))
        note(f"for bot {bot}, once, until {added['expires_at']}; there: posthouse keys enrol")


@keys.command("enrol")
@click.option("--file", "target", metavar="FILE", help="The file to create.  [default: BOT.creds]")
@waiting
def enrol_here(target: str | None, patience: Patience, as_json: bool) -> None:
    """Make a key for the bot of an invitation, and a file of credentials with which it connects.

    The invitation is read from standard input, or asked for on a terminal. The secret half of the key is only in
    the file, which its owner alone can read.
    """
    try:
        invitation = read_invitation(_invitation_text())
        mine = credentials_for(invitation)
    except ValueError as error:  # InvalidKey is one
        raise click.UsageError(f"This cannot be used as an invitation: {error}.") from None
    file = target or f"{invitation.bot}.creds"
    with _written(file, mine):
        enrolled = run(lambda: enrol(invitation, mine, timeout=patience.for_answer))
    if as_json:
        show_json({"file": file, "public_key": public_half(mine), **msgspec.to_builtins(enrolled)})
    else:
        say(f"{file} is written: {_USE.format(bot=enrolled.bot_name)}")


def _invitation_text() -> str:
    if sys.stdin.isatty():
        text: str = click.prompt("invitation", hide_input=True, err=True)
        return text.strip()
    return read_input().strip()


# ── Keys that exist ──────────────────────────────────────────────────────────────────────────────────────


@keys.command("list")
@click.argument("bot", callback=name_of, shell_complete=complete_bots, required=False)
@asking
def list_keys(link: Link, bot: str | None) -> None:
    """List the keys of BOT, or of all bots: what each is for, and when it was last used.

    Keys that have expired or were revoked are listed too.
    """
    Running(link)
    found = ask(link, lambda asker: asker.keys.list(bot))
    if link.as_json:
        show_json(found)
        return
    now = timestamp(datetime.now(UTC))
    rows = [
        (
            each.bot_name,
            each.purpose,
            ", ".join(each.roles),
            _state(each, now),
            Time(each.revoked_at or each.expires_at or ""),
            Time(each.last_used_at or ""),
            each.sessions,
            each.label,
            each.public_key,
        )
        for each in sorted(found, key=lambda each: (each.bot_name, each.created_at))
    ]
    columns = ("bot", "purpose", "roles", "state", "until", "last used", "sessions", "label", "key")
    show_rows(columns, rows, nothing="no keys", minor=("label", "roles", "sessions", "last used"))


def _state(key: ListedKey, now: str) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= now:
        return "used" if key.purpose == Purpose.ENROL and key.replaced_by else "expired"
    return "replaced" if key.replaced_by else "valid"


@keys.command("revoke")
@click.argument("bot", callback=name_of, shell_complete=complete_bots)
@click.argument("key", callback=_key_of, required=False)
@linked("console")
def revoke(link: Link, bot: str, key: str | None) -> None:
    """Revoke KEY, or all keys of BOT, for good.

    When the command returns, the sessions of these keys have ended, and nothing more is sent to them. Their
    messages in flight wait for another session of the bot. What the bot has sent stays.
    """
    Running(link)
    revoked = ask(link, lambda asker: asker.keys.revoke(bot, key))
    if link.as_json:
        show_json(revoked)
    else:
        ended = f"{amount(revoked.sessions, 'session')} ended"
        say(f"revoked {amount(revoked.revoked, 'key')} of bot {bot}; {ended}")


@keys.command("rotate")
@click.argument("file")
@click.option(
    "--grace",
    type=seconds_or_none,
    default="1h",
    show_default=True,
    help="How long the old key stays valid: 90s, 30m, 1h or 7d, or a number of seconds.",
)
@waiting
def rotate(file: str, grace: float, patience: Patience, as_json: bool) -> None:
    """Replace the key in FILE, a bot's credentials, by a new one.

    Programs that run go on with the old key until the grace is over, and then read the file again. After an
    interruption, run it again.
    """
    try:
        mine = read_credentials(file)
    except CredentialsError as error:
        deny(str(error))
    link = Link(urls=(), name=mine.bot, patience=patience, as_json=as_json, file=file, credentials=mine)
    renewed = ask(link, lambda bot: bot.rotate(grace_seconds=grace))
    if as_json:
        show_json({"file": file, "bot": renewed.bot, "public_key": public_half(renewed)})
    else:
        say(f"{file} has a new key of bot {renewed.bot}; the old one is valid for another {grace:g} s")


keys.add_command(test)


# ── From open to keys ────────────────────────────────────────────────────────────────────────────────────


@keys.command("adopt")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_wanting
@_of_stopped
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text, for programs.")
def adopt(folder: Path, config: Path | None, database: str | None, as_json: bool, **options: Any) -> None:
    """Make a key for each bot that a worker knows, and a file of credentials for it in FOLDER.

    This is the way from a worker without keys to one with keys: stop it, run this as its user, hand the files to
    the bots, and start it with mode = "keys". Bots that have a key are left alone. After an interruption, run it
    again.
    """
    wanted, settings = _Wanted(**options), settings_of(config, database)

    async def adopted() -> list[Credentials]:
        async with stopped_worker(databases(), settings) as worker:
            found = credentials_of_all(worker, folder, wanted.addresses(worker.addresses))
            await worker.add([_adopting(wanted, each) for each in found])
            return found

    found = run(adopted)
    if as_json:
        show_json([{"bot": each.bot, "file": str(folder / f"{each.bot}.creds")} for each in found])
    else:
        say(f'wrote {amount(len(found), "file")} in {folder}; start the worker with mode = "keys" in [security]')


def _adopting(wanted: _Wanted, mine: Credentials) -> NewKey:
    return NewKey(bot=mine.bot, public_key=public_half(mine), roles=wanted.roles, label=wanted.label or "adopted")
