"""Writing of one open file: collected in memory, sent in large blocks, committed in the order it was written.

    current   what is being written to
    queue     sealed batches: on their way to the datanodes, two at a time, and committed one after the other

What is in either is seen by reads of this mount. A batch is dropped when the namenode has answered its commit. What
fails for a reason that may pass is tried again for as long as it takes, and whoever waits for it (close, fsync) does
so up to a time limit. What can never succeed (no space, file too large) is dropped, and everybody who has the file
open is told at the next write, fsync or close.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from dfslib.errors import (
    BlockGone,
    ChecksumMismatch,
    DfsError,
    FileTooLarge,
    InputOutput,
    Unavailable,
)
from dfslib.model import FILE_SIZE_MAX, BlockId, BlockRef, Extent, NodeId, parse_block
from dfslib.mount.batch import Batch
from dfslib.mount.budget import Budget
from dfslib.mount.datanodes import Datanodes
from dfslib.mount.file import File
from dfslib.mount.filesystem import Buffer
from dfslib.mount.session import Session
from dfslib.runtime.logs import event
from dfslib.wire import session as wire

log = logging.getLogger("dfs.writer")

_SEND_FROM: Final = 4 << 20
"""A batch of this size is sent as soon as nothing else of the file is on its way."""
_BATCH_MAX: Final = 32 << 20
"""One block. Larger ones would take more memory per file that is written, until they are committed."""
_PIECES_MAX: Final = 8192
"""Scattered writes in one batch; their extents fit into one frame."""
_SLICE: Final = 8 << 20
_UPLOADS: Final = 2
_RETRY_FIRST_S: Final = 0.1
_RETRY_MOST_S: Final = 5.0
_SYNC_PATIENCE: Final = 4
"""Time limits that the datanodes may take to sync all that they have in memory."""
_RETRIES_UNFORESEEN: Final = 5
"""For errors of which nobody knows whether they pass."""


class Outlets(NamedTuple):
    """What all writers of a mount share. `committed` and `lost` are told after the fact; `moved`: what was appended
    lies elsewhere than was believed."""

    session: Session
    datanodes: Datanodes
    budget: Budget
    timeout_s: float
    monotonic: Callable[[], float]
    committed: Callable[[File, wire.Attributes], None]
    content_is_off: Callable[[File], None]


class _Stored(NamedTuple):
    """A batch's bytes on datanodes."""

    extents: list[Extent]
    ref: BlockRef


