"""Copies of blocks that the namenode orders: fetched from peers, checked, kept; few at a time.

An order may come twice, and for a block that is here already: then the block is checked and that is all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeVar

from dfslib.datanode.pacing import Pace
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock
from dfslib.datanode.store.volume_sync import VolumeSync
from dfslib.errors import DfsError, NotFound
from dfslib.model import BlockId, format_block
from dfslib.runtime.logs import event
from dfslib.transfer.block_source import describe_block, read_block
from dfslib.transfer.peer_session import PeerSession
from dfslib.wire.messages import CopyOrder

log = logging.getLogger("dfs.replication")
T = TypeVar("T")

_AT_ONCE: Final = 4
"""Copies under way: some wait for their fsyncs while others receive."""
_GATHER_BYTES: Final = 1 << 20


class Outcomes(NamedTuple):
    """What became of orders since the namenode was last told; each block with the number of its outcome."""

    copied: Mapping[BlockId, int]
    failed: Mapping[BlockId, int]


NO_OUTCOMES: Final = Outcomes({}, {})


class Replication:
    """Owned by the event loop. Orders come in with `order`; `running` has them carried out meanwhile."""

    def __init__(
        self, store: BlockStore, sync: VolumeSync, pool: Executor, peers: PeerSession, bytes_per_s: float
    ) -> None:
        self._store = store
        self._sync = sync
        self._pace = Pace(bytes_per_s)
        self._pool = pool
        self._peers = peers
        self._orders: asyncio.Queue[CopyOrder] = asyncio.Queue()
        self._known: set[int] = set()
        self._copied: dict[BlockId, int] = {}
        self._failed: dict[BlockId, int] = {}
        self._count = 0

    def order(self, orders: Sequence[CopyOrder]) -> None:
        for order in orders:
            if order.block not in self._known:
                self._known.add(order.block)
                self._orders.put_nowait(order)

    def outcomes(self) -> Outcomes:
        return Outcomes(dict(self._copied), dict(self._failed))

    def told(self, outcomes: Outcomes) -> None:
        """The namenode has answered: it knows of these, but not of what became of another order meanwhile."""
        for untold, known in ((self._copied, outcomes.copied), (self._failed, outcomes.failed)):
            for block, number in known.items():
                if untold.get(block) == number:
                    del untold[block]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        workers = [asyncio.create_task(self._work(), name=f"replication-{n}") for n in range(_AT_ONCE)]
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            order = await self._orders.get()
            block = BlockId(order.block)
            try:
                if not await self._in_thread(self._is_here, block):
                    await self._copy(block, order.urls)
            except DfsError as error:
                self._note(self._failed, block)
                log.warning(event("copy failed", block=format_block(block), error=error))
            except Exception:
                self._note(self._failed, block)
                log.exception(event("copy failed unexpectedly", block=format_block(block)))
            else:
                self._note(self._copied, block)
            finally:
                self._known.discard(order.block)

    def _note(self, untold: dict[BlockId, int], block: BlockId) -> None:
        self._count += 1
        untold[block] = self._count

    def _is_here(self, block: BlockId) -> bool:
        """Whether the block is here, durably, and good in every byte; a bad one is put into quarantine on the way."""
        self._store.keep(block)  # a deletion that waits for readers is older than this order
        try:
            with self._store.opened(block) as opened:
                opened.check(0, opened.size)
            if not self._store.unsynced.is_synced(block):
                self._sync.sync()
        except (NotFound, BadBlock):
            return False
        return True

    async def _copy(self, block: BlockId, urls: Sequence[str]) -> None:
        described = await describe_block(self._peers, urls, block)
        with self._store.writing(block) as intent:
            new = NewBlock(block, described.origins, described.crc32c, intent=intent)
            await self._receive(new, urls, described.size)

    async def _receive(self, new: NewBlock, urls: Sequence[str], block_bytes: int) -> None:
        writer = await self._in_thread(BlockWriter, self._store, new, block_bytes)
        try:
            gathered: list[bytes] = []
            size = 0
            async for piece in read_block(self._peers, urls, new.block, 0, block_bytes):
                gathered.append(piece)
                size += len(piece)
                if size >= _GATHER_BYTES:
                    await self._in_thread(writer.write, gathered)
                    await asyncio.sleep(self._pace.delay_s(size))
                    gathered, size = [], 0
            await self._in_thread(writer.write, gathered)
            await asyncio.sleep(self._pace.delay_s(size))
            await self._in_thread(writer.finish)
        finally:
            # Does nothing after success. In the pool, because it waits for a write that is under way.
            self._pool.submit(writer.abort)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
