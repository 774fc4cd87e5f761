"""Receiving bodies and having them stored: small blocks together, all else while it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from dfslib.datanode.commit_queue import SMALL_BYTES
from dfslib.datanode.services import Services
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock, Stored
from dfslib.errors import FileTooLarge, InvalidArgument
from dfslib.model import BLOCK_SIZE
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


async def receive_block(
    services: Services, new: NewBlock, pieces: AsyncIterator[bytes], length: int | None
) -> Stored:
    """Store what arrives as a block; `length` where it was announced. Nothing is stored where this raises.

    Raises FileTooLarge past BLOCK_SIZE, what BlockWriter raises, and what `pieces` raises.
    """
    check_length(length)
    with services.store.writing(new.block) as intent:
        known = replace(new, intent=intent)
        if length is not None and length <= SMALL_BYTES:
            stored = await services.commits.store(known, b"".join([piece async for piece in pieces]))
        else:
            stored = await receive(services, pieces, lambda: BlockWriter(services.store, known, length or 0))
    services.metrics.received_blocks.inc()
    services.metrics.received_bytes.inc(stored.size)
    return stored


def check_length(length: int | None) -> None:
    """Raises FileTooLarge."""
    if length is not None and length > BLOCK_SIZE:
        raise FileTooLarge(f"a block has at most {BLOCK_SIZE} bytes, and {length} were announced")


async def receive(services: Services, pieces: AsyncIterator[bytes], make_writer: Callable[[], Writer[T]]) -> T:
    """Store what arrives with a writer, which is made in a thread. Nothing is stored where this raises.

    Raises what `pieces` and what the writer raises. The next megabyte is received while a thread writes the
    last one; so at most three are in memory.
    """
    loop = asyncio.get_running_loop()
    writer = await _made(services, make_writer)
    writing: asyncio.Future[None] | None = None
    try:
        gathered: list[bytes] = []
        gathered_bytes = 0
        async for piece in pieces:
            gathered.append(piece)
            gathered_bytes += len(piece)
            if gathered_bytes >= _GATHER_BYTES:
                if writing is not None:
                    await writing
                writing = loop.run_in_executor(services.pool, writer.write, gathered)
                gathered, gathered_bytes = [], 0
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
