"""A bot's credentials: one file with all that it needs to connect to a worker that has keys.

Owns the file's form; `secret_files` keeps it from others. Also owns its replacement, in steps that may be
interrupted anywhere: the new credentials are on disk before the worker hears of their key.

The secret is in no `repr` and in no error.
"""

from __future__ import annotations

import contextlib
import os
import tomllib

import msgspec

from ..errors import CredentialsError, InvalidKey
from ..secret_files import NotSecret, read_secret_file, sync_folder, write_secret_file
from ..wire.addresses import address_fault
from ..wire.frames import is_name
from ..wire.keys import canonical_public, read_secret
from ..wire.refusals import NAME_RULE, refusal

__all__ = ["Credentials", "drop_next", "prepare_next", "read_credentials", "take_next", "write_credentials"]

_FILE_BYTES_MAX = 65_536
"""Much more than credentials have: what is larger is another file."""


class Credentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a worker is, how to recognise it, and what proves to it that one is this bot."""

    url: str
    tap: str | None = None
    bot: str
    secret: str
    """The bot's secret key, as `phs_…`."""
    worker: str
    """The worker's public key, as `php_…`."""
    other_urls: tuple[str, ...] = ()
    """The addresses of the workers that stand in for this one, and have its key."""
    other_taps: tuple[str, ...] = ()
    """Those of their taps."""

    def __post_init__(self) -> None:
        """Raise ValueError that names the field and what is wrong with it, without the secret."""
        others = (("other_urls", self.other_urls), ("other_taps", self.other_taps))
        for name, address in (
            ("url", self.url),
            ("tap", self.tap),
            *((name, address) for name, addresses in others for address in addresses),
        ):
            if address is not None and (fault := address_fault(address)) is not None:
                raise ValueError(f"{name} is not a valid address: {fault}")
        if not is_name(self.bot):
            raise ValueError(f"bot must be a name: {NAME_RULE}")
        for name, read, text in (("secret", read_secret, self.secret), ("worker", canonical_public, self.worker)):
            try:
                read(text)
            except InvalidKey as error:
                raise ValueError(f"{name}: {error}") from None

    def __repr__(self) -> str:
        return f"<Credentials of {self.bot!r} at {self.url}>"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """Return what may be shown: not the secret."""
        return [("bot", self.bot), ("url", self.url)]


def read_credentials(path: str | os.PathLike[str]) -> Credentials:
    """Return the credentials in a file. Raise CredentialsError if it is missing, invalid, or not kept secret."""
    name = os.fspath(path)
    try:
        text = read_secret_file(name, _FILE_BYTES_MAX, through_links=True).decode()
    except NotSecret as error:
        raise CredentialsError(name, str(error)) from None
    except OSError as error:
        raise CredentialsError(name, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CredentialsError(name, "this is not a file of credentials") from None
    if len(text) > _FILE_BYTES_MAX:
        raise CredentialsError(name, "this is not a file of credentials: it is too large")
    try:
        return msgspec.convert(tomllib.loads(text), Credentials)
    except tomllib.TOMLDecodeError:  # whose message may repeat the line with the secret
        raise CredentialsError(name, "this is not a file of credentials: it is not TOML") from None
    except msgspec.ValidationError as error:
        raise CredentialsError(name, refusal(error)) from None


def write_credentials(path: str | os.PathLike[str], credentials: Credentials) -> None:
    """Create a file with credentials, which only its owner can read; it is on disk when this returns.

    Raise CredentialsError, and leave what is there as it is, if something has that name or it cannot be written.
    """
    name = os.fspath(path)
    try:
        write_secret_file(name, _as_toml(credentials).encode())
    except FileExistsError:
        raise CredentialsError(name, "it exists already, and is not overwritten; choose another name") from None
    except OSError as error:
        raise CredentialsError(name, f"cannot be written: {error.strerror}") from None


def prepare_next(path: str | os.PathLike[str], credentials: Credentials) -> Credentials:
    """Write the credentials that are to replace a file's into `<file>.next`, and return them.

    If a replacement was interrupted, return those that are there instead, if they are of the same bot. Raise
    CredentialsError if they cannot be written, or something else has that name.
    """
    beside = _next_of(path)
    if os.path.lexists(beside):
        found = read_credentials(beside)
        if found.bot != credentials.bot:
            raise CredentialsError(beside, f"they are of the bot {found.bot!r}; remove them")
        return found
    write_credentials(beside, credentials)
    return credentials


def take_next(path: str | os.PathLike[str]) -> bool:
    """Put `<file>.next` into the place of a file, and return True; return False if it is missing.

    The file is replaced as a whole: whoever reads it, even after a crash, has the old or the new credentials. Raise
    CredentialsError if that is not possible.
    """
    name = os.path.realpath(path)
    try:
        os.replace(_next_of(path), name)
        sync_folder(name)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CredentialsError(name, f"cannot be replaced: {error.strerror}") from None
    return True


def drop_next(path: str | os.PathLike[str]) -> None:
    """Remove `<file>.next`, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_next_of(path))


def _next_of(path: str | os.PathLike[str]) -> str:
    return f"{os.path.realpath(path)}.next"


def _as_toml(credentials: Credentials) -> str:
    lines = [f"# Credentials of the bot {credentials.bot}. Whoever has this file is this bot: keep it secret.", ""]
    # No value has a character that JSON and TOML write differently: addresses are printable.
    values = msgspec.to_builtins(credentials)
    lines += [f"{name} = {msgspec.json.encode(value).decode()}" for name, value in values.items()]
    return "\n".join(lines) + "\n"
