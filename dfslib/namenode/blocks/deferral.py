"""Small writes of mounts: their bytes go into the metadata with the write's own transaction, and a moment later, many
of them together, to datanodes.

The write then waits for one fsync here, and not for three datanodes and then for that fsync; datanodes keep a few
large blocks of small files, in the order of their inodes, and not a file for each. Until then the bytes share the
fate of the metadata that names them: the next copy of it on the datanodes has them, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Final, NamedTuple

from dfslib.errors import DfsError, Unavailable
from dfslib.model import REPLICATION_ALL, BlockId, InodeId, format_block
from dfslib.namenode.blocks.moving import Mover, Piece, Writer, pieces_of
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import content, records
from dfslib.namenode.namespace.deferred import drop_unused, find_deferred, scan_deferred
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.deferral")

DEFERRED_MAX: Final = 64 << 10
"""Bytes of one write. More is brought to the datanodes at once: for that it is the bytes that take the time."""
TOTAL_MAX: Final = 64 << 20
"""Bytes in the metadata at a time: datanodes that are away or slow do not fill the namenode's disk."""
_BATCH_PIECES: Final = 256
"""In one transaction: some 10 ms of the writer's time."""
_BATCH_BYTES: Final = 8 << 20
_ROUNDS_MAX: Final = 8
"""For one file: a second round is needed where copies of other files come into it during the first."""


class _Batch(NamedTuple):
    """What goes into one new block."""

    pieces: list[Piece]
    data: bytes
    copies: int


class _Plan(NamedTuple):
    """`unused`: blocks that were overwritten or removed before they got anywhere."""

    batches: list[_Batch]
    unused: list[BlockId]


class _Counted(NamedTuple):
    """`size_bytes` were deferred when everything was seen that had been settled of `settled` bytes in all."""

    size_bytes: int
    settled: int


class Admission:
    """A write that is to be deferred: a context, inside which its transaction is asked for and waited for."""

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._settle()


class Deferral:
    def __init__(self, engine: MetadataEngine, writer: Writer, mover: Mover, new_id: Callable[[], BlockId]) -> None:
        self._engine = engine
        self._writer = writer
        self._mover = mover
        self.new_id = new_id
        self._open = 0
        """Bytes that were admitted, and whose transactions may be still to be asked for."""
        self._settled = 0
        """Bytes of all transactions that were asked for, whatever became of them. Only ever grows."""
        self._counted: _Counted | None = None
        """The last count; none yet, where an earlier process may have left some."""
        self._refused: Counter[InodeId] = Counter()
        self._moving = asyncio.Lock()
        self._waits = False
        """For datanodes that take it; said once."""

    def admit(self, ino: InodeId, size: int, copies: int) -> Admission | None:
        """Whether a write of `size` bytes is to be deferred now: then the admission is to be entered, and its
        transaction asked for, in the same step. Raises NotEnoughDatanodes or NoSpace where it could not be brought to
        datanodes: then it is refused, as one that is not deferred would be."""
        if not 0 < size <= DEFERRED_MAX or ino in self._refused or self._bytes + size > TOTAL_MAX:
            return None
        self._writer.check_space(copies)
        self._open += size
        return Admission(partial(self._settle, size))

    def _settle(self, size: int) -> None:
        self._open -= size
        self._settled += size

    async def run_once(self) -> None:
        """Bring all that is deferred to datanodes, as far as they take it."""
        if not self._bytes:
            return
        async with self._moving:
            try:
                self._writer.check_space(REPLICATION_ALL)  # all that is deferred is not read in vain every second
                await self._carry_out(await asyncio.to_thread(self._engine.read, self._plan))
                self._waits = False
            except DfsError as error:
                if not self._waits:
                    log.warning(event("deferred writes wait", error=error))
                self._waits = True
        await self._count()

    @contextlib.asynccontextmanager
    async def none_of(self, ino: InodeId) -> AsyncIterator[None]:
        """Inside, until it first waits, nothing of a file is deferred: for readers that know of datanodes only.

        Raises what keeps the datanodes from taking it, Unavailable where more and more of it comes to be deferred.
        """
        self._refused[ino] += 1
        try:
            if self._bytes:
                await self._count()  # behind every write that was admitted before
                await self._bring_away(ino)
            yield
        finally:
            self._refused[ino] -= 1
            if not self._refused[ino]:
                del self._refused[ino]

    async def _bring_away(self, ino: InodeId) -> None:
        """Return when nothing of a file is deferred. It looks again after each round: meanwhile the file may have
        been made to share what others have deferred."""
        for _ in range(_ROUNDS_MAX):
            if not self._engine.read(lambda txn: _deferred_of(txn, ino)):
                return
            async with self._moving:
                await self._carry_out(self._engine.read(lambda txn: self._plan(txn, ino)))
        raise Unavailable("the file is written faster than datanodes take it: ask again")

    @property
    def _bytes(self) -> int:
        """In the metadata, or admitted to it: never too few, and 0 only where there are none."""
        if self._counted is None:
            return max(1, self._open + self._settled)
        return self._counted.size_bytes + self._settled - self._counted.settled + self._open

    async def _count(self) -> None:
        """Transactions run in the order in which they are asked for: this one sees what was settled before it, and
        whatever comes meanwhile is added to what it finds. So no count, however many are under way, takes away what
        it has not seen."""
        settled = self._settled
        found = _Counted(await self._engine.transact(_count_bytes), settled)
        if self._counted is None or found.settled >= self._counted.settled:
            self._counted = found

    async def _carry_out(self, plan: _Plan) -> None:
        """Raises NotEnoughDatanodes or NoSpace; what was not moved stays where it is."""
        if plan.unused:
            await self._engine.transact(lambda txn: _drop(txn, plan.unused))
        for batch in plan.batches:
            ref = await self._mover.move(batch.pieces, batch.data, batch.copies)
            log.debug(event("deferred writes moved", pieces=len(batch.pieces), block=format_block(ref.block)))

    def _plan(self, txn: ReadTxn, ino: InodeId | None = None) -> _Plan:
        """All that is deferred, or what one file uses of it, in the order of the files' bytes: so they become few
        extents."""
        deferred = dict(scan_deferred(txn)) if ino is None else _deferred_of(txn, ino)
        pieces = pieces_of(txn, deferred)
        by_copies: dict[int, list[Piece]] = {}
        for piece in sorted((p for used in pieces.values() for p in used), key=lambda p: (p.ino, p.offset)):
            copies = self._writer.copies(records.get_attr(txn, piece.ino).replication)
            by_copies.setdefault(copies, []).append(piece)
        batches = [
            _Batch(batch, b"".join(deferred[piece.block][piece.start : piece.end] for piece in batch), copies)
            for copies, of_kind in by_copies.items()
            for batch in _batches(of_kind)
        ]
        return _Plan(batches, [block for block, used in pieces.items() if not used])


def _batches(pieces: list[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        if batch and (len(batch) == _BATCH_PIECES or size + piece.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += piece.size
    if batch:
        yield batch


def _drop(txn: Txn, blocks: list[BlockId]) -> None:
    for block in blocks:
        drop_unused(txn, block)


def _count_bytes(txn: ReadTxn) -> int:
    return sum(len(data) for _, data in scan_deferred(txn))


def _deferred_of(txn: ReadTxn, ino: InodeId) -> dict[BlockId, bytes]:
    blocks = {extent.block for extent in content.read_extents(txn, ino)}
    return {block: data for block in blocks if (data := find_deferred(txn, block)) is not None}
