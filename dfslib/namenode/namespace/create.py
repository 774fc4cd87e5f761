"""New inodes: open(2) with O_CREAT, mkdir(2), symlink(2), mknod(2)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dfslib.errors import Exists, InvalidArgument, NameTooLong, NotADirectory
from dfslib.model import PATH_MAX, ROOT, Attr, FileType, InodeId
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.attrs import touch_parent
from dfslib.namenode.namespace.lookup import Path, resolve

_SETGID = 0o2000


class NewInode(msgspec.Struct, frozen=True, kw_only=True):
    """What a new inode is made of. `replication` None: as its directory's."""

    type: FileType
    mode: int
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    target: bytes = b""
    replication: int | None = None


_DIRECTORY = NewInode(type=FileType.DIRECTORY, mode=0o755)


def create(txn: Txn, parent: InodeId, name: bytes, new: NewInode, now_ns: int) -> Attr:
    """Make an inode and its entry. A setgid directory gives its group, and to directories the bit (mkdir(2)).

    Raises Exists, NotFound or NotADirectory for the parent, InvalidArgument, NameTooLong.
    """
    directory = records.get_directory(txn, parent)
    if not name or records.get_dentry(txn, parent, name) is not None:
        raise Exists
    if not 0 <= new.mode <= 0o7777:
        raise InvalidArgument("a mode is at most 7777, octal")
    if len(new.target) >= PATH_MAX:
        raise NameTooLong(f"a symbolic link's target has less than {PATH_MAX} bytes")
    if (new.type is FileType.SYMLINK) != bool(new.target) or b"\0" in new.target:
        raise InvalidArgument("a symbolic link, and nothing else, has a target: not empty, and without NUL")
    is_dir = new.type is FileType.DIRECTORY
    inherits = bool(directory.mode & _SETGID)
    attr = Attr(
        ino=records.next_inode(txn),
        type=new.type,
        mode=new.mode | (_SETGID if inherits and is_dir else 0),
        uid=new.uid,
        gid=directory.gid if inherits else new.gid,
        nlink=2 if is_dir else 1,
        size=len(new.target),
        atime_ns=now_ns,
        mtime_ns=now_ns,
        ctime_ns=now_ns,
        version=now_ns // 1000,
        rdev=new.rdev,
        parent=parent if is_dir else InodeId(0),
        target=new.target,
        replication=directory.replication if new.replication is None else new.replication,
    )
    records.put_attr(txn, attr)
    records.put_dentry(txn, parent, name, attr.ino, attr.type)
    touch_parent(txn, parent, now_ns, subdirectories=int(is_dir))
    records.add_totals(txn, files=int(not is_dir), directories=int(is_dir))
    return attr


def make_root(txn: Txn, now_ns: int) -> None:
    """The root directory of a new file system."""
    root = Attr(
        ROOT, FileType.DIRECTORY, 0o755, nlink=2, atime_ns=now_ns, mtime_ns=now_ns, ctime_ns=now_ns, parent=ROOT
    )
    records.put_attr(txn, root)


def make_directories(txn: Txn, names: Sequence[bytes], now_ns: int) -> InodeId:
    """The directory that these names lead to from the root, made where it is missing (mkdir -p).

    Symbolic links on the way are followed. Raises NotADirectory where a file is in the way.
    """
    directory = records.get_directory(txn, ROOT)
    for depth, name in enumerate(names, 1):
        if name == b"..":
            directory = records.get_directory(txn, directory.parent)
            continue
        parent = directory.ino
        dentry = records.get_dentry(txn, parent, name)
        found = records.named_attr(txn, dentry.ino) if dentry else None
        if found and found.type is FileType.SYMLINK:
            parent, name, found = resolve(txn, Path(names[:depth]))  # where the link leads
        directory = found or create(txn, parent, name, _DIRECTORY, now_ns)
        if not directory.is_dir:
            raise NotADirectory
    return directory.ino
