"""Rewrites blocks of which less than half is used: their live bytes move together into a new block.

Readers notice nothing: the bytes are the same, the old block becomes garbage in the transaction that
points the files at the new one. What was overwritten while its bytes were being copied stays as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dfslib.errors import DfsError
from dfslib.model import BLOCK_SIZE, BlockId, BlockRef, Extent, InodeId, NodeId, Origin
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import extents, keys, records
from dfslib.runtime.logs import event
from dfslib.transfer.block_source import read_block
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.compaction")

_BATCH_BYTES: Final = BLOCK_SIZE // 2
"""Live bytes in one new block; a sparse block has fewer. Also what a round holds in memory."""
_ORIGINS_MAX: Final = 1000
"""Pieces in one new block: what its origins' header has room for."""


class Piece(NamedTuple):
    """Bytes of an old block that are in use, and for whom."""

    block: BlockId
    start: int
    end: int
    ino: InodeId
    offset: int


class Sparse(NamedTuple):
    """Blocks to be rewritten into one."""

    pieces: list[Piece]
    nodes: dict[BlockId, tuple[NodeId, ...]]
    copies: int


class Moved(NamedTuple):
    """Where bytes [start, end) of an old block lie in the new one."""

    start: int
    end: int
    to: int


class Compaction:
    def __init__(
        self,
        engine: MetadataEngine,
        writer: BlockWriter,
        urls: Callable[[Sequence[NodeId]], list[str]],
    ) -> None:
        """`urls` gives those of the datanodes that can be asked."""
        self._engine = engine
        self._writer = writer
        self._urls = urls
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    async def run_once(self) -> int:
        """Rewrite what fits into one new block; how many old ones that took."""
        sparse = self._engine.read(self._choose)
        if not sparse.pieces:
            return 0
        try:
            data, moved = await self._read(sparse)
            ref = await self._writer.write(data, _origins(sparse.pieces), sparse.copies)
        except DfsError as error:
            log.warning(event("compaction put off", error=error))
            return 0
        used = False
        try:
            await self._engine.transact(lambda txn: self._repoint(txn, ref, moved))
            used = True
        finally:
            self._writer.release(ref.block, ref.nodes, used=used)
        log.info(event("blocks compacted", old=len(sparse.nodes), new=f"{ref.block:x}", bytes=ref.size))
        return len(sparse.nodes)

    def _choose(self, txn: ReadTxn) -> Sparse:
        """Sparse blocks of files with the same number of copies, as many as fit."""
        chosen: list[Piece] = []
        nodes: dict[BlockId, tuple[NodeId, ...]] = {}
        copies: int | None = None
        room = _BATCH_BYTES
        for number, _ in records.scan_state(txn, keys.SPARSE):
            block = BlockId(number)
            record = records.find_block(txn, block)
            pieces = _pieces(txn, block)
            if record is None or not pieces:
                continue
            wanted = self._writer.copies(records.get_attr(txn, pieces[0].ino).replication)
            copies = wanted if copies is None else copies
            live = sum(piece.end - piece.start for piece in pieces)
            if wanted != copies or live > room or len(chosen) + len(pieces) > _ORIGINS_MAX:
                if not chosen:
                    copies = None
                    continue
                break
            chosen += pieces
            nodes[block] = record.nodes
            room -= live
        return Sparse(chosen, nodes, copies or 0)

    async def _read(self, sparse: Sparse) -> tuple[bytes, dict[BlockId, list[Moved]]]:
        assert self._session is not None
        data = bytearray()
        moved: dict[BlockId, list[Moved]] = {}
        for piece in sparse.pieces:
            moved.setdefault(piece.block, []).append(Moved(piece.start, piece.end, len(data)))
            urls = self._urls(sparse.nodes[piece.block])
            async for chunk in read_block(self._session, urls, piece.block, piece.start, piece.end):
                data += chunk
        return bytes(data), moved

    def _repoint(self, txn: Txn, ref: BlockRef, moved: dict[BlockId, list[Moved]]) -> None:
        """Where all of it was overwritten meanwhile, the new block is garbage as it was entered, and is collected."""
        extents.add_block(txn, ref)
        for block, ranges in moved.items():
            for ino, index in list(records.scan_references(txn, block)):
                old = records.get_chunk(txn, ino, index)
                new = [_moved(extent, block, ranges, ref.block) for extent in old]
                extents.store_chunk(txn, ino, index, old, new)


def _origins(pieces: Sequence[Piece]) -> list[Origin]:
    """For whom the bytes of the new block are, in which the pieces lie one behind the other."""
    origins: list[Origin] = []
    at = 0
    for piece in pieces:
        origins.append(Origin(b"", piece.ino, piece.offset, piece.end - piece.start, at))
        at += piece.end - piece.start
    return origins


def _pieces(txn: ReadTxn, block: BlockId) -> list[Piece]:
    """The parts of a block that extents use, each byte once, however many files share it."""
    used = [
        Piece(block, extent.block_offset, extent.block_offset + extent.length, ino, extent.offset)
        for ino, index in records.scan_references(txn, block)
        for extent in records.get_chunk(txn, ino, index)
        if extent.block == block
    ]
    merged: list[Piece] = []
    for piece in sorted(used, key=lambda piece: piece.start):
        if merged and piece.start <= merged[-1].end:
            merged[-1] = merged[-1]._replace(end=max(merged[-1].end, piece.end))
        else:
            merged.append(piece)
    return merged


def _moved(extent: Extent, block: BlockId, ranges: list[Moved], new: BlockId) -> Extent:
    """The extent on the new block, if all of it was copied."""
    if extent.block != block:
        return extent
    start = extent.block_offset
    for copied in ranges:
        if copied.start <= start and start + extent.length <= copied.end:
            return Extent(extent.offset, extent.length, new, copied.to + start - copied.start)
    return extent
