"""Where the bytes of an open file lie, as far as this mount knows: extents in order, and who holds their blocks."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from dfslib.model import BLOCK_SIZE, BlockId, Extent, NodeId

Holders = Mapping[BlockId, Sequence[NodeId]]

WINDOW: Final = 4 * BLOCK_SIZE
"""Bytes of a large file whose extents are asked for at a time: of 4 KiB each, they still fit into one frame."""
_WINDOWS_MAX: Final = 64
_EXTENTS_MAX: Final = 4096
"""More are not kept up to date here, but asked for again."""
_WORK_MAX: Final = 1 << 16
"""Comparisons that bringing a layout up to date may cost; asking for it again is cheaper than more."""


class Layout:
    """Some extents of a file; what lies between them is zeros."""

    def __init__(
        self, extents: Sequence[Extent], holders: Holders, deferred: Mapping[BlockId, bytes] | None = None
    ) -> None:
        """`deferred`: blocks that the namenode has, with their bytes; b"" where it is to be asked for them."""
        self._extents = sorted(extents, key=lambda extent: extent.offset)
        self._offsets = [extent.offset for extent in self._extents]
        self._holders = dict(holders)
        self._deferred = dict(deferred or {})

    def __len__(self) -> int:
        return len(self._extents)

    def holders(self, block: BlockId) -> Sequence[NodeId]:
        return self._holders.get(block, ())

    def deferred(self, block: BlockId) -> bytes | None:
        """Its bytes, b"" where the namenode is to be asked for them; None where datanodes have them."""
        return self._deferred.get(block)

    def find(self, start: int, end: int) -> Iterator[Extent]:
        """The extents of [start, end), cut to that, in order."""
        index = max(0, bisect_right(self._offsets, start) - 1)
        while index < len(self._extents) and (extent := self._extents[index]).offset < end:
            index += 1
            low, high = max(start, extent.offset), min(end, extent.end)
            if low < high:
                yield Extent(low, high - low, extent.block, extent.block_offset + low - extent.offset)

    def with_changes(self, extents: Sequence[Extent], holders: Holders) -> Layout:
        """This layout with `extents` laid over it."""
        kept: list[Extent] = []
        for old in self._extents:
            parts = [old]
            for new in extents:
                parts = [left for part in parts for left in _without(part, new.offset, new.end)]
            kept += parts
        return Layout([*kept, *extents], {**self._holders, **holders}, self._deferred)


class Layouts:
    """What is known of one file: the layout of all of it, where it is small, or of windows of it."""

    def __init__(self) -> None:
        self._whole: Layout | None = None
        self._windows: OrderedDict[int, Layout] = OrderedDict()

    def forget(self) -> None:
        self._whole = None
        self._windows.clear()

    def learn_whole(self, layout: Layout) -> None:
        self.forget()
        self._whole = layout

    def learn_window(self, start: int, layout: Layout) -> None:
        self._windows[start] = layout
        if len(self._windows) > _WINDOWS_MAX:
            self._windows.popitem(last=False)

    def find(self, position: int) -> tuple[Layout, int] | None:
        """The layout that knows the byte at `position`, and up to where."""
        if self._whole is not None:
            return self._whole, 1 << 62
        start = window_of(position)
        if (layout := self._windows.get(start)) is None:
            return None
        self._windows.move_to_end(start)
        return layout, start + WINDOW

    def committed(self, extents: Sequence[Extent], holders: Holders) -> None:
        """These extents lie over what was there."""
        whole = self._whole
        if whole is None or len(whole) > _EXTENTS_MAX or len(whole) * len(extents) > _WORK_MAX:
            self.forget()
        else:
            self._whole = whole.with_changes(extents, holders)


def window_of(position: int) -> int:
    return position // WINDOW * WINDOW


def _without(extent: Extent, start: int, end: int) -> Iterator[Extent]:
    if end <= extent.offset or extent.end <= start:
        yield extent
        return
    if extent.offset < start:
        yield Extent(extent.offset, start - extent.offset, extent.block, extent.block_offset)
    if end < extent.end:
        yield Extent(end, extent.end - end, extent.block, extent.block_offset + end - extent.offset)
