"""Extents: which bytes of a file lie where. Pure functions on the extents of one chunk, and the one
function that stores a chunk and keeps the blocks' accounts true."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter

from msgspec.structs import replace

from dfslib.model import BLOCK_SIZE, BlockId, BlockRef, Extent, InodeId
from dfslib.namenode.metadata.engine import DamagedMetadata, Txn
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.records import BlockRecord

_offset = attrgetter("offset")
_end = attrgetter("end")


def cut(extents: list[Extent], start: int, end: int) -> list[Extent]:
    """The extents without the bytes [start, end): a hole there."""
    return _with(extents, start, end, [])


def lay(extents: list[Extent], new: Extent) -> list[Extent]:
    """The extents with `new` over whatever was in its place."""
    return _with(extents, new.offset, new.end, [new])


def join(extents: Sequence[Extent]) -> list[Extent]:
    """The extents, those that follow one another in the file and in their block as one."""
    joined: list[Extent] = []
    for extent in extents:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.block == extent.block
            and last.end == extent.offset
            and last.block_offset + last.length == extent.block_offset
        ):
            joined[-1] = Extent(last.offset, last.length + extent.length, last.block, last.block_offset)
        else:
            joined.append(extent)
    return joined


def by_chunk(extent: Extent) -> Iterator[tuple[int, Extent]]:
    """An extent in pieces that each lie in one chunk, with the chunk's index."""
    offset = extent.offset
    while offset < extent.end:
        index = keys.chunk_of(offset)
        end = min(extent.end, (index + 1) * BLOCK_SIZE)
        yield index, Extent(offset, end - offset, extent.block, extent.block_offset + offset - extent.offset)
        offset = end


def allocated(extents: list[Extent]) -> int:
    return sum(extent.length for extent in extents)


def add_block(txn: Txn, ref: BlockRef) -> None:
    """Enter a block that was written, before extents point at it; one that is known stays as it is.

    Until they do it is garbage.
    """
    if records.find_block(txn, ref.block) is None:
        records.put_block(txn, ref.block, BlockRecord(ref.size, ref.crc32c, 0, ref.nodes))
        records.put_state(txn, keys.garbage(ref.block))


def store_chunk(txn: Txn, ino: InodeId, index: int, old: list[Extent], new: list[Extent]) -> int:
    """Replace a chunk's extents. Keeps live bytes, references, garbage and sparse notes of all blocks true.

    Returns by how many bytes the file's allocation grew.
    """
    gone, come = _differences(old, new)
    before, after = bytes_by_block(gone), bytes_by_block(come)
    stay = {extent.block for extent in new if extent.block in before}
    were = {extent.block for extent in old if extent.block in after}
    for block in before.keys() | after.keys():
        if block in after and block not in were:
            txn.put(keys.reference(block, ino, index), b"")
        elif block in before and block not in stay:
            txn.delete(keys.reference(block, ino, index))
        if change := after[block] - before[block]:
            _add_live(txn, block, change)
    records.put_chunk(txn, ino, index, new)
    return after.total() - before.total()


def bytes_by_block(extents: Sequence[Extent]) -> Counter[BlockId]:
    """How much of each block these extents use."""
    total: Counter[BlockId] = Counter()
    for extent in extents:
        total[extent.block] += extent.length
    return total


def is_sparse(record: BlockRecord) -> bool:
    """Whether a block is worth rewriting: something of it is used, and less than half. A deferred one is going to
    be rewritten anyway."""
    return not record.deferred and 0 < record.live * 2 < record.size


def _with(extents: list[Extent], start: int, end: int, new: list[Extent]) -> list[Extent]:
    """The extents, which are sorted, with [start, end) cut out and `new` there."""
    if start >= end:
        return list(extents)
    first = bisect_right(extents, start, key=_end)
    last = bisect_left(extents, end, lo=first, key=_offset)
    before: list[Extent] = []
    after: list[Extent] = []
    if first < last and (head := extents[first]).offset < start:
        before = [Extent(head.offset, start - head.offset, head.block, head.block_offset)]
    if first < last and (tail := extents[last - 1]).end > end:
        after = [Extent(end, tail.end - end, tail.block, tail.block_offset + end - tail.offset)]
    return [*extents[:first], *before, *new, *after, *extents[last:]]


def _differences(old: list[Extent], new: list[Extent]) -> tuple[list[Extent], list[Extent]]:
    """The two lists without the very extents that begin and end both: a write changes a few of the thousands that a
    chunk may have."""
    shorter = min(len(old), len(new))
    first = next((index for index in range(shorter) if old[index] is not new[index]), shorter)
    last = 0
    while last < shorter - first and old[-1 - last] is new[-1 - last]:
        last += 1
    return old[first : len(old) - last], new[first : len(new) - last]


def _add_live(txn: Txn, block: BlockId, change: int) -> None:
    record = records.used_block(txn, block)
    changed = replace(record, live=record.live + change)
    if changed.live < 0:
        raise DamagedMetadata(f"block {block:016x} would have {changed.live} live bytes")
    records.put_block(txn, block, changed)
    if changed.live == 0:
        records.put_state(txn, keys.garbage(block))
    elif record.live == 0:
        txn.delete(keys.garbage(block))
    if is_sparse(changed) != is_sparse(record):
        if is_sparse(changed):
            records.put_state(txn, keys.sparse(block))
        else:
            txn.delete(keys.sparse(block))
