"""Short requests for blocks, answered without the HTTP framework: a GET of small ranges, a PUT of a small block.

Mounts and the namenode send thousands of these a second; parsed here, one costs a third of the CPU time. What is not
exactly such a request, and everything that follows on its connection, goes to the framework untouched, so that this is
never the place where HTTP is interpreted.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from dfslib.datanode.commit_queue import SMALL_BYTES as SMALL_BLOCK
from dfslib.datanode.services import Services
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_writer import NewBlock, Stored, write_batch
from dfslib.datanode.web.lent_socket import LentSocket
from dfslib.datanode.web.reads import Found, read_if_in_memory, read_ranges
from dfslib.datanode.web.receiving import receive_block
from dfslib.datanode.web.sending import SMALL_BYTES as SMALL_ANSWER
from dfslib.errors import DfsError, InputOutput, InvalidArgument
from dfslib.model import BlockId, format_block
from dfslib.runtime.logs import event
from dfslib.wire import messages, routes
from dfslib.wire.messages import BlockBody
from dfslib.wire.origins import parse_origins
from dfslib.wire.reads import BlockRange, encode_answer, parse_reads

log = logging.getLogger("dfs.datanode")

_HEAD_MAX: Final = 64 << 10
_STAY_S: Final = 0.01
"""A thread that has answered waits so long for the next read: several times what a reader, one at a time, needs to
ask each of a few datanodes."""
_GET: Final = re.compile(
    rb"GET /blocks/([0-9a-f]{16}) HTTP/1\.1\r\nHost: [^\r\n]+\r\nRange: bytes=(\d{1,10})-(\d{1,10})\r\n\r\n"
)
_GET_MANY: Final = re.compile(rb"GET /blocks\?reads=([0-9a-f:,-]{1,2048}) HTTP/1\.1\r\nHost: [^\r\n]+\r\n\r\n")
_TYPE: Final = "Content-Type: application/octet-stream\r\n"
_PUT: Final = re.compile(
    rb"PUT /blocks/([0-9a-f]{16}) HTTP/1\.1\r\nHost: [^\r\n]+\r\nContent-Length: (\d{1,9})\r\n"
    rb"(?:X-DFS-Origin: ([A-Za-z0-9_=-]*)\r\n)?(?:X-DFS-Sync: (true|false)\r\n)?X-DFS-CRC32C: ([0-9a-f]{8})\r\n\r\n"
)
"""What transfer.block_client sends."""


class _Get(NamedTuple):
    """`many`: how it was asked, and is to be answered."""

    reads: list[BlockRange]
    request: bytes
    many: bool


class _Put(NamedTuple):
    new: NewBlock
    body: bytes


class ShortRequests(asyncio.Protocol):
    """One connection. `inner` is the framework's protocol for it; `services` gives what handlers share.

    One request at a time is under way: in `_task`, or in a thread, for reads that wait for the disk. The thread stays
    with the connection as long as such reads follow on one another, and the transport does not read meanwhile; a way
    over the loop and back for each of them would be most of what it costs.
    """

    def __init__(self, inner: asyncio.Protocol, services: Callable[[], Services]) -> None:
        self._inner = inner
        self._get_services = services
        self._transport: asyncio.Transport | None = None
        self._handed_over = False
        self._received = b""
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._socket: LentSocket | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._socket = LentSocket(transport.get_extra_info("socket").fileno())
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._socket is not None:
            self._socket.end()
        if self._task is not None:
            self._task.cancel()
        self._inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._handed_over:
            self._inner.data_received(data)
            return
        self._received = self._received + data if self._received else data
        if self._task is None:
            self._begin()

    def _begin(self) -> None:
        """Begin the request that has arrived, if it has, as a whole."""
        data = self._received
        if wanted := _parse_get(data):
            self._received = data[len(wanted.request) :]
            self._get(wanted)
        elif (match := _PUT.match(data)) and int(match[2]) <= SMALL_BLOCK:
            end = match.end() + int(match[2])
            if len(data) < end:
                return
            try:
                origins = parse_origins(match[3].decode() if match[3] else None)
            except InvalidArgument:
                self._hand_over()
                return
            new = NewBlock(BlockId(int(match[1], 16)), origins, int(match[5], 16), sync=match[4] != b"false")
            self._received = data[end:]
            self._run(_Put(new, data[match.end() : end]))
        elif not data.startswith((b"GET /blocks/", b"PUT /blocks/")) or b"\r\n\r\n" in data or len(data) > _HEAD_MAX:
            self._hand_over()  # else the head has not arrived as a whole

    def _hand_over(self) -> None:
        """The framework serves this connection from here on."""
        self._handed_over = True
        data, self._received = self._received, b""
        self._inner.data_received(data)

    # ---------------------------------------------------------------------------------------------------- GET

    def _get(self, wanted: _Get) -> None:
        services = self._get_services()
        found: list[Found] = []
        for read in wanted.reads:
            one = read_if_in_memory(services.store, read)
            if one is None:
                self._lend(services, wanted)
                return
            found.append(one)
        assert self._transport is not None
        self._transport.writelines(_answer(wanted, found))
        services.metrics.sent_bytes.inc(sum(len(one.data) for one in found))
        self._go_on()

    def _lend(self, services: Services, wanted: _Get) -> None:
        """Have a thread read and answer."""
        assert self._transport is not None and self._socket is not None
        self._transport.pause_reading()
        # What was sent before has to leave first, and what has arrived is to be begun here.
        alone = not self._transport.get_write_buffer_size() and not self._received
        services.pool.submit(self._serve, services, self._socket if alone else None, wanted)

    def _serve(self, services: Services, socket: LentSocket | None, wanted: _Get) -> None:
        """In a thread: this read, and those that follow while they come without a pause. `socket`: where the answers
        may go by themselves."""
        stays = socket is not None and services.stays.acquire(blocking=False)
        following: _Get | None = wanted
        rest, received, failed = b"", b"", False
        try:
            while following is not None:
                wanted, following, received = following, None, b""
                found = read_ranges(services.store, wanted.reads)
                rest = b"".join(_answer(wanted, found))
                services.metrics.sent_bytes.inc(sum(len(one.data) for one in found))
                if socket is not None:
                    rest = rest[socket.send(rest) :]
                if stays and socket is not None and not rest:
                    received = socket.receive(_STAY_S)
                    if (following := _parse_get(received)) and len(following.request) != len(received):
                        following = None
        except (DfsError, BadBlock):  # not here, bad, or asked for in vain: that is for the framework to say
            received, failed = wanted.request, True
        except Exception:
            log.exception(event("short request failed unexpectedly"))
            received, failed = wanted.request, True
        finally:
            if stays:
                services.stays.release()
            self._loop.call_soon_threadsafe(self._take_back, rest, received, failed)

    def _take_back(self, rest: bytes, received: bytes, failed: bool) -> None:
        """The thread is done: `rest` of its answer is to be sent, `received` to be begun, by the framework where it
        `failed`."""
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._received = received + self._received
        self._transport.resume_reading()
        if rest:
            self._transport.write(rest)
        if failed:
            self._hand_over()
        else:
            self._go_on()

    # ---------------------------------------------------------------------------------------------------- PUT

    async def _put(self, put: _Put) -> None:
        try:
            stored = await self._store(put)
        except DfsError as error:
            self._send(error.http_status, messages.encode_error(error), error.code)
            return
        body = BlockBody(format_block(stored.block), stored.size, f"{stored.crc32c:08x}")
        self._send(201 if stored.created else 200, messages.encode(body))

    async def _store(self, put: _Put) -> Stored:
        """What need not be on the disk yet is written right here: into the page cache, which takes less time than to
        wake a thread."""
        services = self._get_services()
        if put.new.sync or services.store.unsynced.is_failing:
            new = replace(put.new, sync=True)
            return await receive_block(services, new, _once(put.body), len(put.body))
        with services.store.writing(put.new.block) as intent:
            (stored,) = write_batch(services.store, [(replace(put.new, intent=intent), put.body)])
        if isinstance(stored, DfsError):
            raise stored
        services.metrics.received_blocks.inc()
        services.metrics.received_bytes.inc(stored.size)
        return stored

    def _send(self, status: int, body: bytes, code: str = "") -> None:
        assert self._transport is not None
        error = f"{routes.HEADER_ERROR}: {code}\r\n" if code else ""
        head = (
            f"HTTP/1.1 {status} \r\n{error}Content-Length: {len(body)}\r\nContent-Type: application/json\r\n\r\n"
        )
        self._transport.write(head.encode() + body)

    # ------------------------------------------------------------------------------------------- one by one

    def _run(self, put: _Put) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work(put))

    async def _work(self, put: _Put) -> None:
        try:
            await self._put(put)
        except Exception:
            log.exception(event("short request failed unexpectedly"))
            self._send(500, messages.encode_error(InputOutput("unforeseen; the server's log tells more")))
        finally:
            self._task = None
        self._go_on()

    def _go_on(self) -> None:
        if self._received and not self._handed_over:
            self._begin()


def _parse_get(data: bytes) -> _Get | None:
    """The request for short reads that `data` begins with, if it does."""
    if match := _GET.match(data):
        read = BlockRange(BlockId(int(match[1], 16)), int(match[2]), int(match[3]) + 1)
        return _Get([read], match[0], many=False) if 0 < read.size <= SMALL_ANSWER else None
    if match := _GET_MANY.match(data):
        try:
            return _Get(parse_reads(match[1]), match[0], many=True)
        except InvalidArgument:  # the framework says what is wrong with it
            return None
    return None


def _answer(wanted: _Get, found: Sequence[Found]) -> list[bytes]:
    if wanted.many:
        body = encode_answer([one.data for one in found])
        return [f"HTTP/1.1 200 OK\r\nContent-Length: {sum(map(len, body))}\r\n{_TYPE}\r\n".encode(), *body]
    (read,), ((data, size, checksum),) = wanted.reads, found
    head = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {read.start}-{read.start + len(data) - 1}/{size}"
        f'\r\nETag: "{checksum:08x}"\r\nContent-Length: {len(data)}\r\n{_TYPE}\r\n'
    )
    return [head.encode(), data]


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body
