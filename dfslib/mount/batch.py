"""Writes to one file that go to the namenode in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from dfslib.errors import DfsError
from dfslib.model import BlockId, Extent
from dfslib.mount.filesystem import Buffer
from dfslib.mount.overlay import Overlay
from dfslib.wire.session import INLINE_MAX, Piece


class Batch:
    """`base`: with `append`, where its first byte is believed to be; the namenode decides. `born_s`: when it was
    begun, on the monotonic clock."""

    def __init__(self, *, append: bool, base: int, born_s: float) -> None:
        self.overlay = Overlay()
        self.append = append
        self.base = base if append else 0
        self.born_s = born_s
        self.mtime_ns = 0
        self.kill_privileges = False
        self.sync = False
        """Somebody waits for it to be on the datanodes' disks."""
        self.outcome: asyncio.Future[DfsError | None] = asyncio.get_running_loop().create_future()
        """None when it is committed, or what it was lost by."""

    @property
    def size_bytes(self) -> int:
        return self.overlay.size_bytes

    @property
    def fits_inline(self) -> bool:
        return self.size_bytes <= INLINE_MAX

    def move_to(self, base: int) -> None:
        """What is appended goes there."""
        self.overlay.shift(base - self.base)
        self.base = base

    def inline_pieces(self) -> list[Piece]:
        return [
            Piece(offset - self.base, b"".join(pieces)) for offset, _, pieces in self.overlay.runs()
        ]  # as bytes: at most INLINE_MAX of them

    def buffers(self) -> list[Buffer]:
        """All bytes in order, as they go into one block."""
        return [piece for _, _, pieces in self.overlay.runs() for piece in pieces]

    def extents(self, block: BlockId) -> Iterator[Extent]:
        """Where the bytes of that block belong."""
        position = 0
        for offset, length, _ in self.overlay.runs():
            yield Extent(offset - self.base, length, block, position)
            position += length
