"""Rewrites blocks of which less than half is used: their live bytes move together into a new block."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from dfslib.errors import DfsError
from dfslib.model import BLOCK_SIZE, BlockId, NodeId
from dfslib.namenode.blocks.moving import PIECES_MAX, Mover, Piece, pieces_of
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn
from dfslib.namenode.namespace import keys, records
from dfslib.runtime.logs import event
from dfslib.transfer.block_source import read_block
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.compaction")

_BATCH_BYTES: Final = BLOCK_SIZE // 2
"""Live bytes in one new block; a sparse block has fewer. Also what a round holds in memory."""


class _Sparse(NamedTuple):
    """Blocks to be rewritten into one."""

    pieces: list[Piece]
    nodes: dict[BlockId, tuple[NodeId, ...]]
    copies: int


class Compaction:
    def __init__(
        self,
        engine: MetadataEngine,
        writer: BlockWriter,
        mover: Mover,
        urls: Callable[[Sequence[NodeId]], list[str]],
    ) -> None:
        """`urls` gives those of the datanodes that can be asked."""
        self._engine = engine
        self._writer = writer
        self._mover = mover
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
            ref = await self._mover.move(sparse.pieces, await self._read(sparse), sparse.copies)
        except DfsError as error:
            log.warning(event("compaction put off", error=error))
            return 0
        log.info(event("blocks compacted", old=len(sparse.nodes), new=f"{ref.block:x}", bytes=ref.size))
        return len(sparse.nodes)

    def _choose(self, txn: ReadTxn) -> _Sparse:
        """Sparse blocks of files with the same number of copies, as many as fit."""
        chosen: list[Piece] = []
        nodes: dict[BlockId, tuple[NodeId, ...]] = {}
        copies: int | None = None
        room = _BATCH_BYTES
        for number, _ in records.scan_state(txn, keys.SPARSE):
            block = BlockId(number)
            record = records.find_block(txn, block)
            pieces = pieces_of(txn, [block])[block]
            if record is None or not pieces:
                continue
            wanted = self._writer.copies(records.get_attr(txn, pieces[0].ino).replication)
            copies = wanted if copies is None else copies
            live = sum(piece.size for piece in pieces)
            if wanted != copies or live > room or len(chosen) + len(pieces) > PIECES_MAX:
                if not chosen:
                    copies = None
                    continue
                break
            chosen += pieces
            nodes[block] = record.nodes
            room -= live
        return _Sparse(chosen, nodes, copies or 0)

    async def _read(self, sparse: _Sparse) -> bytes:
        assert self._session is not None
        data = bytearray()
        for piece in sparse.pieces:
            urls = self._urls(sparse.nodes[piece.block])
            async for chunk in read_block(self._session, urls, piece.block, piece.start, piece.end):
                data += chunk
        return bytes(data)
