"""Blocks of datanodes over HTTP/1.1, straight between the socket and the caller's buffers.

Two requests are all there is (a range of a block, a new block), and bytes are all that matters: what arrives is
received into the buffer in which it stays. A request costs a quarter of the CPU time that a general client takes.
"""

from __future__ import annotations

import asyncio
import functools
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from dfslib.errors import DfsError, InputOutput, Unavailable
from dfslib.model import BlockId
from dfslib.wire import messages, routes
from dfslib.wire.grants import encode_grant
from dfslib.wire.messages import BlockBody, GrantedBody
from dfslib.wire.session import Grant

Buffer = bytes | bytearray | memoryview

_CONNECT_TIMEOUT_S: Final = 5.0
STALL_TIMEOUT_S: Final = 20.0
"""Without a byte in either direction. Longer than what a datanode grants those it relays a block to."""
SHORT_BYTES: Final = 256 << 10
_HEAD_MAX: Final = 16 << 10
_BODY_MAX: Final = 1 << 20
"""Of an answer that was not asked to be long: an error, or what became of a block."""
_IDLE_MAX: Final = 16
"""Connections kept to each datanode."""
_ONE_WRITE: Final = 256 << 10
"""A body this small goes out with its head, and arrives with it."""
_SHORT_ANSWER: Final = re.compile(
    rb"HTTP/1\.1 206 [^\r\n]*\r\nContent-Range: ([^\r\n]*)\r\nETag: [^\r\n]*\r\nContent-Length: (\d{1,9})\r\n"
    rb"Content-Type: [^\r\n]*\r\n"
)
"""The head with which datanodes answer short requests; thousands a second of them."""
_CONTENT_RANGE: Final = re.compile(rb"bytes (\d+)-(\d+)/(\d+)")


class _Answer(NamedTuple):
    status: int
    headers: dict[bytes, bytes]
    body: bytearray


class PendingRead(Protocol):
    def give_up(self) -> None:
        """Nobody wants the answer any more; nobody is told one."""

    def watch(self) -> None:
        """From now on, fail with Unavailable where nothing comes for STALL_TIMEOUT_S."""


