"""Blocks that datanodes report and restored metadata does not know: described by a datanode, then adopted.

Kept in memory until that is done; after a restart the datanodes report them again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from dfslib.errors import InputOutput
from dfslib.model import BlockId, BlockRef, NodeId, format_block
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace.lost_found import FoundBlock, adopt
from dfslib.runtime.logs import event
from dfslib.transfer.block_source import describe_block
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")

_BATCH: Final = 200


class Finder:
    def __init__(
        self, engine: MetadataEngine, urls: Callable[[Sequence[NodeId]], list[str]], wall_ns: Callable[[], int]
    ) -> None:
        """`urls` gives those of the datanodes that can be asked."""
        self._engine = engine
        self._urls = urls
        self._wall_ns = wall_ns
        self._waiting: dict[BlockId, set[NodeId]] = {}
        self._session: PeerSession | None = None

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    def found(self, blocks: Iterable[int], node: NodeId) -> None:
        for block in blocks:
            self._waiting.setdefault(BlockId(block), set()).add(node)

    async def run_once(self) -> int:
        """Make all that waits files below /lost+found; how many blocks. Those that no datanode describes now wait
        for the next round."""
        total = 0
        later: dict[BlockId, set[NodeId]] = {}
        try:
            while self._waiting:
                batch = [self._waiting.popitem() for _ in range(min(_BATCH, len(self._waiting)))]
                for block, nodes in batch:
                    later.setdefault(block, set()).update(nodes)
                described = [found for one in batch if (found := await self._describe(*one)) is not None]
                total += await self._engine.transact(partial(_adopt_all, described, self._wall_ns()))
                for found in described:
                    del later[found.ref.block]
        finally:  # also where a transaction fails: nobody tells of them a second time before they may be deleted
            for block, nodes in later.items():
                self._waiting.setdefault(block, set()).update(nodes)
        if total:
            log.warning(event("blocks that the restored metadata lacks are in /lost+found", blocks=total))
        return total

    async def _describe(self, block: BlockId, nodes: set[NodeId]) -> FoundBlock | None:
        assert self._session is not None
        holders = tuple(sorted(nodes))
        try:
            found = await describe_block(self._session, self._urls(holders), block)
        except InputOutput as error:
            log.info(event("unknown block cannot be described yet", block=format_block(block), reason=error))
            return None
        return FoundBlock(BlockRef(block, found.size, found.crc32c, holders), found.origins)


def _adopt_all(found: Sequence[FoundBlock], now_ns: int, txn: Txn) -> int:
    return sum(adopt(txn, one, now_ns) for one in found)
