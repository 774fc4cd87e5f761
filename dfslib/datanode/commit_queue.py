"""Small blocks that arrive at the same time become durable together (group commit).

One thread takes whatever waits and stores it as one batch; while it waits for the disk, the next batch
gathers. A lone block is not delayed. How a batch is stored is `store.block_writer`'s.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from dataclasses import dataclass
from typing import Final

from dfslib.datanode.store.block_store import BlockStore
from dfslib.datanode.store.block_writer import NewBlock, Stored, write_batch
from dfslib.errors import DfsError, InputOutput, Unavailable

log = logging.getLogger("dfs.store")

SMALL_BYTES: Final = 256 << 10
"""Largest block taken: 64 of them are 16 MiB, which any disk takes in well under a second."""
_BATCH_BLOCKS: Final = 64


@dataclass(frozen=True)
class _Waiting:
    new: NewBlock
    data: bytes
    done: asyncio.Future[Stored]


class CommitQueue:
    """Owned by the event loop that makes it; `close` waits for what was accepted."""

    def __init__(self, store: BlockStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="commit-queue", daemon=True)
        self._thread.start()

    async def store(self, new: NewBlock, data: bytes) -> Stored:
        """Store a small block durably. Raises as `BlockWriter` does. A caller that is cancelled has its
        intent cancelled: then the block does not appear."""
        if self._closed:
            raise Unavailable("the datanode is stopping")
        done: asyncio.Future[Stored] = self._loop.create_future()
        self._queue.put(_Waiting(new, data, done))
        return await done

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            batch = self._take()
            if not batch:
                return
            results: list[Stored | DfsError]
            try:
                results = list(write_batch(self._store, [(one.new, one.data) for one in batch]))
            except Exception as error:  # nobody may wait for ever on a thread that died
                log.exception("storing a batch of blocks failed unexpectedly")
                results = [InputOutput(f"the block could not be stored: {error!r}") for _ in batch]
            # One wake-up of the event loop for the whole batch.
            self._loop.call_soon_threadsafe(_resolve, batch, results)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while len(batch) < _BATCH_BLOCKS:
            try:
                waiting = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if waiting is None:
                if batch:
                    self._queue.put(None)  # for the next round
                break
            batch.append(waiting)
        return batch


def _resolve(batch: list[_Waiting], results: list[Stored | DfsError]) -> None:
    for waiting, result in zip(batch, results, strict=True):
        if waiting.done.done():
            continue  # cancelled: the client has gone
        if isinstance(result, Stored):
            waiting.done.set_result(result)
        else:
            waiting.done.set_exception(result)