class _Connection(asyncio.BufferedProtocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head = bytearray(_HEAD_MAX)
        self._head_view = memoryview(self._head)
        self._head_end = 0
        self._body: bytearray | None = None
        self._body_view: memoryview | None = None
        self._body_end = 0
        self._wanted: int | None = None
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._done: Callable[[_Answer | DfsError], None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._progress = 0
        self.reusable = True

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body_view is not None:
            return self._body_view[self._body_end :]
        return self._head_view[self._head_end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._progress += nbytes
        if self._body_view is not None:
            self._body_end += nbytes
        else:
            self._head_end += nbytes
            if not self._parse_head():
                return
        if self._body is not None and self._body_end == len(self._body):
            self._finish()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        self._fail(Unavailable(f"the connection ended: {exc or 'closed by the datanode'}"))

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # One request.

    async def request(self, head: bytes, body: Sequence[Buffer], wanted: int | None) -> _Answer:
        """`wanted`: what the body of a good answer may have at most. Raises Unavailable."""
        assert self._transport is not None
        answer: asyncio.Future[_Answer] = self._loop.create_future()

        def done(result: _Answer | DfsError) -> None:
            if not answer.done():
                answer.set_exception(result) if isinstance(result, DfsError) else answer.set_result(result)

        self._expect(wanted, done)
        self.watch()
        try:
            if len(body) == 1 and len(body[0]) <= _ONE_WRITE:
                self._transport.write(b"".join((head, body[0])))
                body = ()
            else:
                self._transport.write(head)
            for piece in body:
                if answer.done() or not self.reusable:
                    break  # refused, or gone
                self._transport.write(piece)
                self._progress += 1
                if self._writable is not None:
                    either: list[asyncio.Future[Any]] = [self._writable, answer]
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            result = await answer
        except BaseException:
            self.give_up()
            raise
        if body and not self._all_sent():
            self.abort()
        return result

    def begin(self, head: bytes, wanted: int, done: Callable[[_Answer | DfsError], None]) -> None:
        """As `request`, without a body and without waiting: `done` is called later, however late unless `watch` is."""
        assert self._transport is not None
        self._expect(wanted, done)
        self._transport.write(head)

    def give_up(self) -> None:
        """Nobody wants the answer any more."""
        self._done = None
        self._unwatch()
        self.abort()

    def watch(self) -> None:
        """From now on, fail where nothing comes for STALL_TIMEOUT_S."""
        self._watch = self._loop.call_later(STALL_TIMEOUT_S, self._check_progress, -1)

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _expect(self, wanted: int | None, done: Callable[[_Answer | DfsError], None]) -> None:
        self._head_end, self._body, self._body_view, self._body_end = 0, None, None, 0
        self._wanted = wanted
        self._done = done

    def abort(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def _all_sent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() == 0

    def _check_progress(self, seen: int) -> None:
        if self._progress == seen and self._writable is None:
            self._fail(Unavailable(f"nothing came from the datanode for {STALL_TIMEOUT_S:g} s"))
        elif self._progress == seen:
            self._fail(Unavailable(f"the datanode took nothing for {STALL_TIMEOUT_S:g} s"))
        else:
            self._watch = self._loop.call_later(STALL_TIMEOUT_S, self._check_progress, self._progress)

    def _parse_head(self) -> bool:
        """Whether the head is complete; then what follows goes into the body."""
        end = self._head.find(b"\r\n\r\n", 0, self._head_end)
        if end < 0:
            if self._head_end == _HEAD_MAX:
                self._break("the head of the answer is too long")
            return False
        if match := _SHORT_ANSWER.fullmatch(self._head, 0, end + 2):
            self._status, self._headers = 206, {b"content-range": match[1]}
            return self._begin_body(end + 4, int(match[2]))
        lines = bytes(self._head_view[:end]).split(b"\r\n")
        try:
            self._status = int(lines[0].split(b" ", 2)[1])
            pairs = (line.partition(b":") for line in lines[1:])
            self._headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            length = int(self._headers.get(b"content-length", b"-1" if self._status != 204 else b"0"))
        except (IndexError, ValueError):
            self._break("the answer is not HTTP")
            return False
        if self._headers.get(b"connection", b"").lower() == b"close":
            self.reusable = False
        return self._begin_body(end + 4, length)

    def _begin_body(self, start: int, length: int) -> bool:
        """The head ends at `start` of what has been received."""
        good = self._status in (200, 201, 206)
        if not 0 <= length <= (self._wanted if good and self._wanted is not None else _BODY_MAX):
            self._break(f"the answer has {length} bytes")
            return False
        rest = self._head_end - start
        if rest > length:
            self._break("the answer goes on behind its end")
            return False
        self._body = bytearray(length)
        self._body[:rest] = self._head_view[start : self._head_end]
        self._body_view, self._body_end = memoryview(self._body), rest
        return True

    def _finish(self) -> None:
        body, self._body = self._body, None
        self._body_view, self._head_end = None, 0
        assert body is not None
        self._tell(_Answer(self._status, self._headers, body))

    def _break(self, reason: str) -> None:
        self._fail(Unavailable(reason))
        self.abort()

    def _fail(self, error: DfsError) -> None:
        self._tell(error)

    def _tell(self, result: _Answer | DfsError) -> None:
        if self._done is not None:
            done, self._done = self._done, None
            self._unwatch()
            done(result)


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
        self._idle: dict[_Key, list[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def read(self, url: str, block: BlockId, start: int, end: int) -> bytearray:
        """Bytes [start, end) of a block, fewer only where it ends before. Raises NotFound, and Unavailable or what
        the datanode says."""
        head = f"Range: bytes={start}-{end - 1}\r\n"
        answer = await self._request(url, "GET", routes.block(block), head, (), end - start)
        return _range(answer, url, start, end)

    def begin_read(
        self, url: str, block: BlockId, start: int, end: int, done: Callable[[bytearray | DfsError], None]
    ) -> PendingRead | None:
        """As `read`, begun when this returns: for short ranges, where a connection is at hand, else None.

        `done` is called later and once; with Unavailable more easily than `read` raises it, where the connection had
        ended.
        """
        site = _site(url)
        idle = self._idle.get((site.host, site.port, site.tls, True)) if end - start <= SHORT_BYTES else None
        while idle and not idle[-1].reusable:
            idle.pop()
        if not idle:
            return None
        connection = idle.pop()

        def answered(answer: _Answer | DfsError) -> None:
            if isinstance(answer, DfsError):
                connection.abort()
                done(answer)
                return
            self._give_back(idle, connection, answer, short=True)
            try:
                data = _range(answer, url, start, end)
            except DfsError as error:
                done(error)
            else:
                done(data)

        head = f"Range: bytes={start}-{end - 1}\r\n"
        connection.begin(site.request("GET", routes.block(block), head), end - start, answered)
        return connection

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
            raise _error(answer)
        return bytes(answer.body)

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _request(
        self, url: str, method: str, path: str, head: str, body: Sequence[Buffer], wanted: int | None
    ) -> _Answer:
        site = _site(url)
        size = sum(map(len, body)) if wanted is None else wanted
        short = size <= SHORT_BYTES and routes.HEADER_GRANT not in head
        key = (site.host, site.port, site.tls, short)
        request = site.request(method, path, head)
        while True:
            idle = self._idle.setdefault(key, [])
            while idle and not idle[-1].reusable:
                idle.pop()
            kept = bool(idle)
            connection = idle.pop() if idle else await self._connect(key)
            try:
                answer = await connection.request(request, body, wanted)
            except Unavailable:
                if kept:
                    continue  # a kept connection may have ended meanwhile; both requests can be repeated
                raise
            self._give_back(idle, connection, answer, short=short)
            return answer

    def _give_back(self, idle: list[_Connection], connection: _Connection, answer: _Answer, *, short: bool) -> None:
        strayed = short and b"server" in answer.headers  # off the shorter way, and will not come back to it
        if connection.reusable and not strayed and len(idle) < _IDLE_MAX:
            idle.append(connection)
        else:
            connection.close()

    async def _connect(self, key: _Key) -> _Connection:
        host, port, tls, _ = key
        if tls and self._tls is None:
            self._tls = ssl.create_default_context()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    _Connection, host, port, ssl=self._tls if tls else None
                )
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{host}:{port}: {error or type(error).__name__}") from error
        return connection


def _range(answer: _Answer, url: str, start: int, end: int) -> bytearray:
    """The bytes asked for. Raises what the answer says, or InputOutput where it is another one."""
    if answer.status != 206:
        raise _error(answer)
    match = _CONTENT_RANGE.fullmatch(answer.headers.get(b"content-range", b""))
    if not match or (int(match[1]), int(match[2]) + 1) != (start, min(end, int(match[3]))):
        raise InputOutput(f"{url} answered with another range than {start}-{end - 1}")
    if len(answer.body) != int(match[2]) + 1 - start:
        raise InputOutput(f"{url} answered with {len(answer.body)} bytes of another number")
    return answer.body


def _error(answer: _Answer) -> DfsError:
    return messages.decode_error(bytes(answer.body), answer.status)
