"""How a broker begins: with what the log says, at sockets of its own or those of its house."""

from __future__ import annotations

import uuid_utils
import zmq

from ..core.core import Core
from ..core.keyring import Keyring
from ..model.keyed import KeyedRepository, StoredValue
from ..model.repository import Store
from ..model.wills import WILLS, StoredWill, stored_will
from ..settings import Settings
from ..wire.addresses import tap_address
from .broker import Broker, system_moment
from .listening import Keyed, open_sockets
from .membership import Membership
from .reporting import Report, report

__all__ = ["keyed", "open_broker"]

_PAGE, _PAGE_BYTES = 1000, 8 * 1024 * 1024
"""Last wills that are read at once."""


async def open_broker(
    store: Store,
    settings: Settings,
    context: zmq.Context[zmq.Socket[bytes]],
    *,
    worker: str,
    versions: dict[str, str],
    secret: bytes | None = None,
    report: Report = report,
    membership: Membership | None = None,
) -> Broker:
    """Resume a log, and bind both sockets, unless a house has them. Raise BindError if one cannot be bound.

    `secret` is the worker's own secret key, which it needs if it has keys.
    """
    await store.workflows.end_places(None, settings.delivery.session_timeout_seconds)  # unless their bots return
    core = Core(await store.log.load(), settings, worker=worker, new_id=lambda: str(uuid_utils.uuid7()))
    core.wills.load(await _wills(store.keyed), system_moment().now)
    if membership is None:
        sockets = open_sockets(context, settings, keyed(secret, core.keyring))
    else:
        sockets = membership.sockets
        sockets.serve(core.keyring)
    core.welcoming.tap = settings.listen.advertised_tap or tap_address(sockets.tap.address)
    return Broker(core, store, settings, sockets=sockets, versions=versions, report=report, membership=membership)


async def _wills(keyed: KeyedRepository) -> list[StoredWill]:
    """Return the last wills of all bots."""
    found: list[StoredValue] = []
    more = True
    while more:
        after = found[-1].key if found else None
        page = await keyed.list_values(WILLS, "", after=after, limit=_PAGE, bytes_max=_PAGE_BYTES)
        found, more = [*found, *page.values], page.more
    return list(map(stored_will, found))


def keyed(secret: bytes | None, keyring: Keyring | None) -> Keyed | None:
    """Return what sockets with keys need; None for a worker without keys."""
    return None if secret is None else Keyed(secret, keyring, wall=lambda: system_moment().wall)
