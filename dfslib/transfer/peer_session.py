"""The connections of a server to datanodes: one pool a process."""

from __future__ import annotations

from typing import Final

import aiohttp

from dfslib.errors import Unavailable
from dfslib.wire import routes
from dfslib.wire.messages import decode_error

PeerSession = aiohttp.ClientSession

_CONNECT_TIMEOUT_S: Final = 5
"""A datanode on the same network answers in milliseconds, or is away."""
_READ_BUFFER_BYTES: Final = 1 << 20
_SYNC_TIMEOUT_S: Final = 60
"""The fsync of whatever a busy disk has queued."""


def open_peer_session() -> PeerSession:
    """A pool without bounds on connections and without overall deadlines: whoever calls watches progress.

    Must be called, and the pool closed, inside the running event loop.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
        read_bufsize=_READ_BUFFER_BYTES,
        auto_decompress=False,
        max_field_size=routes.MAX_HEADER_BYTES,
    )


async def sync_datanode(session: PeerSession, url: str) -> None:
    """Have a datanode make all that it acknowledged durable. Raises what it answers, or Unavailable."""
    try:
        timeout = aiohttp.ClientTimeout(total=_SYNC_TIMEOUT_S)
        async with session.post(url.rstrip("/") + routes.SYNC, timeout=timeout) as answer:
            if answer.status != 204:
                raise decode_error(await answer.read(), answer.status)
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{url}: {error or type(error).__name__}") from error
