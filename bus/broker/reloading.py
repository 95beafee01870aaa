"""The configuration of a running worker, when it is read again: on SIGHUP, or because an admin asks for it.

Its rule: a configuration that is invalid, or cannot be read, changes nothing, and whoever asked is told so.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio.to_thread
import structlog

from ..core.core import Core
from ..core.effects import Effect, Moment, Send
from ..settings import Log, Settings, SettingsError
from ..settings.changes import take_over
from ..wire.answers import Reloaded
from ..wire.codec import encode, ok_frame
from ..wire.frames import Code, ErrorFrame

__all__ = ["Reloading"]

_log = structlog.get_logger("posthouse")


class Reloading:
    """See the module. `carry_out` carries out what follows for sessions, and `note` logs and records."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        *,
        moment: Callable[[], Moment],
        carry_out: Callable[[list[Effect]], None],
        note: Callable[..., None],
    ) -> None:
        self._core = core
        self._settings = settings
        self._moment = moment
        self._carry_out = carry_out
        self._note = note
        self._read: Callable[[], Settings] | None = None
        self._set_log: Callable[[Log], None] | None = None
        self._lock = anyio.Lock()
        """For one at a time: what was read last is what holds."""

    def __repr__(self) -> str:
        return f"<Reloading {'a configuration' if self._read else 'nothing'}>"

    def begin(self, read: Callable[[], Settings] | None, set_log: Callable[[Log], None]) -> None:
        """Set how the configuration is read, if there is one, and how the log is set; log undefined roles."""
        self._read, self._set_log = read, set_log
        self._warn()

    @property
    def is_possible(self) -> bool:
        """Whether there is a configuration to read."""
        return self._read is not None

    async def reload(self, address: bytes | None = None) -> Reloaded:
        """Read the configuration again, and take over what can change while the worker runs.

        `address` is that of the session that asks for it.

        Raise SettingsError if it is invalid, or cannot be read.
        """
        async with self._lock:
            return await self._reload(address)

    async def _reload(self, address: bytes | None) -> Reloaded:
        try:
            if self._read is None:
                raise SettingsError("this worker was started without a configuration, so there is nothing to read")
            after = await anyio.to_thread.run_sync(self._reread, self._read, abandon_on_cancel=True)
        except SettingsError as error:
            message = "the worker goes on with the earlier one"
            self._note("configuration_refused", address=address, error=str(error), message=message)
            raise
        self._settings, changed, restart = take_over(self._settings, after)
        if self._set_log is not None:
            self._set_log(self._settings.log)
        self._carry_out(self._core.configure(self._settings.security, self._moment()))
        self._note("configuration_reloaded", address=address, changed=changed, restart=restart)
        self._warn()
        return Reloaded(changed, restart)

    @staticmethod
    def _reread(read: Callable[[], Settings]) -> Settings:
        """Read the configuration. Raise SettingsError whatever is wrong with it: it must not end the worker."""
        try:
            return read()
        except SettingsError:
            raise
        except Exception as error:
            _log.exception("configuration_unreadable")
            raise SettingsError(f"it cannot be read: {type(error).__name__}") from error

    async def answer(self, address: bytes, request: int) -> None:
        """Reload, and answer the request that asked for it."""
        try:
            frame = ok_frame(request, await self.reload(address))
        except SettingsError as error:
            text = f"the configuration was not taken over, and the earlier one holds: {error}"
            frame = encode(ErrorFrame(code=Code.BAD_REQUEST, message=text, request=request, retry=False))
        self._carry_out([Send(address, frame)])

    def _warn(self) -> None:
        if roles := self._core.administering.undefined_roles():
            _log.warning("roles_undefined", roles=roles, message="keys have these roles, which allow nothing")
