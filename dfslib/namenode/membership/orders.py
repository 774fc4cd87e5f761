"""What datanodes are to do, kept in memory until their next heartbeat. Losing an order does no harm: what
it was for shows in the datanode's next report."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from dfslib.model import BlockId, NodeId

_ORDERS_MAX = 1000
"""Blocks in one answer to a heartbeat."""
_PENDING_MAX = 200_000
"""Blocks kept for a datanode that does not come; past that its next report has to tell."""


class Orders:
    """Blocks to delete, by datanode."""

    def __init__(self) -> None:
        self._delete: dict[NodeId, set[BlockId]] = {}
        self._waiting: dict[NodeId, asyncio.Event] = {}

    def delete(self, blocks: Iterable[BlockId], nodes: Iterable[NodeId]) -> None:
        ids = list(blocks)
        for node in nodes:
            pending = self._delete.setdefault(node, set())
            if len(pending) < _PENDING_MAX:
                pending.update(ids)
            if node in self._waiting:
                self._waiting[node].set()

    def forget(self, node: NodeId) -> None:
        """Drop a datanode's orders: it joins anew, and its report tells what there is to do."""
        self._delete.pop(node, None)

    async def wait(self, node: NodeId, timeout_s: float) -> list[BlockId]:
        """The next orders for a datanode, at the latest after `timeout_s`."""
        if not self._delete.get(node):
            ready = self._waiting[node] = asyncio.Event()
            try:
                async with asyncio.timeout(timeout_s):
                    await ready.wait()
            except TimeoutError:
                return []
            finally:
                if self._waiting.get(node) is ready:
                    del self._waiting[node]
        pending = self._delete.pop(node, set())
        taken = [pending.pop() for _ in range(min(len(pending), _ORDERS_MAX))]
        if pending:
            self._delete[node] = pending
        return taken
