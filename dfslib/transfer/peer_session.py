"""The connections of a server to datanodes: one pool a process."""

from __future__ import annotations

from typing import Final

import aiohttp

from dfslib.wire import routes

PeerSession = aiohttp.ClientSession

_CONNECT_TIMEOUT_S: Final = 5
"""A datanode on the same network answers in milliseconds, or is away."""
_READ_BUFFER_BYTES: Final = 1 << 20


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
