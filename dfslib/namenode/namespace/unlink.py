"""Removal of names: unlink(2), rmdir(2), and of whole trees in one step.

A tree is first cut off, which is one small transaction however large it is; what was cut off is reaped
afterwards in batches. So a recursive delete is atomic for everyone who looks, and blocks nobody. A file whose
last name goes is an orphan first: programs that have it open go on with it, and it is freed after the last one.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import islice

from msgspec.structs import replace

from dfslib.errors import InvalidArgument, IsADirectory, NotADirectory, NotEmpty, NotFound
from dfslib.model import Attr, FileType, InodeId
from dfslib.namenode.metadata.engine import Txn, prefix_end
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.attrs import touch_parent
from dfslib.namenode.namespace.content import release_content


def unlink(txn: Txn, parent: InodeId, name: bytes, now_ns: int) -> None:
    """Remove a name that is no directory's. Raises NotFound, IsADirectory."""
    attr = _named(txn, parent, name)
    if attr.is_dir:
        raise IsADirectory
    records.delete_dentry(txn, parent, name)
    touch_parent(txn, parent, now_ns)
    drop_link(txn, attr, now_ns)


def rmdir(txn: Txn, parent: InodeId, name: bytes, now_ns: int) -> None:
    """Remove an empty directory. Raises NotFound, NotADirectory, NotEmpty, InvalidArgument for the root."""
    attr = _named(txn, parent, name)
    if not attr.is_dir:
        raise NotADirectory
    if not records.is_empty(txn, attr.ino):
        raise NotEmpty
    records.delete_dentry(txn, parent, name)
    touch_parent(txn, parent, now_ns, subdirectories=-1)
    _delete_directory(txn, attr)


def detach(txn: Txn, parent: InodeId, name: bytes, now_ns: int) -> None:
    """Remove a name with all that is below it. Raises NotFound, InvalidArgument for the root."""
    attr = _named(txn, parent, name)
    if not attr.is_dir:
        unlink(txn, parent, name, now_ns)
    elif records.is_empty(txn, attr.ino):
        rmdir(txn, parent, name, now_ns)
    else:
        records.delete_dentry(txn, parent, name)
        touch_parent(txn, parent, now_ns, subdirectories=-1)
        records.put_state(txn, keys.detached(attr.ino))


def reap(txn: Txn, limit: int, now_ns: int) -> int:
    """Free up to `limit` names of the trees that were cut off; how many it did, 0 when none are left."""
    done = 0
    for number, _ in records.scan_state(txn, keys.DETACHED):
        if done >= limit:
            break
        directory = records.get_attr(txn, InodeId(number))
        moved = 0
        for name, dentry in islice(records.scan_dentries(txn, directory.ino), limit - done):
            records.delete_dentry(txn, directory.ino, name)
            if dentry.type is FileType.DIRECTORY:
                records.put_state(txn, keys.detached(dentry.ino))
                moved += 1
            else:
                drop_link(txn, records.named_attr(txn, dentry.ino), now_ns)
            done += 1
        if done < limit:
            _delete_directory(txn, directory)
            txn.delete(keys.detached(directory.ino))
            done += 1
        elif moved:
            records.put_attr(txn, replace(directory, nlink=directory.nlink - moved))
    return done


def drop_link(txn: Txn, attr: Attr, now_ns: int) -> None:
    """One name less for an inode that is no directory. With the last one a file becomes an orphan, and anything
    else goes at once."""
    if attr.nlink > 1 or attr.type is FileType.FILE:
        records.put_attr(txn, replace(attr, nlink=attr.nlink - 1, ctime_ns=now_ns))
        if attr.nlink == 1:
            records.put_state(txn, keys.orphan(attr.ino))
        return
    _delete_file(txn, attr.ino)


def free_orphans(txn: Txn, limit: int, is_open: Container[InodeId]) -> int:
    """Free up to `limit` files that have no name and are not open; how many."""
    done = 0
    for number, _ in records.scan_state(txn, keys.ORPHANS):
        ino = InodeId(number)
        if done == limit:
            break
        if ino not in is_open:
            release_content(txn, ino)
            _delete_file(txn, ino)
            txn.delete(keys.orphan(ino))
            done += 1
    return done


def _delete_file(txn: Txn, ino: InodeId) -> None:
    _delete_inode(txn, ino)
    records.add_totals(txn, files=-1)


def _delete_directory(txn: Txn, attr: Attr) -> None:
    _delete_inode(txn, attr.ino)
    records.add_totals(txn, directories=-1)


def _delete_inode(txn: Txn, ino: InodeId) -> None:
    for key, _ in txn.scan(keys.xattrs(ino), prefix_end(keys.xattrs(ino))):
        txn.delete(key)
    records.delete_attr(txn, ino)


def _named(txn: Txn, parent: InodeId, name: bytes) -> Attr:
    if not name:
        raise InvalidArgument("the path names no entry of a directory")
    dentry = records.get_dentry(txn, parent, name)
    if dentry is None:
        raise NotFound
    return records.named_attr(txn, dentry.ino)
