"""The collector: frees trees that were cut off, and deletes blocks that no file uses any more.

A block's entry goes in a transaction first, its files on the datanodes after that: a crash in between
leaves files that the next report of their datanode shows to be unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from dfslib.model import BlockId, NodeId
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.files.once import expire
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.unlink import reap
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
        now_ns: Callable[[], int],
        delay_s: float,
    ) -> None:
        """`delay_s`: how long an unused block is kept, for readers that were sent to it."""
        self._engine = engine
        self._orders = orders
        self._in_flight = in_flight
        self._now_ns = now_ns
        self._delay_ns = int(delay_s * 1e9)

    async def run_once(self) -> int:
        """Collect all that can be; how many blocks were given up."""
        while await self._engine.transact(lambda txn: reap(txn, _BATCH, self._now_ns())):
            pass
        while await self._engine.transact(lambda txn: expire(txn, _BATCH, self._now_ns())):
            pass
        total = 0
        while True:
            collected = await self._engine.transact(self._collect)
            for block, nodes in collected:
                self._orders.delete([block], nodes)
            total += len(collected)
            if len(collected) < _BATCH:
                break
        if total:
            log.info(event("garbage collected", blocks=total))
        return total

    async def discard(self, blocks: Iterable[BlockId], nodes: Iterable[NodeId]) -> None:
        """Delete blocks whose write was given up, unless a transaction entered them after all.

        The question is itself a transaction, queued behind the one whose outcome nobody saw.
        """
        asked = list(blocks)
        unused = await self._engine.transact(
            lambda txn: [block for block in asked if records.find_block(txn, block) is None]
        )
        self._orders.delete(unused, nodes)

    def _collect(self, txn: Txn) -> list[Garbage]:
        """Take blocks that have been garbage for the delay out of the metadata."""
        limit_ns = self._now_ns() - self._delay_ns
        collected: list[Garbage] = []
        for number, since_ns in records.scan_state(txn, keys.GARBAGE):
            block = BlockId(number)
            if since_ns > limit_ns or block in self._in_flight:
                continue
            record = records.find_block(txn, block)
            if record is not None and record.live == 0:
                records.delete_block(txn, block)
                collected.append(Garbage(block, record.nodes))
            txn.delete(keys.garbage(block))
            if len(collected) >= _BATCH:
                break
        return collected
