"""A further name for an inode: link(2)."""

from __future__ import annotations

from msgspec.structs import replace

from dfslib.errors import Exists, NotFound, NotPermitted, TooManyLinks
from dfslib.model import Attr, InodeId
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.attrs import touch_parent

_LINKS_MAX = 65000
"""As on ext4: programs are known to cope with it."""


def link(txn: Txn, ino: InodeId, parent: InodeId, name: bytes, now_ns: int) -> Attr:
    """Raises NotPermitted for a directory, Exists, TooManyLinks, NotFound or NotADirectory for the parent."""
    attr = records.get_attr(txn, ino)
    if not attr.nlink:
        raise NotFound("the file was removed, and is only kept because it is open")
    records.get_directory(txn, parent)
    if not name or records.get_dentry(txn, parent, name) is not None:
        raise Exists
    if attr.is_dir:
        raise NotPermitted("a directory cannot have a second name")
    if attr.nlink >= _LINKS_MAX:
        raise TooManyLinks
    attr = replace(attr, nlink=attr.nlink + 1, ctime_ns=now_ns)
    records.put_attr(txn, attr)
    records.put_dentry(txn, parent, name, ino, attr.type)
    touch_parent(txn, parent, now_ns)
    return attr
