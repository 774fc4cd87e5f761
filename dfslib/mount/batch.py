"""Writes to one file that go to the namenode in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from dfslib.errors import DfsError
from dfslib.model import BlockId, Extent
from dfslib.mount.filesystem import Buffer
from dfslib.mount.overlay import Overlay
from dfslib.wire.session import INLINE_MAX, Piece


class Attempts:
    """To append, in sessions that were lost: of none is it known whether it was done. `lost`: how the namenode knows
    them. `since_s`, `since_ns`: when the first one was made, on both clocks, 0 before; `version`: of the file then."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.since_s = 0.0
        self.since_ns = 0
        self.version = 0

    def begin(self, now_s: float, now_ns: int, version: int) -> None:
        if not self.since_ns:
            self.since_s, self.since_ns, self.version = now_s, now_ns, version

    def age_s(self, now_s: float, now_ns: int) -> float:
        """By the clock that has gone further: one may have stood still with its host, or been set."""
        return max(now_s - self.since_s, (now_ns - self.since_ns) / 1e9)


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
        self.attempts = Attempts()
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
