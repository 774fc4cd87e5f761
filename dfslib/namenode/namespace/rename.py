"""rename(2) and its flags, for every pair of files and directories."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from dfslib.errors import Exists, InvalidArgument, IsADirectory, NotADirectory, NotEmpty, NotFound
from dfslib.model import Attr, InodeId
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.attrs import touch_parent
from dfslib.namenode.namespace.lookup import is_within
from dfslib.namenode.namespace.unlink import rmdir, unlink


class Name(NamedTuple):
    """A place for an entry: a directory and a name in it."""

    parent: InodeId
    name: bytes


def rename(txn: Txn, source: Name, target: Name, now_ns: int, *, noreplace: bool = False) -> Attr:
    """Give `source` the name `target`; what has that name is replaced in the same step.

    Raises NotFound; InvalidArgument for the root and for a directory moved below itself; Exists with
    `noreplace`; IsADirectory, NotADirectory and NotEmpty where the target cannot be replaced by it.
    """
    moved = _at(txn, source)
    if moved is None:
        raise NotFound
    records.get_directory(txn, target.parent)
    replaced = _at(txn, target)
    if replaced is not None and noreplace:
        raise Exists
    if moved.is_dir and is_within(txn, target.parent, moved.ino):
        raise InvalidArgument("a directory cannot be moved below itself")
    if replaced is not None:
        if replaced.ino == moved.ino:
            return moved
        _make_room(txn, target, moved, replaced, now_ns)
    _move(txn, moved, source, target, now_ns)
    records.delete_dentry(txn, *source)
    return records.get_attr(txn, moved.ino)


def exchange(txn: Txn, one: Name, other: Name, now_ns: int) -> None:
    """Swap two entries in one step (RENAME_EXCHANGE). Raises NotFound, InvalidArgument."""
    first, second = _at(txn, one), _at(txn, other)
    if first is None or second is None:
        raise NotFound
    for attr, place in ((first, other), (second, one)):
        if attr.is_dir and is_within(txn, place.parent, attr.ino):
            raise InvalidArgument("a directory cannot be moved below itself")
    if first.ino != second.ino:
        _move(txn, first, one, other, now_ns)
        _move(txn, second, other, one, now_ns)


def _at(txn: Txn, place: Name) -> Attr | None:
    if not place.name:
        raise InvalidArgument("the root and '..' cannot be renamed")
    dentry = records.get_dentry(txn, place.parent, place.name)
    return records.named_attr(txn, dentry.ino) if dentry else None


def _make_room(txn: Txn, target: Name, moved: Attr, replaced: Attr, now_ns: int) -> None:
    if moved.is_dir:
        if not replaced.is_dir:
            raise NotADirectory
        if not records.is_empty(txn, replaced.ino):
            raise NotEmpty
        rmdir(txn, target.parent, target.name, now_ns)
    elif replaced.is_dir:
        raise IsADirectory
    else:
        unlink(txn, target.parent, target.name, now_ns)


def _move(txn: Txn, attr: Attr, source: Name, target: Name, now_ns: int) -> None:
    """Enter `attr` at `target` and account for its leaving `source`, whose entry stays as it is."""
    records.put_dentry(txn, target.parent, target.name, attr.ino, attr.type)
    links = int(attr.is_dir)
    touch_parent(txn, source.parent, now_ns, subdirectories=-links)
    touch_parent(txn, target.parent, now_ns, subdirectories=links)
    attr = records.get_attr(txn, attr.ino)
    parent = target.parent if attr.is_dir else attr.parent
    records.put_attr(txn, replace(attr, parent=parent, ctime_ns=now_ns))
