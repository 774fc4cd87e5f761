"""How a batch of writes becomes part of its file: its bytes to the datanodes, then one commit at the namenode.

Several batches of a file may be on their way to datanodes at a time; each is committed after the one before it, and
never when that one was lost. What fails for a reason that may pass is tried again for as long as it takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple, Protocol

from dfslib.errors import BlockGone, ChecksumMismatch, ConditionFailed, DfsError, InputOutput, LockLost, SessionLost
from dfslib.model import BlockId, BlockRef, Extent, InodeId, NodeId, parse_block
from dfslib.mount.batch import Batch
from dfslib.mount.clock import Clock
from dfslib.mount.datanodes import Datanodes
from dfslib.mount.file import File
from dfslib.mount.session import Session
from dfslib.runtime.logs import event
from dfslib.wire import session as wire
from dfslib.wire.features import LOST_REQUESTS

log = logging.getLogger("dfs.writer")

_UPLOADS: Final = 2
"""Of one file at a time: while one is committed, the next is on its way."""
_RETRY_FIRST_S: Final = 0.1
_RETRY_MOST_S: Final = 5.0
_KNOWN_S: Final = 570.0
"""For so long the namenode surely knows what it has done: it does for ten minutes."""
_ATTEMPT_S: Final = 60.0
"""What is left of that is enough for another attempt."""
_ATTEMPTS_MOST: Final = 64
_RETRIES_UNFORESEEN: Final = 5
"""For errors of which nobody knows whether they pass."""


class Stored(NamedTuple):
    """A batch's bytes on datanodes."""

    extents: list[Extent]
    ref: BlockRef


class Delivered(NamedTuple):
    """`stored`: None where the bytes went with the commit."""

    answer: wire.Attributes
    stored: Stored | None


class _OutcomeUnknown(Exception):
    """An append of which nobody can tell whether it was done: done again, it might be there twice."""


class Generations(Protocol):
    """Of the locks that programs of this mount have."""

    def generation(self, ino: InodeId) -> int:
        """Under which the mount writes to a file now."""
        ...

    def refused(self, ino: InodeId, generation: int) -> bool:
        """The namenode says that this one is lost. False: it was given up since, and what was refused may be said again
        in the one of now."""
        ...


