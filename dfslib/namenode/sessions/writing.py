"""A mount's bytes: blocks that it is granted, brings to the datanodes itself and commits; and small writes that it
sends here, of which most are deferred (blocks/deferral.py)."""

from __future__ import annotations

from collections.abc import Sequence

from dfslib.errors import BlockGone, ConditionFailed, FileTooLarge, InvalidArgument
from dfslib.model import BlockId, BlockRef, Extent, InodeId, Origin
from dfslib.namenode.blocks.deferral import Deferral
from dfslib.namenode.blocks.unsynced import Unsynced
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.files.once import Done, find_done
from dfslib.namenode.files.pack import Packer
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import content, extents, records
from dfslib.namenode.namespace.attrs import kill_privileges
from dfslib.namenode.namespace.deferred import add_deferred
from dfslib.namenode.sessions.changing import Changing, Fence, request_id, written_at
from dfslib.namenode.sessions.session import Session
from dfslib.namenode.sessions.table import Sessions
from dfslib.wire import session as wire
from dfslib.wire.origins import origin_path

_GRANTS_MAX = 64
"""Blocks granted at a time; more are asked for again."""


class Writing:
    def __init__(
        self, engine: MetadataEngine, changing: Changing, sessions: Sessions, writer: BlockWriter, packer: Packer,
        deferral: Deferral, unsynced: Unsynced,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._changing = changing
        self._sessions = sessions
        self._writer = writer
        self._packer = packer
        self._deferral = deferral
        self._unsynced = unsynced

    def allocate(self, session: Session, request: wire.Allocate) -> wire.Grants:
        """Raises NotEnoughDatanodes, NoSpace."""
        if not 0 < request.count <= _GRANTS_MAX:
            raise InvalidArgument(f"1 to {_GRANTS_MAX} blocks are granted at a time")
        copies = self._copies(request.ino)
        grants: list[wire.Grant] = []
        for _ in range(request.count):
            block, targets = self._writer.grant(copies)
            session.blocks[block] = [target.node for target in targets]
            wanted = [wire.Target(target.node, target.url) for target in targets]
            grants.append(wire.Grant(block, wanted, self._writer.required(copies)))
        return wire.Grants(grants)

    def abandon(self, session: Session, request: wire.Abandon) -> wire.Done:
        for block in request.blocks:
            self._sessions.drop_block(session, block, used=False)
        return wire.Done()

    async def commit(self, session: Session, seq: int, request: wire.Commit) -> wire.Attributes:
        """Raises BlockGone where a block is not held for the session. Blocks that come with a repetition are given up,
        unless the first attempt used the same."""
        done, repeated = self._done_before(session, seq), True
        if done is None:
            self._check_commit(session, request)
            self._unsynced.note(request.ino, request.blocks)

            def commit(txn: Txn) -> Done:
                if request.size is not None:
                    content.truncate(txn, request.ino, request.size, self._changing.now_ns())
                return self._lay(txn, request, request.extents, request.blocks)

            done, repeated = await self._changing.transact(session, seq, commit, _fence(request), request.repeats)
        for ref in request.blocks:
            self._writer.accepted_without(set(session.blocks.get(ref.block, ())).difference(ref.nodes))
            self._sessions.drop_block(session, ref.block, used=not repeated)
        return _answer(done, request.append, sum(extent.length for extent in request.extents))

    async def write(self, session: Session, seq: int, request: wire.Write) -> wire.Attributes:
        data = b"".join(piece.data for piece in request.pieces)
        if len(data) > wire.INLINE_MAX:
            raise FileTooLarge(f"a write carries at most {wire.INLINE_MAX} bytes itself")
        if any(piece.offset < 0 for piece in request.pieces):
            raise InvalidArgument("an offset is not negative")
        done = self._done_before(session, seq)
        synced = False
        if done is None:
            copies = self._copies(request.ino)
            admission = self._deferral.admit(request.ino, len(data), copies)
            if admission is None:
                done = await self._store(session, seq, request, data, copies)
            else:
                synced = True
                with admission:
                    done = await self._defer(session, seq, request, data)
        return _answer(done, request.append, len(data), synced=synced)

    async def _defer(self, session: Session, seq: int, request: wire.Write, data: bytes) -> Done:
        block = self._deferral.new_id()
        placed = _placed(request.pieces, block, 0)

        def commit(txn: Txn) -> Done:
            add_deferred(txn, block, data)
            return self._lay(txn, request, placed, [])

        return (await self._changing.transact(session, seq, commit, _fence(request), request.repeats)).done

    async def _store(self, session: Session, seq: int, request: wire.Write, data: bytes, copies: int) -> Done:
        offset = request.pieces[0].offset if request.pieces else 0
        origin = Origin(origin_path(request.ino), request.ino, offset, len(data))
        packed = await self._packer.store(data, origin, copies, sync=request.sync)
        used = False
        try:
            placed = _placed(request.pieces, packed.ref.block, packed.block_offset)
            if not request.sync:
                self._unsynced.note(request.ino, [packed.ref])
            done, repeated = await self._changing.transact(
                session,
                seq,
                lambda txn: self._lay(txn, request, placed, [packed.ref]),
                _fence(request),
                request.repeats,
            )
            used = not repeated
            return done
        finally:
            self._writer.release(packed.ref.block, packed.ref.nodes, used=used)

    async def copy_range(self, session: Session, seq: int, request: wire.CopyRange) -> wire.Attributes:
        self._unsynced.shared(request.source, request.target)
        return await self._changing.copy_range(session, seq, request)

    async def sync(self, request: wire.Sync) -> wire.Done:
        """Raises Unavailable where no datanode that has it can be asked, and what else keeps it from being on disk."""
        await self._unsynced.sync(request.ino)
        return wire.Done()

    def _lay(
        self, txn: Txn, request: wire.Write | wire.Commit, placed: Sequence[Extent], blocks: Sequence[BlockRef]
    ) -> Done:
        if request.version and records.get_attr(txn, request.ino).version != request.version:
            raise ConditionFailed
        now = self._changing.now_ns()
        for ref in blocks:
            extents.add_block(txn, ref)
        if request.kill_privileges:
            kill_privileges(txn, request.ino)
        if request.append:
            attr = content.append_content(txn, request.ino, placed, now)
        else:
            attr = content.write_content(txn, request.ino, 0, placed, now)
        return Done(written_at(txn, attr, request.mtime_ns))

    def _check_commit(self, session: Session, request: wire.Commit) -> None:
        sizes = {ref.block: ref.size for ref in request.blocks}
        for ref in request.blocks:
            granted = session.blocks.get(ref.block)
            if granted is None:
                raise BlockGone
            if not ref.nodes or not set(ref.nodes) <= set(granted):
                raise InvalidArgument("a block lies on none of the datanodes it was granted on")
        for extent in request.extents:
            size = sizes.get(extent.block)
            if size is None:
                raise BlockGone
            if extent.offset < 0 or extent.length <= 0 or not 0 <= extent.block_offset <= size - extent.length:
                raise InvalidArgument("an extent lies outside of its block")

    def _done_before(self, session: Session, seq: int) -> Done | None:
        return self._engine.read(lambda txn: find_done(txn, request_id(session, seq)))

    def _copies(self, ino: InodeId) -> int:
        attr = self._engine.read(lambda txn: records.get_attr(txn, ino))
        return self._writer.copies(attr.replication)


def _fence(request: wire.Write | wire.Commit) -> Fence:
    return Fence(request.ino, request.generation)


def _placed(pieces: Sequence[wire.Piece], block: BlockId, at: int) -> list[Extent]:
    """Extents for pieces that lie one behind the other in a block, from `at` on."""
    placed: list[Extent] = []
    for piece in pieces:
        if piece.data:
            placed.append(Extent(piece.offset, len(piece.data), block, at))
        at += len(piece.data)
    return placed


def _answer(done: Done, append: bool, length: int, *, synced: bool = False) -> wire.Attributes:
    assert done.attr is not None
    return wire.Attributes(done.attr, offset=done.attr.size - length if append else 0, synced=synced)
