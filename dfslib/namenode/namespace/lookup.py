"""From a path to an inode: path_resolution(7), without permissions (the HTTP interface acts as root)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dfslib.errors import NameTooLong, NotADirectory, NotFound, TooManySymlinks
from dfslib.model import NAME_MAX, ROOT, SYMLINKS_MAX, Attr, FileType, InodeId
from dfslib.namenode.metadata.engine import DamagedMetadata, ReadTxn
from dfslib.namenode.namespace import records


class Path(NamedTuple):
    """A parsed path: names ('..' allowed), and whether it must lead to a directory (a trailing slash)."""

    names: Sequence[bytes]
    must_be_dir: bool = False


class Location(NamedTuple):
    """Where a path leads: a name in an existing directory, and the inode there, if there is one.

    `name` is empty where the path ends in no name of its own: the root, or '..'.
    """

    parent: InodeId
    name: bytes
    attr: Attr | None


def resolve(txn: ReadTxn, path: Path, *, follow: bool = True) -> Location:
    """Walk `path` from the root. '..' never leaves it.

    Symbolic links on the way are followed; a last one if `follow`, or if a trailing slash asks for what
    it leads to. Raises NotFound or NotADirectory for what is on the way, TooManySymlinks, NameTooLong.
    """
    must_be_dir = path.must_be_dir
    follow = follow or must_be_dir
    dir_or_nothing = False  # the last link's target ends in a slash: what is not there cannot be made through it
    pending = list(reversed(path.names))
    directory = _root(txn)
    here = Location(ROOT, b"", directory)
    links = 0
    while pending:
        name = pending.pop()
        if name == b"..":
            directory = records.get_directory(txn, directory.parent)
            here = Location(directory.parent, b"", directory)
            continue
        if len(name) > NAME_MAX:
            raise NameTooLong  # only a link's target can hold one
        dentry = records.get_dentry(txn, directory.ino, name)
        if dentry is None:
            if pending or dir_or_nothing:
                raise NotFound
            return Location(directory.ino, name, None)
        child = records.named_attr(txn, dentry.ino)
        if child.type is FileType.SYMLINK and (pending or follow):
            links += 1
            if links > SYMLINKS_MAX:
                raise TooManySymlinks
            if child.target.startswith(b"/"):
                directory = _root(txn)
            here = Location(directory.parent, b"", directory)
            if not pending and child.target.endswith((b"/", b"/.")):
                must_be_dir = dir_or_nothing = True
            pending += [part for part in reversed(child.target.split(b"/")) if part not in (b"", b".")]
            continue
        here = Location(directory.ino, name, child)
        if child.is_dir:
            directory = child
        elif pending or must_be_dir:
            raise NotADirectory
    return here


def _root(txn: ReadTxn) -> Attr:
    root = records.find_attr(txn, ROOT)
    if root is None or not root.is_dir:
        raise DamagedMetadata("there is no root directory")
    return root


def find(txn: ReadTxn, path: Path, *, follow: bool = True) -> Attr:
    """The inode at `path`. Raises NotFound where there is none."""
    attr = resolve(txn, path, follow=follow).attr
    if attr is None:
        raise NotFound
    return attr


def nearest(txn: ReadTxn, names: Sequence[bytes]) -> Attr:
    """The inode at the end of the path, or the last one on the way there that exists."""
    here = _root(txn)
    for depth, name in enumerate(names, 1):
        if not here.is_dir:
            return here
        if name == b"..":
            here = records.get_directory(txn, here.parent)
            continue
        dentry = records.get_dentry(txn, here.ino, name)
        found = records.named_attr(txn, dentry.ino) if dentry else None
        if found and found.type is FileType.SYMLINK:
            try:
                found = resolve(txn, Path(names[:depth])).attr
            except NotFound:
                found = None
        if found is None:
            return here
        here = found
    return here


def is_within(txn: ReadTxn, ino: InodeId, ancestor: InodeId) -> bool:
    """Whether directory `ino` is `ancestor` or lies anywhere below it."""
    while ino != ancestor:
        if ino == ROOT:
            return False
        ino = records.get_directory(txn, ino).parent
    return True
