"""Receiving bodies and having them stored: small blocks together, all else while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol, TypeVar

from aiohttp import web

from dfslib.datanode.commit_queue import SMALL_BYTES
from dfslib.datanode.services import Services
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock, Stored
from dfslib.errors import FileTooLarge, IncompleteBody, InvalidArgument
from dfslib.model import BLOCK_SIZE
from dfslib.transfer.body import next_piece
from dfslib.wire import routes

_GATHER_BYTES: Final = 1 << 20
"""Written in one call of a thread: a switch costs 50 µs, 1 MiB of checksums and copying 300."""


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Writer(Protocol[T_co]):
    """A file that is being stored; its calls wait for the disk. `abort` may come at any time, from any
    thread, and does nothing once `finish` has returned."""

    def write(self, pieces: list[bytes]) -> None: ...

    def finish(self) -> T_co: ...

    def abort(self) -> None: ...


async def receive_block(request: web.Request, services: Services, new: NewBlock) -> Stored:
    """Store the request's body durably as a block. Nothing is stored where this raises.

    Raises IncompleteBody where the body breaks off or stalls, FileTooLarge past BLOCK_SIZE, and what
    BlockWriter raises.
    """
    length = request.content_length
    if length is not None and length > BLOCK_SIZE:
        raise FileTooLarge(f"a block has at most {BLOCK_SIZE} bytes, and {length} were announced")
    if length is not None and length <= SMALL_BYTES:
        stored = await services.commits.store(new, await _read_small(request, services, length))
    else:
        stored = await receive(request, services, lambda: BlockWriter(services.store, new, length or 0))
    services.metrics.received_blocks.inc()
    services.metrics.received_bytes.inc(stored.size)
    return stored


async def _read_small(request: web.Request, services: Services, length: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while size < length:
        piece = await next_piece(request, services.body_timeout_s)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    _check_length(size, length)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def receive(request: web.Request, services: Services, make_writer: Callable[[], Writer[T]]) -> T:
    """Store the request's body with a writer, which is made in a thread. Nothing is stored where this raises.

    Raises IncompleteBody, and what the writer raises. The next megabyte is received while a thread writes the
    last one; so at most three are in memory.
    """
    loop = asyncio.get_running_loop()
    length = request.content_length
    writer = await _made(services, make_writer)
    writing: asyncio.Future[None] | None = None
    try:
        gathered: list[bytes] = []
        gathered_bytes = size = 0
        while piece := await next_piece(request, services.body_timeout_s):
            gathered.append(piece)
            gathered_bytes += len(piece)
            if gathered_bytes >= _GATHER_BYTES:
                if writing is not None:
                    await writing
                writing = loop.run_in_executor(services.pool, writer.write, gathered)
                size += gathered_bytes
                gathered, gathered_bytes = [], 0
        size += gathered_bytes
        if length is not None:
            _check_length(size, length)
        if writing is not None:
            await writing
            writing = None
        return await loop.run_in_executor(services.pool, _write_last, writer, gathered)
    finally:
        # After success this does nothing. The writer lets a thread that is still writing finish first, so
        # it cannot write to a file descriptor that is someone else's by then.
        services.pool.submit(writer.abort)
        if writing is not None:
            writing.add_done_callback(_forget_outcome)


async def _made(services: Services, make_writer: Callable[[], Writer[T]]) -> Writer[T]:
    making = services.pool.submit(make_writer)
    try:
        return await asyncio.wrap_future(making)
    except asyncio.CancelledError:
        # The thread may be making it now, and nobody else will know of its file.
        making.add_done_callback(_abort_made)
        raise


def _abort_made(making: Future[Writer[T]]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().abort()


def _write_last(writer: Writer[T], pieces: list[bytes]) -> T:
    writer.write(pieces)
    return writer.finish()


def _forget_outcome(writing: asyncio.Future[None]) -> None:
    """The request has failed already; what became of its last write is no news."""
    if not writing.cancelled():
        writing.exception()


def _check_length(size: int, length: int) -> None:
    if size != length:
        raise IncompleteBody(f"the body has {size} bytes instead of {length}")


def parse_crc32c(text: str | None) -> int | None:
    """The header X-DFS-CRC32C; None where it is missing. Raises InvalidArgument."""
    if text is None:
        return None
    try:
        if len(text) != 8:
            raise ValueError
        return int(text, 16)
    except ValueError:
        raise InvalidArgument(f"{routes.HEADER_CRC32C}: {text!r} is not 8 hexadecimal digits") from None
