"""Pieces of blocks in memory, bounded, the least recently used ones dropped first.

A block never changes, so what is here is never stale. Pieces are fetched once however many want them at a time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from dfslib.errors import InputOutput
from dfslib.model import BlockId, NodeId

PAGE: Final = 4 << 10
"""What a datanode has to read and check for any byte of it, and the kernel to have for it."""
UNIT: Final = 64 << 10
"""What is fetched at least, aligned, where more is wanted than was asked for: small files lie together."""
_PIECE_COST: Final = 1 << 10
"""Memory that a piece takes beside its bytes."""

class Fetching(Protocol):
    async def cancel(self) -> None:
        """What `Fetch` was given to call is not called any more."""


Fetch = Callable[[BlockId, int, int, Sequence[NodeId], Callable[[bytearray | Exception], None]], Fetching]
"""Begin to fetch bytes of a block; what is given as the last is called with them, or with what went wrong, later."""


class Piece:
    """Bytes [start, start + length) of a block, `data` when they are here; fewer where the block ends before.
    `error` where they could not be had."""

    __slots__ = ("_waiters", "data", "error", "fetching", "length", "start")

    def __init__(self, start: int, length: int) -> None:
        self.start = start
        self.length = length
        self.fetching: Fetching | None = None
        self.data: memoryview | None = None
        self.error: Exception | None = None
        self._waiters: list[Callable[[], None]] = []

    def settle(self, found: bytearray | Exception) -> None:
        if isinstance(found, Exception):
            self.error = found
        else:
            self.data = memoryview(found)
        self.fetching = None
        waiters, self._waiters = self._waiters, []
        for tell in waiters:
            tell()

    def when_settled(self, tell: Callable[[], None]) -> None:
        """It is not yet; `tell` is called when there is `data` or `error`."""
        self._waiters.append(tell)

    async def arrival(self) -> None:
        """Wait until there is `data` or `error`. Whoever gives up waiting leaves it to the others who want it."""
        if self.data is None and self.error is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.when_settled(partial(_wake, waiter))
            await waiter

    def part(self, start: int, end: int) -> memoryview:
        """Bytes [start, end) of the block, which have arrived. Raises InputOutput where it ends before."""
        assert self.data is not None
        data = self.data[start - self.start : end - self.start]
        if len(data) != end - start:
            raise InputOutput("a block is shorter than its extents")
        return data


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


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

    def limit(self, limit_bytes: int) -> None:
        """Hold so much from now on."""
        self._limit = limit_bytes
        self._shrink()

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
        piece = Piece(start, end - start)
        piece.fetching = self._fetch(block, start, end, holders, partial(self._arrived, piece))
        self._pieces[piece] = block
        table, size = self._table(piece)
        for number in range(start // size, end // size):
            table[(block, number)] = piece
        self._used += piece.length + _PIECE_COST
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

    def _arrived(self, piece: Piece, found: bytearray | Exception) -> None:
        if isinstance(found, Exception):
            self._remove(piece)  # whoever waits gets the error; the next one asks again
        piece.settle(found)

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
        for piece in list(self._pieces):
            if piece.fetching is not None:
                await piece.fetching.cancel()
                piece.settle(InputOutput("the mount is ending"))
        self._pieces.clear()
        self._units.clear()
        self._pages.clear()
        self._used = 0
