"""Which blocks a volume is to have, in memory: so that one that has vanished is missed.

Twelve bytes a block, in an array for each directory: ten million blocks are no burden, and an insertion moves
some kilobytes. Not for several threads at once: its owner has a lock.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable
from typing import Final

from dfslib.model import BlockId

DIRECTORIES: Final = 256
_DIRECTORY_SHIFT: Final = 30
"""Ids are milliseconds << 20 (runtime.ids), so bits 30-37 name the second: blocks written together share a
directory, and so one fsync of it."""
_SIZE_MAX: Final = (1 << 32) - 1
"""A block's file is much smaller; a stranger's with a block's name may be anything."""


def directory_number(block: BlockId) -> int:
    return block >> _DIRECTORY_SHIFT & DIRECTORIES - 1


class BlockIndex:
    """Ids of blocks and the sizes of their files; `count` and `used_bytes` add them up."""

    def __init__(self) -> None:
        self._ids: Final = [array("Q") for _ in range(DIRECTORIES)]
        self._sizes: Final = [array("I") for _ in range(DIRECTORIES)]
        self.count = 0
        self.used_bytes = 0

    def fill(self, number: int, found: Iterable[tuple[BlockId, int]]) -> None:
        """Enter all of one directory, which had nothing yet: blocks and the bytes of their files."""
        ordered = sorted(found)
        self._ids[number] = array("Q", (block for block, _ in ordered))
        self._sizes[number] = array("I", (min(size, _SIZE_MAX) for _, size in ordered))
        self.count += len(ordered)
        self.used_bytes += sum(self._sizes[number])

    def add(self, block: BlockId, size: int) -> bool:
        """Enter a block with the bytes of its file. False where it is there already, with whatever size."""
        number = directory_number(block)
        ids = self._ids[number]
        at = bisect.bisect_left(ids, block)
        if at < len(ids) and ids[at] == block:
            return False
        ids.insert(at, block)
        self._sizes[number].insert(at, min(size, _SIZE_MAX))
        self.count += 1
        self.used_bytes += self._sizes[number][at]
        return True

    def remove(self, block: BlockId) -> bool:
        """False where it is not there."""
        number = directory_number(block)
        ids = self._ids[number]
        at = bisect.bisect_left(ids, block)
        if at == len(ids) or ids[at] != block:
            return False
        ids.pop(at)
        self.count -= 1
        self.used_bytes -= self._sizes[number].pop(at)
        return True

    def __contains__(self, block: BlockId) -> bool:
        ids = self._ids[directory_number(block)]
        at = bisect.bisect_left(ids, block)
        return at < len(ids) and ids[at] == block

    def in_directory(self, number: int) -> list[BlockId]:
        """Sorted."""
        return [BlockId(block) for block in self._ids[number]]
