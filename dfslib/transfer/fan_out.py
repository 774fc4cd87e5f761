"""Fan-out: one block to several datanodes at once, through bounded queues.

A datanode that fails, or makes no progress for the stall timeout, is dropped and the rest go on; how many
are enough is the caller's decision. A replica counts only if the datanode answered, after its fsync, with
the very size and checksum that were sent. Retries nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import aiohttp
from crc32c import crc32c

from dfslib.errors import ChecksumMismatch, DfsError, Unavailable
from dfslib.model import BlockId, NodeId, Origin
from dfslib.runtime.logs import event
from dfslib.transfer.block_client import BlockClient
from dfslib.wire import routes
from dfslib.wire.messages import BlockBody, decode, decode_error
from dfslib.wire.origins import encode_origins

log = logging.getLogger("dfs.fanout")

_QUEUE_BYTES: Final = 8 << 20
"""How far the fastest datanode may be ahead of the slowest; the queues share their buffers."""
_SYNC_PATIENCE: Final = 6
"""Stall timeouts that even the first datanode may take from the last byte to its answer: a full block's
fsync on a busy disk."""
_LEAST_GRACE_S: Final = 1.0
_GRACE_FACTOR: Final = 4
"""Datanodes share disks, networks and processors with others: a few times slower than the fastest is normal."""


class Target(NamedTuple):
    node: NodeId
    url: str


class Patience(NamedTuple):
    """How long a write waits for datanodes. Once `enough` have the block, the others have little time left:
    a few times what the first one took, and at least a second."""

    stall_timeout_s: float
    enough: int


class Delivery(NamedTuple):
    """A block and where it is to go. `home`: the target that readers are sent to first, which keeps it cached.
    `sync`: on disk before it counts; else in the datanode's memory, until it is told to sync."""

    block: BlockId
    targets: Sequence[Target]
    origins: Sequence[Origin]
    patience: Patience
    home: NodeId | None = None
    sync: bool = True


class Here(NamedTuple):
    """The target that is this very process: takes the bytes as they come."""

    node: NodeId
    store: Callable[[AsyncIterator[bytes]], Awaitable[BlockBody]]


class FanOutResult(NamedTuple):
    """What became of one block. `failures` names each datanode that did not store it, and why; `slow` those
    among them that nothing else was wrong with."""

    block: BlockId
    size: int
    crc32c: int
    stored: tuple[NodeId, ...]
    failures: dict[NodeId, DfsError]
    slow: tuple[NodeId, ...]


async def fan_out(client: BlockClient, delivery: Delivery, data: bytes) -> FanOutResult:
    """Send a block that is in memory to all targets. Never raises for a target's failure."""
    size, checksum = len(data), crc32c(data)
    headers = _headers(delivery) | {routes.HEADER_CRC32C: f"{checksum:08x}"}
    tasks = {
        target.node: asyncio.create_task(client.put(target.url, delivery.block, [data], headers))
        for target in delivery.targets
    }
    return await _gather(delivery.block, size, checksum, tasks, delivery.patience)


