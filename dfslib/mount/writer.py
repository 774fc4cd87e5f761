"""Writing of one open file: collected in memory, sent in large blocks, committed in the order it was written.

    current   what is being written to
    queue     sealed batches: on their way to the datanodes, and committed one after the other (delivery.py)

What is in either is seen by reads of this mount. A batch is dropped when the namenode has answered its commit. What
fails for a reason that may pass is tried again for as long as it takes, and whoever waits for it (close, fsync) does
so up to a time limit.

What can never succeed (no space, file too large) is lost, and all that was written behind it with it: what is left of
the file is a beginning of what was written, never a later part without the one before. Everybody who has the file
open is told, at the next write, fsync or close; what is written after that goes to the file as it is then.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from itertools import dropwhile
from typing import Final, NamedTuple

from dfslib.errors import DfsError, FileTooLarge, InputOutput, Unavailable
from dfslib.model import FILE_SIZE_MAX, Extent
from dfslib.mount.batch import Batch
from dfslib.mount.budget import Budget
from dfslib.mount.clock import Clock
from dfslib.mount.datanodes import Datanodes
from dfslib.mount.delivery import Delivered, Delivery, Generations
from dfslib.mount.file import File, OpenFile
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
_AHEAD: Final = 2
"""Batches on their way; behind so many, the current one is filled to the full."""
_SYNC_PATIENCE: Final = 4
"""Time limits that the datanodes may take to sync all that they have in memory."""


class Outlets(NamedTuple):
    """What all writers of a mount share. `committed` is told after the fact; `content_is_off`: the file is other than
    was believed."""

    session: Session
    datanodes: Datanodes
    budget: Budget
    timeout_s: float
    clock: Clock
    committed: Callable[[File, wire.Attributes], None]
    content_is_off: Callable[[File], None]
    locks: Generations


class Writer:
    def __init__(self, file: File, outlets: Outlets) -> None:
        self.file = file
        self._out = outlets
        self._delivery = Delivery(file, outlets.locks, outlets.clock, outlets.session, outlets.datanodes)
        self._current: Batch | None = None
        self._queue: deque[Batch] = deque()
        self._tasks: dict[Batch, asyncio.Task[None]] = {}

    @property
    def size(self) -> int:
        """Of the file, with what was written here."""
        return max([self.file.attr.size, *(batch.overlay.end for batch in self._batches())])

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
        end = self.file.attr.size
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

    async def write(
        self, handle: OpenFile | None, offset: int, data: Buffer, now_ns: int, *, append: bool, kill_privileges: bool
    ) -> None:
        """Take bytes; with `append` they go to the end, wherever it is when they are committed.

        Raises FileTooLarge, and Unavailable where the buffer stays full; then nothing of a write of up to 8 MiB
        is taken. What is lost while this waits for room is raised, and the handle has been told then: these bytes come
        behind what is lost, too. `handle`: None where the kernel itself writes.
        """
        view = memoryview(data)
        losses = self.file.losses
        for start in range(0, len(view), _SLICE):
            part = view[start : start + _SLICE] if len(view) > _SLICE else data
            await self._out.budget.take(len(part))
            try:
                if self.file.losses != losses and (loss := self.file.last_loss) is not None:
                    if handle is not None:
                        handle.error = None
                    raise loss.again()
                if (self.size if append else offset + start) + len(part) > FILE_SIZE_MAX:
                    raise FileTooLarge
            except DfsError:
                self._out.budget.give(len(part))
                raise
            self._take(offset + start, part, now_ns, append=append, kill_privileges=kill_privileges)

    def _take(self, offset: int, data: Buffer, now_ns: int, *, append: bool, kill_privileges: bool) -> None:
        if self._current is not None and self._current.append != append:
            self.seal()
        batch = self._current
        if batch is None:
            batch = self._current = Batch(append=append, base=self.size, born_s=self._out.clock.monotonic_s())
        before = batch.size_bytes
        # Appends of a batch are one piece: not behind what others have appended since the first of them.
        position = max(batch.base, batch.overlay.end) if append else offset
        batch.overlay.write(position, data)
        if position != offset:
            self._out.content_is_off(self.file)
        self._out.budget.give(len(data) - (batch.size_bytes - before))  # written over: counted once
        batch.mtime_ns = now_ns
        batch.kill_privileges |= kill_privileges
        self._send_if_full()

    def _send_if_full(self) -> None:
        batch = self._current
        if batch is None:
            return
        full = batch.size_bytes >= _BATCH_MAX or len(batch.overlay) >= _PIECES_MAX
        if full or (batch.size_bytes >= _SEND_FROM and len(self._queue) < _AHEAD):
            self.seal()

    def seal(self) -> None:
        """Begin to send what was written up to now."""
        batch = self._current
        if batch is None:
            return
        self._current = None
        before = self._queue[-1].outcome if self._queue else None
        self._queue.append(batch)
        task = asyncio.create_task(self._deliver(batch, before), name=f"write {self.file.ino}")
        self._tasks[batch] = task
        task.add_done_callback(lambda _: self._tasks.pop(batch))

    def seal_if_older(self, born_before_s: float) -> None:
        if self._current is not None and self._current.born_s < born_before_s:
            self.seal()

    async def flush(self, *, sync: bool = False) -> DfsError | None:
        """Return when all that was written up to now is committed or lost; what it was lost by. `sync`: and on the
        datanodes' disks.

        Raises Unavailable where that takes longer than the time limit; it is tried further then.
        """
        if sync and self._current is not None and not self._queue and not self.file.unsynced:
            self._current.sync = True
        self.seal()
        waiting = [batch.outcome for batch in self._queue]
        if waiting:
            done, late = await asyncio.wait(waiting, timeout=self._out.timeout_s)
            if (lost := next((loss for one in done if (loss := one.result()) is not None), None)) is not None:
                return lost
            if late:
                reason = self._delivery.last_error or Unavailable(f"nothing was answered for {self._out.timeout_s:g} s")
                raise Unavailable(f"not written yet: {reason.message}")
        if sync and self.file.unsynced:
            await self._sync()
        return None

    async def _sync(self) -> None:
        """Raises Unavailable."""
        begun = self.file.begin_sync()
        try:
            # disks may take longer than a namenode may be away
            async with asyncio.timeout(_SYNC_PATIENCE * self._out.timeout_s):
                await self._out.session.call(wire.Sync(self.file.ino), patient=True)
        except TimeoutError:
            raise Unavailable("the datanodes' disks do not answer") from None
        self.file.synced(begun)

    async def close(self) -> None:
        """Give up what is not written."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._delivery.close()

    # ----------------------------------------------------------------------------------------------- sending

    async def _deliver(self, batch: Batch, before: asyncio.Future[DfsError | None] | None) -> None:
        try:
            delivered = await self._delivery.deliver(batch, before)
        except DfsError as error:
            self.lose(error, batch)
            return
        except Exception as error:
            log.exception(event("writing failed unexpectedly", inode=self.file.ino))
            self.lose(InputOutput(f"unforeseen {type(error).__name__}; the mount's log tells more"), batch)
            return
        self._queue.remove(batch)
        self._out.budget.give(batch.size_bytes)
        self._committed(batch, delivered)
        batch.outcome.set_result(None)
        self._send_if_full()

    def lose(self, error: DfsError, since: Batch | None = None) -> None:
        """Give up what is not committed, from one batch on: what came behind it would otherwise be in the file without
        it. Does nothing where there is nothing."""
        lost = list(dropwhile(lambda batch: since not in (None, batch), self._batches()))
        if not lost:
            return
        size_bytes = sum(batch.size_bytes for batch in lost)
        log.error(event("writes lost", inode=self.file.ino, bytes=size_bytes, batches=len(lost), reason=error))
        self._current = None
        for batch in lost:
            if (task := self._tasks.get(batch)) is not None:  # all but the current one
                self._queue.remove(batch)
                if batch is not since:
                    task.cancel()
            batch.outcome.set_result(error)
        self.file.fail(error)
        self._out.content_is_off(self.file)
        self._out.budget.give(size_bytes)  # last: whoever waits for room is to see that

    def _committed(self, batch: Batch, delivered: Delivered) -> None:
        file, answer, stored = self.file, delivered.answer, delivered.stored
        if not batch.sync and not answer.synced:
            file.committed_unsynced()
        self._out.committed(file, answer)
        if stored is None or batch.attempts.lost:  # else it may be an earlier attempt's block
            file.layouts.forget()
        else:
            shift = answer.offset if batch.append else 0
            placed = [Extent(e.offset + shift, e.length, e.block, e.block_offset) for e in stored.extents]
            file.layouts.committed(placed, {stored.ref.block: stored.ref.nodes})
        if batch.append and answer.offset != batch.base:
            self._move_appends(answer.attr.size)
            self._out.content_is_off(file)

    def _move_appends(self, end: int) -> None:
        """Others have appended as well: what is appended after this goes behind that."""
        for batch in self._batches():
            if batch.append:
                batch.move_to(end)
            end = max(end, batch.overlay.end)