class Delivery:
    """Of one file's batches."""

    def __init__(
        self, file: File, locks: Generations, clock: Clock, session: Session, datanodes: Datanodes
    ) -> None:
        self._file = file
        self._ino = file.ino
        self._locks = locks
        self._clock = clock
        self._session = session
        self._datanodes = datanodes
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._abandoning: set[asyncio.Task[None]] = set()
        self.last_error: DfsError | None = None
        """Why something is still not written."""

    async def deliver(self, batch: Batch, before: asyncio.Future[DfsError | None] | None) -> Delivered:
        """`before`: the outcome of the batch before this one. Raises what cannot pass; then, and when it is cancelled,
        the batch is not part of the file, and its block is given up."""
        delay_s, unforeseen = _RETRY_FIRST_S, 0
        while True:
            try:
                return await self._try(batch, before)
            except _OutcomeUnknown:
                raise InputOutput("the session was lost, and whether bytes were appended is not known") from None
            except BlockGone as error:
                self.last_error = error
                continue
            except DfsError as error:
                if not error.retryable and not isinstance(error, InputOutput | ChecksumMismatch):
                    raise
                unforeseen += not error.retryable
                if unforeseen > _RETRIES_UNFORESEEN:
                    raise
                self.last_error = error
                log.warning(event("write delayed", inode=self._ino, reason=str(error), again_in_s=delay_s))
            await asyncio.sleep(delay_s)
            delay_s = min(_RETRY_MOST_S, delay_s * 2)

    async def close(self) -> None:
        """What is not given up yet goes with the session."""
        for task in self._abandoning:
            task.cancel()
        await asyncio.gather(*self._abandoning, return_exceptions=True)

    async def _try(self, batch: Batch, before: asyncio.Future[DfsError | None] | None) -> Delivered:
        stored: Stored | None = None
        committed = False
        try:
            if not batch.fits_inline:
                async with self._uploads:
                    stored = await self._store(batch)
            if before is not None:
                await asyncio.wait([before])  # not the future itself: cancelled here, it would be for all
                if (lost := before.result()) is not None:
                    raise lost
            answer = await self._commit(batch, stored)
            committed = True
            return Delivered(answer, stored)
        finally:
            if stored is not None and not committed:
                self._abandon(stored.ref.block)

    async def _store(self, batch: Batch) -> Stored:
        """Bring the bytes to the datanodes, as one block. Raises what may pass, and NoSpace."""
        grant = await self._allocate()
        taken = False
        try:
            done = await self._datanodes.put(grant, batch.buffers(), sync=batch.sync)
            nodes = tuple(NodeId(node) for node in done.nodes)
            ref = BlockRef(parse_block(done.block), done.size, int(done.crc32c, 16), nodes)
            if ref.block != grant.block or ref.size != batch.size_bytes:
                raise InputOutput(f"a datanode stored {ref.size} bytes of {batch.size_bytes}")
            taken = True
        finally:
            if not taken:
                self._abandon(grant.block)
        return Stored(list(batch.extents(grant.block)), ref)

    async def _allocate(self) -> wire.Grant:
        """A block that is ours until it is committed or given up, also where nobody waits for it any more."""
        asking = asyncio.ensure_future(self._session.call(wire.Allocate(self._ino)))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._spawn(self._abandon_unused(asking))
            raise
        assert isinstance(answer, wire.Grants)
        return answer.grants[0]

    async def _abandon_unused(self, asking: asyncio.Future[wire.Result]) -> None:
        with contextlib.suppress(DfsError):
            answer = await asking
            assert isinstance(answer, wire.Grants)
            for grant in answer.grants:
                self._abandon(grant.block)

    def _abandon(self, block: BlockId) -> None:
        """The block is not going to be committed. Nobody waits for it; what the namenode does not hear of, it gives up
        itself when the session ends. Said of one that was committed all the same, it changes nothing."""
        self._spawn(self._tell_abandoned(block))

    async def _tell_abandoned(self, block: BlockId) -> None:
        with contextlib.suppress(DfsError):
            await self._session.call(wire.Abandon([block]), patient=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="abandon")
        self._abandoning.add(task)
        task.add_done_callback(self._abandoning.discard)

    async def _commit(self, batch: Batch, stored: Stored | None) -> wire.Attributes:
        """Make the bytes part of the file. It waits for a namenode that is away, so that it is known at the end
        whether it was done; only a session that is lost meanwhile leaves that open."""
        if batch.append:
            batch.attempts.begin(self._clock.monotonic_s(), self._clock.wall_ns(), self._file.attr.version)
        while True:
            generation = self._locks.generation(self._ino)
            version, limit_s = self._condition(batch)
            operation = self._operation(batch, stored, generation, version)
            try:
                async with asyncio.timeout(limit_s):
                    answer = await self._session.call(operation, patient=True)
            except LockLost:
                if self._locks.refused(self._ino, generation):
                    raise
                continue
            except SessionLost as lost:
                if batch.append:
                    batch.attempts.lost.append(lost.request)
                raise
            except (ConditionFailed, TimeoutError):
                raise _OutcomeUnknown from None
            assert isinstance(answer, wire.Attributes)
            return answer

    def _operation(
        self, batch: Batch, stored: Stored | None, generation: int, version: int
    ) -> wire.Write | wire.Commit:
        if stored is None:
            return wire.Write(
                self._ino,
                batch.inline_pieces(),
                batch.append,
                batch.sync,
                batch.mtime_ns,
                batch.kill_privileges,
                generation,
                list(batch.attempts.lost),
                version,
            )
        return wire.Commit(
            self._ino,
            stored.extents,
            [stored.ref],
            batch.append,
            batch.mtime_ns,
            batch.kill_privileges,
            generation=generation,
            repeats=list(batch.attempts.lost),
            version=version,
        )

    def _condition(self, batch: Batch) -> tuple[int, float | None]:
        """The version that the file must have, 0 for any, and how long the attempt may take. What was appended in a
        session that is over must not be appended twice: the namenode knows for some minutes whether it was, and after
        that by the file being as it was before. Raises _OutcomeUnknown where it is no namenode that can tell."""
        attempts = batch.attempts
        if not attempts.lost:
            return 0, None
        if LOST_REQUESTS.name not in self._session.namenode_features or len(attempts.lost) > _ATTEMPTS_MOST:
            raise _OutcomeUnknown
        left_s = _KNOWN_S - attempts.age_s(self._clock.monotonic_s(), self._clock.wall_ns())
        return (0, left_s) if left_s > _ATTEMPT_S else (attempts.version, None)
