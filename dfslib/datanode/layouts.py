"""Where a file's bytes lie, as the namenode tells it, remembered for as long as it cannot change.

A version of a file never changes its content, but the namenode may move its bytes to other blocks; then the
old ones disappear, and whoever misses one asks anew with `refetch`.
"""

from __future__ import annotations

import bisect
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from dfslib.datanode.namenode_client import NamenodeClient
from dfslib.errors import InputOutput
from dfslib.model import BLOCK_SIZE, BlockId, InodeId
from dfslib.wire.messages import LayoutBody

_EXTENTS_MAX: Final = 500_000
"""Extents remembered, about 100 MB: a hundred thousand small files, or 30 TiB in whole blocks."""


@dataclass(frozen=True)
class Piece:
    """The bytes [start, end) of a block, or `end - start` zeros where there is no block."""

    block: BlockId | None
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


class Layout:
    """One version of one file."""

    def __init__(self, body: LayoutBody) -> None:
        """Raises InputOutput where the extents cannot be right; serving them could serve wrong bytes."""
        self.body: Final = body
        self._ends: Final = [extent.end for extent in body.extents]
        end = 0
        for extent in body.extents:
            if extent.offset < end or extent.length <= 0 or not 0 <= extent.block_offset <= BLOCK_SIZE - extent.length:
                raise InputOutput(f"the namenode's layout of inode {body.ino} makes no sense at {extent}")
            end = extent.end

    def pieces(self, start: int, end: int) -> list[Piece]:
        """What makes up the bytes [start, end), in order; gaps and all past the last extent are zeros."""
        found: list[Piece] = []
        position = start
        for index in range(bisect.bisect_right(self._ends, start), len(self._ends)):
            extent = self.body.extents[index]
            if extent.offset >= end:
                break
            if extent.offset > position:
                found.append(Piece(None, 0, extent.offset - position))
                position = extent.offset
            stop = min(end, extent.end)
            shift = extent.block_offset - extent.offset
            found.append(Piece(extent.block, position + shift, stop + shift))
            position = stop
        if position < end:
            found.append(Piece(None, 0, end - position))
        return found


class Layouts:
    """A bounded cache, least recently used out first. Used from the event loop alone."""

    def __init__(self, namenode: NamenodeClient, extents_max: int = _EXTENTS_MAX) -> None:
        self._namenode = namenode
        self._kept: OrderedDict[tuple[int, int], Layout] = OrderedDict()
        self._extents_max = extents_max
        self._extents = 0

    async def get(self, ino: InodeId, version: int) -> Layout:
        """The layout of this version, or of the current one where the file has been replaced since.

        Raises NotFound where the file is gone, Unavailable where the namenode does not answer.
        """
        layout = self._kept.get((ino, version))
        if layout is not None:
            self._kept.move_to_end((ino, version))
            return layout
        layout = Layout(await self._namenode.layout(ino))
        if layout.body.version == version:
            self._keep((ino, version), layout)
        return layout

    async def refetch(self, ino: InodeId, version: int) -> Layout:
        """As `get`, without believing what is remembered."""
        self._drop((ino, version))
        return await self.get(ino, version)

    def _keep(self, key: tuple[int, int], layout: Layout) -> None:
        self._drop(key)
        self._kept[key] = layout
        self._extents += _weight(layout)
        while self._extents > self._extents_max and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[int, int]) -> None:
        layout = self._kept.pop(key, None)
        if layout is not None:
            self._extents -= _weight(layout)


def _weight(layout: Layout) -> int:
    """In extents; an entry without any costs memory too."""
    return len(layout.body.extents) + 4