class Writer:
    def __init__(self, file: File, outlets: Outlets) -> None:
        self._file = file
        self._out = outlets
        self._current: Batch | None = None
        self._queue: deque[Batch] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._last_error: DfsError | None = None

    @property
    def size(self) -> int:
        """Of the file, with what was written here."""
        return max([self._file.attr.size, *(batch.overlay.end for batch in self._batches())])

    @property
    def mtime_ns(self) -> int:
        """When the last byte was written that is not committed; 0 without any."""
        return max((batch.mtime_ns for batch in self._batches()), default=0)

    @property
    def kills_privileges(self) -> bool:
        """Whether what is not committed was written by somebody at whose writes setuid and setgid go."""
        return any(batch.kill_privileges for batch in self._batches())

    @property
    def idle(self) -> bool:
        return self._current is None and not self._queue

    @property
    def appends_elsewhere(self) -> bool:
        """Whether others have changed the file since, so that what was appended here, and is not committed, goes
        elsewhere than was believed."""
        end = self._file.attr.size
        for batch in self._batches():
            if batch.append and batch.base != end:
                return True
            end = max(end, batch.overlay.end)
        return False

    def find(self, start: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """What was written of [start, end) and is not committed, in order."""
        gaps = [(start, end)]
        found: list[tuple[int, memoryview]] = []
        for batch in reversed(list(self._batches())):
            left: list[tuple[int, int]] = []
            for low, high in gaps:
                for offset, data in batch.overlay.find(low, high):
                    if low < offset:
                        left.append((low, offset))
                    found.append((offset, data))
                    low = offset + len(data)
                if low < high:
                    left.append((low, high))
            gaps = left
        found.sort(key=lambda part: part[0])
        return iter(found)

    def _batches(self) -> Iterator[Batch]:
        yield from self._queue
        if self._current is not None:
            yield self._current

    # ------------------------------------------------------------------------------------------------ writing

    async def write(self, offset: int, data: Buffer, now_ns: int, *, append: bool, kill_privileges: bool) -> None:
        """Take bytes; with `append` they go to the end, wherever it is when they are committed.

        Raises FileTooLarge, and Unavailable where the buffer stays full; then nothing of a write of up to 8 MiB
        is taken.
        """
        view = memoryview(data)
        for start in range(0, len(view), _SLICE):
            part = view[start : start + _SLICE] if len(view) > _SLICE else data
            await self._out.budget.take(len(part))
            if (self.size if append else offset + start) + len(part) > FILE_SIZE_MAX:
                self._out.budget.give(len(part))
                raise FileTooLarge
            self._take(offset + start, part, now_ns, append=append, kill_privileges=kill_privileges)

    def _take(self, offset: int, data: Buffer, now_ns: int, *, append: bool, kill_privileges: bool) -> None:
        if self._current is not None and self._current.append != append:
            self.seal()
        batch = self._current
        if batch is None:
            batch = self._current = Batch(append=append, base=self.size, born_s=self._out.monotonic())
        before = batch.size_bytes
        position = self.size if append else offset
        batch.overlay.write(position, data)
        if position != offset:
            self._out.content_is_off(self._file)
        self._out.budget.give(len(data) - (batch.size_bytes - before))  # written over: counted once
        batch.mtime_ns = now_ns
        batch.kill_privileges |= kill_privileges
        self._send_if_full()

    def _send_if_full(self) -> None:
        batch = self._current
        if batch is None:
            return
        full = batch.size_bytes >= _BATCH_MAX or len(batch.overlay) >= _PIECES_MAX
        if full or (batch.size_bytes >= _SEND_FROM and len(self._queue) < _UPLOADS):
            self.seal()

    def seal(self) -> None:
        """Begin to send what was written up to now."""
        batch = self._current
        if batch is None:
            return
        self._current = None
        before = self._queue[-1].committed if self._queue else None
        self._queue.append(batch)
        task = asyncio.create_task(self._deliver(batch, before), name=f"write {self._file.ino}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def seal_if_older(self, born_before_s: float) -> None:
        if self._current is not None and self._current.born_s < born_before_s:
            self.seal()

    async def discard(self) -> None:
        """The file is about to be cut to nothing: forget what was not sent, wait for the rest."""
        if self._current is not None:
            self._out.budget.give(self._current.size_bytes)
            self._current = None
        await self.flush()

    async def flush(self, *, sync: bool = False) -> None:
        """Return when all that was written up to now is committed or lost. `sync`: and on the datanodes' disks.

        Raises Unavailable where that takes longer than the time limit; it is tried further then.
        """
        if sync and self._current is not None and not self._queue and not self._file.unsynced:
            self._current.sync = True
        self.seal()
        waiting = [batch.committed for batch in self._queue]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._out.timeout_s)
            if late:
                reason = self._last_error or Unavailable(f"nothing was answered for {self._out.timeout_s:g} s")
                raise Unavailable(f"not written yet: {reason.message}")
        if sync and self._file.unsynced:
            self._file.unsynced = False
            try:
                # disks may take longer than a namenode may be away
                async with asyncio.timeout(_SYNC_PATIENCE * self._out.timeout_s):
                    await self._out.session.call(wire.Sync(self._file.ino), patient=True)
            except TimeoutError:
                self._file.unsynced = True
                raise Unavailable("the datanodes' disks do not answer") from None
            except BaseException:
                self._file.unsynced = True
                raise

    async def close(self) -> None:
        """Give up what is not written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ----------------------------------------------------------------------------------------------- sending

    async def _deliver(self, batch: Batch, before: asyncio.Future[None] | None) -> None:
        try:
            try:
                answer, extents, ref = await self._send_until_taken(batch, before)
            finally:
                self._queue.remove(batch)
                self._out.budget.give(batch.size_bytes)
            self._committed(batch, answer, extents, ref)
        except DfsError as error:
            lost = event("writes lost", inode=self._file.ino, bytes=batch.size_bytes, reason=error)
            log.error(lost)  # noqa: TRY400
            self._file.fail(error)
            self._out.content_is_off(self._file)
        finally:
            if not batch.committed.done():
                batch.committed.set_result(None)
        self._send_if_full()

    async def _send_until_taken(
        self, batch: Batch, before: asyncio.Future[None] | None
    ) -> tuple[wire.Attributes, list[Extent], BlockRef | None]:
        """Raises what cannot pass."""
        delay_s, unforeseen = _RETRY_FIRST_S, 0
        while True:
            stored: _Stored | None = None
            try:
                async with self._uploads:
                    stored = None if batch.fits_inline else await self._store(batch)
                if before is not None:
                    await asyncio.wait([before])
                return await self._commit(batch, stored)
            except BlockGone as error:
                self._last_error = error
                continue
            except DfsError as error:
                if stored is not None and not isinstance(error, Unavailable):
                    await self._abandon(stored.ref.block)
                if not error.retryable and not isinstance(error, InputOutput | ChecksumMismatch):
                    raise
                unforeseen += not error.retryable
                if unforeseen > _RETRIES_UNFORESEEN:
                    raise
                self._last_error = error
                log.warning(event("write delayed", inode=self._file.ino, reason=str(error), again_in_s=delay_s))
            await asyncio.sleep(delay_s)
            delay_s = min(_RETRY_MOST_S, delay_s * 2)

    async def _store(self, batch: Batch) -> _Stored:
        """Bring the bytes to the datanodes, as one block. Raises what may pass, and NoSpace."""
        answer = await self._out.session.call(wire.Allocate(self._file.ino))
        assert isinstance(answer, wire.Grants)
        grant = answer.grants[0]
        try:
            done = await self._out.datanodes.put(grant, batch.buffers(), sync=batch.sync)
        except DfsError:
            await self._abandon(grant.block)
            raise
        nodes = tuple(NodeId(node) for node in done.nodes)
        ref = BlockRef(parse_block(done.block), done.size, int(done.crc32c, 16), nodes)
        if ref.block != grant.block or ref.size != batch.size_bytes:
            raise InputOutput(f"a datanode stored {ref.size} bytes of {batch.size_bytes}")
        return _Stored(list(batch.extents(grant.block)), ref)

    async def _abandon(self, block: BlockId) -> None:
        """What the namenode does not hear of it abandons itself, when the session ends."""
        with contextlib.suppress(DfsError):
            await self._out.session.call(wire.Abandon([block]))

    async def _commit(
        self, batch: Batch, stored: _Stored | None
    ) -> tuple[wire.Attributes, list[Extent], BlockRef | None]:
        """Make the bytes part of the file. It waits for a namenode that is away, so that it is known at the end
        whether it was done; only a session that is lost meanwhile leaves that open."""
        ino, append = self._file.ino, batch.append
        operation: wire.Operation
        if stored is None:
            operation = wire.Write(
                ino, batch.inline_pieces(), append, batch.sync, batch.mtime_ns, batch.kill_privileges
            )
        else:
            operation = wire.Commit(ino, stored.extents, [stored.ref], append, batch.mtime_ns, batch.kill_privileges)
        try:
            answer = await self._out.session.call(operation, patient=True)
        except Unavailable:
            if append:
                raise InputOutput("the session was lost, and whether bytes were appended is not known") from None
            raise
        assert isinstance(answer, wire.Attributes)
        return answer, stored.extents if stored else [], stored.ref if stored else None

    def _committed(
        self, batch: Batch, answer: wire.Attributes, extents: list[Extent], ref: BlockRef | None
    ) -> None:
        file = self._file
        if not batch.sync and not answer.synced:
            file.unsynced = True
        self._out.committed(file, answer)
        if ref is None:
            file.layouts.forget()
        else:
            shift = answer.offset if batch.append else 0
            placed = [Extent(e.offset + shift, e.length, e.block, e.block_offset) for e in extents]
            file.layouts.committed(placed, {ref.block: ref.nodes})
        if batch.append and answer.offset != batch.base:
            self._move_appends(answer.attr.size)
            self._out.content_is_off(file)

    def _move_appends(self, end: int) -> None:
        """Others have appended as well: what is appended after this goes behind that."""
        for batch in self._batches():
            if batch.append:
                batch.move_to(end)
            end = max(end, batch.overlay.end)
