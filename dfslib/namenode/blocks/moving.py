"""Moves bytes that are in use into a new block, and points their files at it.

Readers notice nothing: the bytes are the same, what they lay in is left in the transaction that points the files at
the new block. What was overwritten while its bytes were being copied stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple, Protocol

from dfslib.model import BlockId, BlockRef, Extent, InodeId, NodeId, Origin
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import extents, records
from dfslib.namenode.namespace.deferred import drop_unused

MOVING: Final = object()
"""Who makes these transactions, for those who watch them: no file has other bytes afterwards."""
PIECES_MAX: Final = 1000
"""Pieces in one new block: what its origins' header has room for."""


class Piece(NamedTuple):
    """Bytes of an old block that are in use, and for whom."""

    block: BlockId
    start: int
    end: int
    ino: InodeId
    offset: int

    @property
    def size(self) -> int:
        return self.end - self.start


class _Moved(NamedTuple):
    """Where bytes [start, end) of an old block lie in the new one."""

    start: int
    end: int
    to: int


class Writer(Protocol):
    """Writes blocks that are in memory, as BlockWriter does."""

    def copies(self, replication: int) -> int: ...

    def check_space(self, copies: int) -> None: ...

    async def write(self, data: bytes, origins: Sequence[Origin], copies: int) -> BlockRef: ...

    def release(self, block: BlockId, nodes: Sequence[NodeId], *, used: bool) -> None: ...


class Mover:
    def __init__(self, engine: MetadataEngine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer

    async def move(self, pieces: Sequence[Piece], data: bytes, copies: int) -> BlockRef:
        """Write `data`, the bytes of the pieces one behind the other, as a new block in so many copies, and point
        the files there. Raises NotEnoughDatanodes or NoSpace; then nothing has changed."""
        ref = await self._writer.write(data, _origins(pieces), copies)
        used = False
        try:
            ranges = _ranges(pieces)
            await self._engine.transact(lambda txn: _repoint(txn, ref, ranges), MOVING)
            used = True
        finally:
            self._writer.release(ref.block, ref.nodes, used=used)
        return ref


def pieces_of(txn: ReadTxn, blocks: Iterable[BlockId]) -> dict[BlockId, list[Piece]]:
    """The parts of blocks that extents use, each byte once, however many files share it; in order."""
    wanted: dict[BlockId, list[Piece]] = {block: [] for block in blocks}
    for ino, index in _chunks(txn, wanted):
        for extent in records.get_chunk(txn, ino, index):
            if (used := wanted.get(extent.block)) is not None:
                start = extent.block_offset
                used.append(Piece(extent.block, start, start + extent.length, ino, extent.offset))
    return {block: _merged(used) for block, used in wanted.items()}


def _merged(pieces: list[Piece]) -> list[Piece]:
    merged: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if merged and piece.start <= merged[-1].end:
            merged[-1] = merged[-1]._replace(end=max(merged[-1].end, piece.end))
        else:
            merged.append(piece)
    return merged


def _chunks(txn: ReadTxn, blocks: Iterable[BlockId]) -> list[tuple[InodeId, int]]:
    """The chunks that use any of the blocks, each once."""
    return sorted({chunk for block in blocks for chunk in records.scan_references(txn, block)})


def _origins(pieces: Sequence[Piece]) -> list[Origin]:
    """For whom the bytes of the new block are, in which the pieces lie one behind the other."""
    return [Origin(b"", piece.ino, piece.offset, piece.size, at) for piece, at in _laid(pieces)]


def _ranges(pieces: Sequence[Piece]) -> dict[BlockId, list[_Moved]]:
    ranges: dict[BlockId, list[_Moved]] = {}
    for piece, at in _laid(pieces):
        ranges.setdefault(piece.block, []).append(_Moved(piece.start, piece.end, at))
    return ranges


def _laid(pieces: Sequence[Piece]) -> Iterator[tuple[Piece, int]]:
    """The pieces, each with where it begins when they lie one behind the other."""
    return zip(pieces, accumulate((piece.size for piece in pieces), initial=0), strict=False)


def _repoint(txn: Txn, ref: BlockRef, ranges: Mapping[BlockId, Sequence[_Moved]]) -> None:
    """Where all of it was overwritten meanwhile, the new block is garbage as it was entered, and is collected."""
    extents.add_block(txn, ref)
    for ino, index in _chunks(txn, ranges):
        old = records.get_chunk(txn, ino, index)
        new = [_moved(extent, ranges.get(extent.block, ()), ref.block) for extent in old]
        extents.store_chunk(txn, ino, index, old, extents.join(new))
    for block in ranges:
        drop_unused(txn, block)


def _moved(extent: Extent, ranges: Sequence[_Moved], new: BlockId) -> Extent:
    """The extent on the new block, if all of it was copied."""
    start = extent.block_offset
    for copied in ranges:
        if copied.start <= start and start + extent.length <= copied.end:
            return Extent(extent.offset, extent.length, new, copied.to + start - copied.start)
    return extent
