"""Extents: which bytes of a file lie where. Pure functions on the extents of one chunk, and the one
function that stores a chunk and keeps the blocks' accounts true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from operator import attrgetter

from dfslib.model import BLOCK_SIZE, BlockId, BlockRef, Extent, InodeId
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.records import BlockRecord


def cut(extents: list[Extent], start: int, end: int) -> list[Extent]:
    """The extents without the bytes [start, end): a hole there."""
    kept: list[Extent] = []
    for extent in extents:
        if extent.end <= start or extent.offset >= end:
            kept.append(extent)
            continue
        if extent.offset < start:
            kept.append(Extent(extent.offset, start - extent.offset, extent.block, extent.block_offset))
        if extent.end > end:
            skipped = end - extent.offset
            kept.append(Extent(end, extent.end - end, extent.block, extent.block_offset + skipped))
    return kept


def lay(extents: list[Extent], new: Extent) -> list[Extent]:
    """The extents with `new` over whatever was in its place."""
    return sorted([*cut(extents, new.offset, new.end), new], key=attrgetter("offset"))


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
    before, after = bytes_by_block(old), bytes_by_block(new)
    for block in before.keys() | after.keys():
        if before[block] == 0:
            txn.put(keys.reference(block, ino, index), b"")
        elif after[block] == 0:
            txn.delete(keys.reference(block, ino, index))
        if change := after[block] - before[block]:
            _add_live(txn, block, change)
    records.put_chunk(txn, ino, index, new)
    return after.total() - before.total()


def bytes_by_block(extents: list[Extent]) -> Counter[BlockId]:
    """How much of each block these extents use."""
    total: Counter[BlockId] = Counter()
    for extent in extents:
        total[extent.block] += extent.length
    return total


def _add_live(txn: Txn, block: BlockId, change: int) -> None:
    record = records.find_block(txn, block)
    if record is None:
        raise AssertionError(f"block {block:x} is used and not entered")
    live = record.live + change
    if live < 0:
        raise AssertionError(f"block {block:x} would have {live} live bytes")
    records.put_block(txn, block, BlockRecord(record.size, record.crc32c, live, record.nodes))
    if live == 0:
        records.put_state(txn, keys.garbage(block))
    elif record.live == 0:
        txn.delete(keys.garbage(block))
    if is_sparse(record.size, live) != is_sparse(record.size, record.live):
        if is_sparse(record.size, live):
            records.put_state(txn, keys.sparse(block))
        else:
            txn.delete(keys.sparse(block))


def is_sparse(size: int, live: int) -> bool:
    """Whether a block is worth rewriting: something of it is used, and less than half."""
    return 0 < live * 2 < size
