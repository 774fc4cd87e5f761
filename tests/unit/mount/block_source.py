"""Blocks from where a mount's cache fetches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from dfslib.model import BlockId, NodeId


class Answer:
    """On its way."""

    def __init__(self, handle: asyncio.Handle) -> None:
        self._handle = handle

    async def cancel(self) -> None:
        self._handle.cancel()


class Source:
    """Gives bytes of `blocks`, as a datanode does, or `error` where there is one, and notes what it was asked for."""

    def __init__(self, blocks: Mapping[BlockId, bytes]) -> None:
        self.asked: list[tuple[BlockId, int, int]] = []
        self.error: Exception | None = None
        self._blocks = blocks

    def begin(
        self,
        block: BlockId,
        start: int,
        end: int,
        holders: Sequence[NodeId],
        done: Callable[[bytearray | Exception], None],
    ) -> Answer:
        self.asked.append((block, start, end))
        found = self.error or bytearray(self._blocks[block][start:end])
        return Answer(asyncio.get_running_loop().call_soon(done, found))
