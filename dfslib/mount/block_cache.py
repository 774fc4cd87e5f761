"""Pieces of blocks in memory, bounded, the least recently used ones dropped first.

A block never changes, so what is here is never stale. Pieces are fetched once however many want them at a time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from dfslib.model import BlockId, NodeId

PAGE: Final = 4 << 10
"""What a datanode has to read and check for any byte of it, and the kernel to have for it."""
UNIT: Final = 64 << 10
"""What is fetched at least, aligned, where more is wanted than was asked for: small files lie together."""
_PIECE_COST: Final = 1 << 10
"""Memory that a piece takes beside its bytes."""

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
    """Long pieces are found by each of their units, short ones by each of their pages: either way there are few."""

    def __init__(self, limit_bytes: int, fetch: Fetch) -> None:
        self._limit = limit_bytes
        self._fetch = fetch
        self._pieces: OrderedDict[Piece, BlockId] = OrderedDict()
        self._units: dict[tuple[BlockId, int], Piece] = {}
        self._pages: dict[tuple[BlockId, int], Piece] = {}
        self._used = 0

    @property
    def used_bytes(self) -> int:
        return self._used

    def find(self, block: BlockId, position: int) -> Piece | None:
        """The piece that has this byte of the block, arrived or on its way."""
        piece = self._units.get((block, position // UNIT)) or self._pages.get((block, position // PAGE))
        if piece is not None:
            self._pieces.move_to_end(piece)
        return piece

    def start(self, block: BlockId, start: int, end: int, holders: Sequence[NodeId], grain: int) -> Piece:
        """Begin to fetch [start, end), widened to multiples of `grain` (PAGE or UNIT), up to the first of these that
        is here already. `start` is not."""
        first = start // grain
        last = first + 1
        while last * grain < end and not self._has(block, last * grain, grain):
            last += 1
        start, end = first * grain, last * grain
        task = asyncio.create_task(self._fetch(block, start, end, holders), name=f"read {block:x}")
        piece = Piece(start, end - start, task)
        self._pieces[piece] = block
        table, size = self._table(piece)
        for number in range(start // size, end // size):
            table[(block, number)] = piece
        self._used += piece.length + _PIECE_COST
        task.add_done_callback(lambda done: self._arrived(piece, done))
        self._shrink()
        return piece

    def _has(self, block: BlockId, position: int, grain: int) -> bool:
        """Pages of a unit that are here do not keep it from being fetched as a whole."""
        return (block, position // UNIT) in self._units or (grain == PAGE and (block, position // PAGE) in self._pages)

    def _table(self, piece: Piece) -> tuple[dict[tuple[BlockId, int], Piece], int]:
        """Where it is found, and by what."""
        if piece.start % UNIT or piece.length % UNIT:
            return self._pages, PAGE
        return self._units, UNIT

    def _arrived(self, piece: Piece, task: asyncio.Task[bytearray]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._remove(piece)  # whoever waits gets the error; the next one asks again
        else:
            piece.data = memoryview(task.result())

    def _shrink(self) -> None:
        while self._used > self._limit and len(self._pieces) > 1:
            self._remove(next(iter(self._pieces)))

    def _remove(self, piece: Piece) -> None:
        block = self._pieces.pop(piece, None)
        if block is None:
            return
        self._used -= piece.length + _PIECE_COST
        table, size = self._table(piece)
        for number in range(piece.start // size, (piece.start + piece.length) // size):
            if table.get((block, number)) is piece:
                del table[(block, number)]

    async def close(self) -> None:
        tasks = [piece.ready for piece in self._pieces if not piece.ready.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pieces.clear()
        self._units.clear()
        self._pages.clear()
        self._used = 0
