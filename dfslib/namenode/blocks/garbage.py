"""The collector: frees trees that were cut off, and deletes blocks that no file uses any more.

A block's entry goes in a transaction first, its files on the datanodes after that: a crash in between
leaves files that the next report of their datanode shows to be unknown.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from dfslib.model import BlockId, InodeId, NodeId
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.files.once import KEEP_S, expire
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.unlink import free_orphans, reap
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.garbage")

_BATCH: Final = 1000
"""Inodes or blocks in one transaction: some milliseconds of the writer's time."""


class Garbage(NamedTuple):
    block: BlockId
    nodes: tuple[NodeId, ...]


class GarbageCollector:
    def __init__(
        self,
        engine: MetadataEngine,
        orders: Orders,
        in_flight: InFlight,
        clocks: Clocks,
        delay_s: float,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        """`delay_s`: how long an unused block is kept, for readers that were sent to it. `is_held`: no block is to
        be deleted now."""
        self._engine = engine
        self._orders = orders
        self._in_flight = in_flight
        self._clocks = clocks
        self._delay_s = delay_s
        self.is_open: Container[InodeId] = ()
        """The files that programs have open, which are kept even without a name."""
        self._is_held = is_held
        self._seen_s: dict[BlockId, float] = {}
        """When this process first saw that a block is garbage: its age does not depend on the wall clock."""

    async def run_once(self) -> int:
        """Collect all that can be; how many blocks were given up."""
        while await self._engine.transact(lambda txn: reap(txn, _BATCH, self._clocks.wall_ns())):
            pass
        while await self._engine.transact(lambda txn: free_orphans(txn, _BATCH, self.is_open)):
            pass
        horizon = self._clocks.stamps.older_than(KEEP_S)
        while await self._engine.transact(lambda txn: expire(txn, _BATCH, horizon)):
            pass
        if self._is_held():
            return 0
        ripe = await asyncio.to_thread(self._engine.read, self._look)
        total = 0
        for start in range(0, len(ripe), _BATCH):
            batch = ripe[start : start + _BATCH]
            collected = await self._engine.transact(partial(self._collect, batch))
            for block, nodes in collected:
                self._orders.delete([block], nodes)
            total += len(collected)
        if total:
            log.info(event("garbage collected", blocks=total))
        return total

    async def discard(self, blocks: Iterable[BlockId], nodes: Iterable[NodeId]) -> None:
        """Delete blocks whose write was given up, unless a transaction entered them after all.

        The question is itself a transaction, queued behind the one whose outcome nobody saw. Until it is answered the
        blocks are in flight: no report that comes meanwhile may have one deleted that is about to be entered.
        """
        asked = list(blocks)
        unused: list[BlockId] = []
        try:
            unused = await self._engine.transact(
                lambda txn: [block for block in asked if records.find_block(txn, block) is None]
            )
        finally:  # where it is not answered, the datanodes' next reports tell
            for block in asked:
                self._in_flight.settled(block, used=block not in unused)
        self._orders.delete(unused, nodes)

    def _look(self, txn: ReadTxn) -> list[BlockId]:
        """The blocks that have been garbage for the delay."""
        now_s = self._clocks.monotonic_s()
        blocks = (BlockId(number) for number, _ in records.scan_state(txn, keys.GARBAGE))
        self._seen_s = {block: self._seen_s.get(block, now_s) for block in blocks}
        return [block for block, seen_s in self._seen_s.items() if now_s - seen_s >= self._delay_s]

    def _collect(self, blocks: Sequence[BlockId], txn: Txn) -> list[Garbage]:
        """Take those of the blocks that are garbage still out of the metadata."""
        collected: list[Garbage] = []
        for block in blocks:
            record = records.find_block(txn, block)
            if record is not None and record.live == 0 and block not in self._in_flight:
                records.delete_block(txn, block)
                collected.append(Garbage(block, record.nodes))
        return collected
