"""A server-side copy of a file: a new inode on the same blocks."""

from __future__ import annotations

from dfslib.errors import InvalidArgument, IsADirectory, NotFound
from dfslib.model import Attr, FileType
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.content import share_content
from dfslib.namenode.namespace.create import NewInode, create
from dfslib.namenode.namespace.lookup import Location


def copy(txn: Txn, source: Location, target: Location, now_ns: int) -> Attr:
    """Make the file at `target`, new or replaced, have the bytes of the one at `source`.

    A new file has the mode, owner and replication of the source. Raises
    NotFound, IsADirectory, InvalidArgument for anything but regular files and for a file onto itself.
    """
    file = source.attr
    if file is None:
        raise NotFound
    if file.is_dir or (target.attr and target.attr.is_dir):
        raise IsADirectory
    if file.type is not FileType.FILE:
        raise InvalidArgument("not a regular file")
    made = target.attr
    if made is None:
        new = NewInode(type=FileType.FILE, mode=file.mode, uid=file.uid, gid=file.gid, replication=file.replication)
        made = create(txn, target.parent, target.name, new, now_ns)
    elif made.ino == file.ino:
        raise InvalidArgument("both are the same file")
    share_content(txn, file.ino, made.ino, now_ns)
    return records.get_attr(txn, made.ino)
