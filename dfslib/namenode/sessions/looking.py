"""What a mount asks without changing anything: each is one snapshot, answered in the step in which it was asked.

What is answered is noted as cached by the session before it is read. So a change that the snapshot does not have yet
is pushed afterwards.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from dfslib.errors import InvalidArgument, NoAttribute, NotFound
from dfslib.model import Attr, BlockId, Extent, FileType, InodeId, NodeId
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.content import read_extents, read_range
from dfslib.namenode.namespace.deferred import find_deferred
from dfslib.namenode.namespace.xattr import list_xattrs
from dfslib.namenode.sessions.session import Session
from dfslib.namenode.status import ClusterStatus
from dfslib.wire import session as wire

_ENTRIES_MAX: Final = 4096
_EXTENTS_WITH_OPEN: Final = 64
_DEFERRED_WITH_LAYOUT: Final = 256 << 10
"""Bytes of deferred blocks that go along with a layout; more are asked for one by one."""
_SMALL_FILE: Final = 256 << 20
"""Of larger ones the extents are not even counted at open."""


class Looking:
    def __init__(self, engine: MetadataEngine, status: ClusterStatus) -> None:
        self._engine = engine
        self._status = status

    def lookup(self, session: Session, request: wire.Lookup) -> wire.Attributes:
        session.directories.add(request.parent)

        def read(txn: ReadTxn) -> Attr:
            dentry = records.get_dentry(txn, request.parent, request.name)
            if dentry is None:
                records.get_directory(txn, request.parent)
                raise NotFound
            session.inodes.add(dentry.ino)
            return records.named_attr(txn, dentry.ino)

        return wire.Attributes(self._engine.read(read))

    def get_attr(self, session: Session, request: wire.GetAttr) -> wire.Attributes:
        return wire.Attributes(self.attr(session, request.ino))

    def attr(self, session: Session, ino: InodeId) -> Attr:
        """Raises NotFound."""
        session.inodes.add(ino)
        return self._engine.read(lambda txn: records.get_attr(txn, ino))

    def read_directory(self, session: Session, request: wire.ReadDirectory) -> wire.Entries:
        session.directories.add(request.ino)
        limit = max(1, min(request.limit, _ENTRIES_MAX))

        def read(txn: ReadTxn) -> wire.Entries:
            records.get_directory(txn, request.ino)
            found = list(islice(records.scan_entries(txn, request.ino, request.after), limit + 1))
            return wire.Entries(found[:limit], len(found) > limit)

        entries = self._engine.read(read)
        session.inodes.update(entry.attr.ino for entry in entries.entries)
        return entries

    def layout(self, session: Session, request: wire.GetLayout) -> wire.Layout:
        session.inodes.add(request.ino)
        if not 0 <= request.start <= request.end:
            raise InvalidArgument("a range begins before it ends, and not below 0")

        def read(txn: ReadTxn) -> wire.Layout:
            attr = _file(txn, request.ino)
            extents = read_range(txn, request.ino, request.start, request.end) if request.end else []
            return wire.Layout(attr.version, attr.size, extents, *_whereabouts(txn, extents))

        return self._engine.read(read)

    def file(self, session: Session, ino: InodeId) -> wire.Attributes:
        """A file that is opened, with its extents where they are few. Raises NotFound where it has no name, and was
        not open here."""
        session.inodes.add(ino)
        kept = session.opens[ino] > 1 or session.recovering  # this open counts already

        def read(txn: ReadTxn) -> wire.Attributes:
            attr = records.get_attr(txn, ino)
            if attr.type is FileType.FILE and not attr.nlink and not kept:
                raise NotFound("the file was removed")
            extents = read_extents(txn, ino) if 0 < attr.size <= _SMALL_FILE else None
            if not attr.size:
                extents = []
            if extents is None or len(extents) > _EXTENTS_WITH_OPEN:
                return wire.Attributes(attr)
            holders, deferred = _whereabouts(txn, extents)
            return wire.Attributes(attr, extents=extents, holders=holders, deferred=deferred)

        return self._engine.read(read)

    def read_deferred(self, request: wire.ReadDeferred) -> wire.Value:
        """Raises NotFound where the block has gone on to datanodes, or altogether."""
        data = self._engine.read(lambda txn: find_deferred(txn, request.block))
        if data is None:
            raise NotFound("the block is not deferred any more")
        return wire.Value(data)

    def get_xattr(self, request: wire.GetXattr) -> wire.Value:
        found = self._engine.read(lambda txn: list_xattrs(txn, request.ino))
        if request.name not in found:
            raise NoAttribute
        return wire.Value(found[request.name])

    def list_xattrs(self, request: wire.ListXattrs) -> wire.Names:
        return wire.Names(list(self._engine.read(lambda txn: list_xattrs(txn, request.ino))))

    def space(self) -> wire.SpaceAnswer:
        df = self._status.df()
        return wire.SpaceAnswer(df.bytes + df.available, df.available, df.files + df.directories)


def _file(txn: ReadTxn, ino: InodeId) -> Attr:
    attr = records.get_attr(txn, ino)
    if attr.type is not FileType.FILE:
        raise InvalidArgument("not a regular file")
    return attr


def _whereabouts(
    txn: ReadTxn, extents: list[Extent]
) -> tuple[dict[BlockId, list[NodeId]], dict[BlockId, bytes]]:
    """Who holds the extents' blocks, and the bytes of those that are deferred, b"" where they are too many."""
    holders: dict[BlockId, list[NodeId]] = {}
    deferred: dict[BlockId, bytes] = {}
    room = _DEFERRED_WITH_LAYOUT
    for block in dict.fromkeys(extent.block for extent in extents):
        record = records.used_block(txn, block)
        if not record.deferred:
            holders[block] = list(record.nodes)
        elif record.size <= room:
            deferred[block] = find_deferred(txn, block) or b""
            room -= record.size
        else:
            deferred[block] = b""
    return holders, deferred
