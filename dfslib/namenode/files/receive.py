"""From a body to blocks on the datanodes: small ones are packed, large ones streamed in constant memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from dfslib.errors import FileTooLarge
from dfslib.model import BLOCK_SIZE, FILE_SIZE_MAX, BlockRef, Extent, NodeId, Origin
from dfslib.namenode.blocks.write import BlockWriter, OpenBlock
from dfslib.namenode.files.pack import SMALL_BYTES, Packer

_FINISHING: Final = 2
"""Blocks that are being fsynced while the next one arrives; bounds the memory of an upload."""


@dataclass
class Content:
    """Bytes that are durable on the datanodes and that no file has yet. Offsets count from 0.

    `used`: whoever makes them a file's says so, once that is committed. All others are given up.
    """

    size: int
    pieces: list[Extent]
    blocks: list[BlockRef]
    used: bool = False


class Receiver:
    def __init__(self, writer: BlockWriter, packer: Packer) -> None:
        self._writer = writer
        self._packer = packer

    @asynccontextmanager
    async def receive(
        self, body: AsyncIterator[bytes], size: int | None, origin: Origin, copies: int
    ) -> AsyncIterator[Content]:
        """Store a body (of `size` bytes, where that was announced); inside the context the caller commits it
        to a file. What is not `used` at its end is given up, unless the transaction went through after all.

        Raises NotEnoughDatanodes, NoSpace, FileTooLarge, and what reading the body raises.
        """
        if size is not None and size > FILE_SIZE_MAX:
            raise FileTooLarge
        self._writer.check_space(copies)
        head = bytearray()
        while len(head) <= SMALL_BYTES and (chunk := await anext(body, b"")):
            head += chunk
        if len(head) <= SMALL_BYTES:
            received = self._pack(bytes(head), origin, copies)
        else:
            received = self._stream(_chain(bytes(head), body), size, origin, copies)
        async with received as content:
            yield content

    @asynccontextmanager
    async def _pack(self, data: bytes, origin: Origin, copies: int) -> AsyncIterator[Content]:
        if not data:
            yield Content(0, [], [])
            return
        packed = await self._packer.store(data, origin, copies)
        content = Content(len(data), [Extent(0, len(data), packed.ref.block, packed.block_offset)], [packed.ref])
        try:
            yield content
        finally:
            self._writer.release(packed.ref.block, packed.ref.nodes, used=content.used)

    @asynccontextmanager
    async def _stream(
        self, body: AsyncIterator[bytes], size: int | None, origin: Origin, copies: int
    ) -> AsyncIterator[Content]:
        upload = _Upload(lambda size, origin, home: self._writer.stream(size, [origin], copies, home), size, origin)
        content: Content | None = None
        try:
            async for chunk in body:
                await upload.write(chunk)
            content = await upload.finish()
            yield content
        finally:
            await upload.close(used=content is not None and content.used)


class _Upload:
    """A long body, block after block; the last ones are fsynced while the next one arrives."""

    def __init__(
        self,
        start: Callable[[int | None, Origin, NodeId | None], OpenBlock],
        size: int | None,
        origin: Origin,
    ) -> None:
        self._start = start
        self._announced = size
        self._origin = origin
        self._received = 0
        self._open: OpenBlock | None = None
        self._finishing: deque[asyncio.Task[BlockRef]] = deque()
        self._started: list[OpenBlock] = []
        self._pieces: list[Extent] = []
        self._blocks: list[BlockRef] = []

    async def write(self, chunk: bytes) -> None:
        while chunk:
            if self._open is None:
                self._open = self._next_block()
            room = BLOCK_SIZE - self._open.size
            part, chunk = (chunk, b"") if len(chunk) <= room else (chunk[:room], chunk[room:])
            await self._open.send(part)
            self._received += len(part)
            if self._open.size == BLOCK_SIZE:
                await self._end_block()

    async def finish(self) -> Content:
        """All blocks durable, or NotEnoughDatanodes or NoSpace."""
        if self._open is not None:
            await self._end_block()
        while self._finishing:
            await self._collect()
        return Content(self._received, self._pieces, self._blocks)

    async def close(self, *, used: bool) -> None:
        """Break off what still runs, release everything, even if this is cancelled as well."""
        try:
            if self._open is not None:
                await self._open.abort()
            for task in self._finishing:
                task.cancel()
            await asyncio.gather(*self._finishing, return_exceptions=True)
        finally:
            for block in self._started:
                block.release(used=used)

    def _next_block(self) -> OpenBlock:
        size = None
        if self._announced is not None:
            size = max(0, min(BLOCK_SIZE, self._announced - self._received))
        origin = Origin(self._origin.path, self._origin.ino, self._received, size or BLOCK_SIZE)
        home = self._started[0].nodes[0] if self._started else None
        block = self._start(size, origin, home)
        self._started.append(block)
        return block

    async def _end_block(self) -> None:
        assert self._open is not None
        block, self._open = self._open, None
        self._finishing.append(asyncio.create_task(block.finish()))
        if len(self._finishing) > _FINISHING:
            await self._collect()

    async def _collect(self) -> None:
        ref = await self._finishing[0]
        self._finishing.popleft()
        offset = self._pieces[-1].end if self._pieces else 0
        self._pieces.append(Extent(offset, ref.size, ref.block))
        self._blocks.append(ref)


async def _chain(head: bytes, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for chunk in body:
        yield chunk