class FanOut:
    """A block that is sent while it arrives: `send` its bytes in order, then `finish`, or `abort`."""

    def __init__(
        self, session: aiohttp.ClientSession, delivery: Delivery, size: int | None, here: Here | None = None
    ) -> None:
        """`size` is the block's length where it is known beforehand."""
        self.block = delivery.block
        self.size = 0
        self.crc32c = 0
        """Of what was sent so far."""
        self._patience = delivery.patience
        self._stalled: list[NodeId] = []
        self._queues = {target.node: _Queue() for target in delivery.targets}
        headers = _headers(delivery)
        if size is not None:
            headers["Content-Length"] = str(size)
        self._tasks: dict[NodeId, asyncio.Task[BlockBody]] = {}
        for target in delivery.targets:
            own = headers | {routes.HEADER_CACHED: "true"} if target.node == delivery.home else headers
            local = here.store if here is not None and here.node == target.node else None
            self._tasks[target.node] = asyncio.create_task(self._run(session, target, own, local))

    async def _run(
        self,
        session: aiohttp.ClientSession,
        target: Target,
        headers: dict[str, str],
        local: Callable[[AsyncIterator[bytes]], Awaitable[BlockBody]] | None,
    ) -> BlockBody:
        queue = self._queues[target.node]
        try:
            if local is not None:
                return await local(queue.drain())
            return await _put(session, target, self.block, queue.drain(), headers)
        finally:
            queue.abandon()

    async def send(self, chunk: bytes) -> None:
        """Queue the next bytes for every datanode still in; returns when the slowest has room for them.

        Raises Unavailable once none is left.
        """
        self.crc32c = crc32c(chunk, self.crc32c)
        self.size += len(chunk)
        for node, queue in self._queues.items():
            try:
                if not queue.offer(chunk):
                    async with asyncio.timeout(self._patience.stall_timeout_s):
                        await queue.put(chunk)
            except TimeoutError:
                log.warning(event("datanode stalled, dropped from the write", node=node, block=f"{self.block:x}"))
                self._stalled.append(node)
                self._tasks[node].cancel()
        if all(task.done() for task in self._tasks.values()):
            raise Unavailable("every datanode failed during the write")

    async def finish(self) -> FanOutResult:
        """Wait until all datanodes have the block on disk or have failed."""
        for queue in self._queues.values():
            queue.close()
        result = await _gather(self.block, self.size, self.crc32c, self._tasks, self._patience)
        return result._replace(slow=(*result.slow, *self._stalled))

    async def abort(self) -> None:
        """Break off; the datanodes keep nothing of a body that was cut."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


class _Queue:
    """Chunks for one datanode, bounded in bytes; abandoned when its request has ended."""

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._closed = False
        self._abandoned = False
        self._filled = asyncio.Event()
        self._room = asyncio.Event()

    def offer(self, chunk: bytes) -> bool:
        """Queue a chunk if there is room; an abandoned queue swallows it."""
        if self._abandoned:
            return True
        if self._bytes >= _QUEUE_BYTES:
            return False
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        self._filled.set()
        return True

    async def put(self, chunk: bytes) -> None:
        while not self.offer(chunk):
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        self._closed = True
        self._filled.set()

    def abandon(self) -> None:
        self._abandoned = True
        self._chunks.clear()
        self._bytes = 0
        self._room.set()

    async def drain(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._bytes -= len(chunk)
                if self._bytes < _QUEUE_BYTES:
                    self._room.set()
                yield chunk
            if self._closed:
                return
            self._filled.clear()
            await self._filled.wait()


def _headers(delivery: Delivery) -> dict[str, str]:
    headers = {routes.HEADER_ORIGIN: encode_origins(delivery.origins)}
    if not delivery.sync:
        headers[routes.HEADER_SYNC] = "false"
    return headers


async def _put(
    session: aiohttp.ClientSession,
    target: Target,
    block: BlockId,
    data: AsyncIterator[bytes],
    headers: dict[str, str],
) -> BlockBody:
    """Store a block on one datanode. Raises DfsError."""
    try:
        async with session.put(target.url.rstrip("/") + routes.block(block), data=data, headers=headers) as answer:
            body = await answer.read()
            if answer.status not in (200, 201):
                raise decode_error(body, answer.status)
            return decode(body, BlockBody)
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{target.url}: {error or type(error).__name__}") from error


async def _gather(
    block: BlockId,
    size: int,
    checksum: int,
    tasks: dict[NodeId, asyncio.Task[BlockBody]],
    patience: Patience,
) -> FanOutResult:
    loop = asyncio.get_running_loop()
    started = loop.time()
    deadline = started + patience.stall_timeout_s * _SYNC_PATIENCE
    waiting = set(tasks.values())
    stored_count = 0
    try:
        while waiting and deadline > loop.time():
            done, waiting = await asyncio.wait(
                waiting, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED
            )
            stored_count += sum(not task.cancelled() and task.exception() is None for task in done)
            if stored_count:
                deadline = min(deadline, loop.time() + patience.stall_timeout_s)
            if stored_count >= patience.enough:
                took_s = loop.time() - started
                deadline = min(deadline, loop.time() + max(_LEAST_GRACE_S, _GRACE_FACTOR * took_s))
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    slow = tuple(node for node, task in tasks.items() if task in waiting)
    stored: list[NodeId] = []
    failures: dict[NodeId, DfsError] = {}
    for node, task in tasks.items():
        failure = _failure(task, size, checksum)
        if failure is None:
            stored.append(node)
        else:
            failures[node] = failure
            log.warning(event("datanode failed a write", node=node, block=f"{block:x}", error=failure))
    return FanOutResult(block, size, checksum, tuple(stored), failures, slow)


def _failure(task: asyncio.Task[BlockBody], size: int, checksum: int) -> DfsError | None:
    """Why a datanode's answer does not count, or None if it does."""
    if task.cancelled():
        return Unavailable("no progress within the stall timeout")
    error = task.exception()
    if isinstance(error, DfsError):
        return error
    if error is not None:
        raise error
    answer = task.result()
    if answer.size != size or answer.crc32c != f"{checksum:08x}":
        return ChecksumMismatch(f"stored {answer.size} bytes, crc32c {answer.crc32c}; sent {size}, {checksum:08x}")
    return None
