"""Blocks of datanodes over HTTP/1.1: ranges of them, and new ones.

Bytes are all that matters: what arrives is received into the buffer in which it stays. A request costs a quarter of the
CPU time that a general client takes.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from dfslib.errors import DfsError, Unavailable
from dfslib.model import BlockId
from dfslib.transfer.block_connection import Answer, Buffer, Connection
from dfslib.transfer.short_reads import PendingRead, ReadLine, error_of, range_of
from dfslib.wire import messages, routes
from dfslib.wire.grants import encode_grant
from dfslib.wire.messages import BlockBody, GrantedBody
from dfslib.wire.reads import READ_BYTES_MAX, BlockRange
from dfslib.wire.session import Grant

_CONNECT_TIMEOUT_S: Final = 5.0
_PROBE_TIMEOUT_S: Final = 5.0
"""A process that is only busy answers by then: what it does with disks is on other threads."""
_SHORT_BYTES: Final = 256 << 10
"""Of a body that datanodes take or answer by their shorter way."""
_IDLE_MAX: Final = 16
"""Connections kept to each datanode."""

_Key = tuple[str, int, bool, bool]
"""Host, port, whether TLS is spoken, and whether the connection is for short requests: a datanode answers these by a
shorter way as long as nothing else comes on their connection."""


class _Site(NamedTuple):
    """What a datanode's URL says."""

    host: str
    port: int
    tls: bool
    path: str
    name: str

    def request(self, method: str, path: str, head: str) -> bytes:
        return f"{method} {self.path}{path} HTTP/1.1\r\nHost: {self.name}\r\n{head}\r\n".encode()


@functools.lru_cache(maxsize=1024)
def _site(url: str) -> _Site:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return _Site(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"), parts.netloc)


class BlockClient:
    """Connections to all datanodes that were talked to. Belongs to one event loop."""

    def __init__(self) -> None:
        self._idle: dict[_Key, list[Connection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._lines: dict[str, ReadLine] = {}

    async def read(self, url: str, block: BlockId, start: int, end: int) -> bytearray:
        """Bytes [start, end) of a block, fewer only where it ends before. Raises NotFound, and Unavailable or what
        the datanode says."""
        head = f"Range: bytes={start}-{end - 1}\r\n"
        answer = await self._request(url, "GET", routes.block(block), head, (), end - start)
        return range_of(answer, url, BlockRange(block, start, end))

    def begin_read(
        self, url: str, wanted: BlockRange, done: Callable[[bytearray | DfsError], None]
    ) -> PendingRead | None:
        """As `read`, begun when this returns: for short ranges, where a connection is at hand, else None.

        `done` is called later and once; with Unavailable more easily than `read` raises it, where the connection had
        ended.
        """
        if wanted.size > READ_BYTES_MAX:
            return None
        line = self._lines.get(url)
        if line is None:
            site = _site(url)
            idle = self._idle.setdefault((site.host, site.port, site.tls, True), [])
            give_back = partial(self._give_back, idle, short=True)
            line = self._lines[url] = ReadLine(url, partial(_take, idle), give_back, site.request)
        return line.begin(wanted, done)

    async def put(self, url: str, block: BlockId, pieces: Sequence[Buffer], headers: Mapping[str, str]) -> BlockBody:
        """Store a new block on the datanode at `url`. Raises what that says, or Unavailable."""
        return messages.decode(await self._put(url, block, pieces, headers), BlockBody)

    async def put_granted(self, url: str, grant: Grant, pieces: Sequence[Buffer], *, sync: bool) -> GrantedBody:
        """Store a new block on all targets of the grant by way of the datanode at `url`.

        Raises NoSpace, NotEnoughDatanodes, Unavailable; the block may then be on some of them.
        """
        headers = {routes.HEADER_GRANT: encode_grant(grant), routes.HEADER_SYNC: "true" if sync else "false"}
        return messages.decode(await self._put(url, grant.block, pieces, headers), GrantedBody)

    async def _put(self, url: str, block: BlockId, pieces: Sequence[Buffer], headers: Mapping[str, str]) -> bytes:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"Content-Length: {sum(map(len, pieces))}\r\n{lines}"
        answer = await self._request(url, "PUT", routes.block(block), head, pieces, None)
        if answer.status not in (200, 201):
            raise error_of(answer)
        return bytes(answer.body)

    async def probe(self, url: str) -> None:
        """Return when the datanode answers anything at all. Raises Unavailable where it does not within seconds."""
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await self._request(url, "GET", routes.HEALTHZ, "", (), _SHORT_BYTES)
        except TimeoutError:
            raise Unavailable(f"{url}: no answer to anything for {_PROBE_TIMEOUT_S:g} s") from None

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _request(
        self, url: str, method: str, path: str, head: str, body: Sequence[Buffer], wanted: int | None
    ) -> Answer:
        site = _site(url)
        size = sum(map(len, body)) if wanted is None else wanted
        short = size <= _SHORT_BYTES and routes.HEADER_GRANT not in head
        key = (site.host, site.port, site.tls, short)
        request = site.request(method, path, head)
        while True:
            idle = self._idle.setdefault(key, [])
            connection = _take(idle)
            kept = connection is not None
            if connection is None:
                connection = await self._connect(key)
            try:
                answer = await connection.request(request, body, wanted)
            except Unavailable:
                if kept and not connection.stalled:
                    continue  # a kept connection may have ended meanwhile; both requests can be repeated
                raise
            self._give_back(idle, connection, answer, short=short)
            return answer

    def _give_back(self, idle: list[Connection], connection: Connection, answer: Answer, *, short: bool) -> None:
        strayed = short and b"server" in answer.headers  # off the shorter way, and will not come back to it
        if connection.reusable and not strayed and len(idle) < _IDLE_MAX:
            idle.append(connection)
        else:
            connection.close()

    async def _connect(self, key: _Key) -> Connection:
        host, port, tls, _ = key
        if tls and self._tls is None:
            self._tls = ssl.create_default_context()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    Connection, host, port, ssl=self._tls if tls else None
                )
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{host}:{port}: {error or type(error).__name__}") from error
        return connection


def _take(idle: list[Connection]) -> Connection | None:
    """A connection at hand."""
    while idle:
        if (connection := idle.pop()).reusable:
            return connection
    return None

