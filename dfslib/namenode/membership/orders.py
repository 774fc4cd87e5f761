"""What datanodes are to do, kept in memory until their next heartbeat. Losing an order does no harm: what it
was for shows in the datanode's next report, or in the next plan of repairs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from dfslib.model import BlockId, NodeId
from dfslib.wire.messages import CopyOrder

_ORDERS_MAX: Final = 1000
"""Blocks in one answer to a heartbeat."""
_PENDING_MAX: Final = 200_000
"""Blocks kept for a datanode that does not come; past that its next report has to tell."""


class Batch(NamedTuple):
    delete: list[BlockId]
    copy: list[CopyOrder]


class Orders:
    """Blocks to delete and to copy, by datanode."""

    def __init__(self) -> None:
        self._delete: dict[NodeId, set[BlockId]] = {}
        self._copy: dict[NodeId, deque[CopyOrder]] = {}
        self._waiting: dict[NodeId, asyncio.Event] = {}
        self._stopping = False

    def delete(self, blocks: Iterable[BlockId], nodes: Iterable[NodeId]) -> None:
        ids = list(blocks)
        for node in nodes:
            pending = self._delete.setdefault(node, set())
            if len(pending) < _PENDING_MAX:
                pending.update(ids)
            self._wake(node)

    def copy(self, node: NodeId, order: CopyOrder) -> None:
        """Have a datanode fetch a block. A deletion of it that still waits is taken back."""
        self._delete.get(node, set()).discard(BlockId(order.block))
        self._copy.setdefault(node, deque()).append(order)
        self._wake(node)

    def forget(self, node: NodeId) -> None:
        """Drop a datanode's orders: it joins anew, and its report tells what there is to do. Who waits for them is
        answered now, without any."""
        self._delete.pop(node, None)
        self._copy.pop(node, None)
        if (ready := self._waiting.pop(node, None)) is not None:
            ready.set()

    async def wait(self, node: NodeId, timeout_s: float) -> Batch:
        """The next orders for a datanode, at the latest after `timeout_s`; then there may be none. Who waits for the
        same datanode as one that came later gets none: they are that one's."""
        if not self._stopping and not self._delete.get(node) and not self._copy.get(node):
            ready = self._waiting[node] = asyncio.Event()
            try:
                async with asyncio.timeout(timeout_s):
                    await ready.wait()
            except TimeoutError:
                pass
            finally:
                own = self._waiting.get(node) is ready
                if own:
                    del self._waiting[node]
            if not own:
                return Batch([], [])
        return self._take(node)

    def stop_waiting(self) -> None:
        """The namenode is stopping: who waits is answered now, and nobody waits any more."""
        self._stopping = True
        for ready in self._waiting.values():
            ready.set()

    def _take(self, node: NodeId) -> Batch:
        pending = self._delete.get(node, set())
        delete = [pending.pop() for _ in range(min(len(pending), _ORDERS_MAX))]
        waiting = self._copy.get(node, deque())
        copy = [waiting.popleft() for _ in range(min(len(waiting), _ORDERS_MAX))]
        return Batch(delete, copy)

    def _wake(self, node: NodeId) -> None:
        if node in self._waiting:
            self._waiting[node].set()
