"""Pieces of blocks in memory, bounded, the least recently used ones dropped first.

A block never changes, so what is here is never stale. Pieces are fetched once however many want them at a time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from dfslib.model import BlockId, NodeId

UNIT: Final = 64 << 10
"""Bytes of a block that are fetched at least, aligned: what a datanode has to read and check for any byte of them."""

Fetch = Callable[[BlockId, int, int, Sequence[NodeId]], Coroutine[Any, Any, bytearray]]


class Piece:
    """Bytes [start, start + length) of a block, `data` when they are here; fewer where the block ends before."""

    __slots__ = ("data", "length", "ready", "start")

    def __init__(self, start: int, length: int, ready: asyncio.Task[bytearray]) -> None:
        self.start = start
        self.length = length
        self.ready = ready
        self.data: memoryview | None = None


class BlockCache:
    def __init__(self, limit_bytes: int, fetch: Fetch) -> None:
        self._limit = limit_bytes
        self._fetch = fetch
        self._pieces: OrderedDict[tuple[BlockId, int], Piece] = OrderedDict()
        """By block and first unit; a piece of several units is found by each of them in `_units`."""
        self._units: dict[tuple[BlockId, int], Piece] = {}
        self._used = 0

    @property
    def used_bytes(self) -> int:
        return self._used

    def find(self, block: BlockId, position: int) -> Piece | None:
        """The piece that has this byte of the block, arrived or on its way."""
        piece = self._units.get((block, position // UNIT))
        if piece is None or not piece.start <= position < piece.start + piece.length:
            return None
        self._pieces.move_to_end((block, piece.start // UNIT))
        return piece

    def start(self, block: BlockId, start: int, end: int, holders: Sequence[NodeId]) -> Piece:
        """Begin to fetch the units of [start, end), up to the first of them that is here already."""
        first = start // UNIT
        last = first + 1
        while last * UNIT < end and (block, last) not in self._units:
            last += 1
        start, end = first * UNIT, last * UNIT
        task = asyncio.create_task(self._fetch(block, start, end, holders), name=f"read {block:x}")
        piece = Piece(start, end - start, task)
        old = self._units.get((block, first))
        if old is not None:
            self._remove(block, old)
        self._pieces[(block, first)] = piece
        for unit in range(first, last):
            self._units[(block, unit)] = piece
        self._used += piece.length
        task.add_done_callback(lambda done: self._arrived(block, piece, done))
        self._shrink()
        return piece

    def _arrived(self, block: BlockId, piece: Piece, task: asyncio.Task[bytearray]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._remove(block, piece)  # whoever waits gets the error; the next one asks again
        else:
            piece.data = memoryview(task.result())

    def _shrink(self) -> None:
        while self._used > self._limit and len(self._pieces) > 1:
            (block, _), piece = next(iter(self._pieces.items()))
            self._remove(block, piece)

    def _remove(self, block: BlockId, piece: Piece) -> None:
        first = piece.start // UNIT
        if self._pieces.get((block, first)) is not piece:
            return
        del self._pieces[(block, first)]
        self._used -= piece.length
        for unit in range(first, -(-(piece.start + piece.length) // UNIT)):
            if self._units.get((block, unit)) is piece:
                del self._units[(block, unit)]

    async def close(self) -> None:
        tasks = [piece.ready for piece in self._pieces.values() if not piece.ready.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pieces.clear()
        self._units.clear()
        self._used = 0
