"""Files without a name: kept with all they have while they are open, freed with all of it after that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest

from dfslib.errors import NotFound
from dfslib.model import ROOT, BlockId, BlockRef, Extent, FileType, InodeId, NodeId
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import content, extents, keys, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.link import link
from dfslib.namenode.namespace.rename import Name, rename
from dfslib.namenode.namespace.unlink import detach, free_orphans, reap, unlink
from dfslib.namenode.namespace.xattr import set_xattr
from tests.interleaving import memory_engine

T = TypeVar("T")
BLOCK = BlockId(7)
FILE = NewInode(type=FileType.FILE, mode=0o644)


class Tree:
    """A root with the file `f` of 100 bytes, and its inode; what is run leaves a sound store."""

    def __init__(self) -> None:
        self.engine = memory_engine()
        self.run(lambda txn: make_root(txn, 1))
        self.ino = self.run(self._furnish)

    def _furnish(self, txn: Txn) -> InodeId:
        ino = create(txn, ROOT, b"f", FILE, 1).ino
        extents.add_block(txn, BlockRef(BLOCK, 100, 0, (NodeId("n"),)))
        content.replace_content(txn, ino, 100, [Extent(0, 100, BLOCK)], 2)
        set_xattr(txn, ino, b"user.x", b"1", 3)
        return ino

    def run(self, fn: Callable[[Txn], T]) -> T:
        result = asyncio.run(self.engine.transact(fn))
        assert self.engine.read(lambda txn: list(check(txn))) == []
        return result

    def free(self, *is_open: InodeId) -> int:
        return self.run(lambda txn: free_orphans(txn, 100, is_open))


def remove_all(txn: Txn) -> None:
    unlink(txn, ROOT, b"f", 9)


def create_and_unlink(txn: Txn, name: bytes) -> None:
    create(txn, ROOT, name, FILE, 1)
    unlink(txn, ROOT, name, 2)


def replace_by_another(txn: Txn) -> None:
    create(txn, ROOT, b"other", FILE, 8)
    rename(txn, Name(ROOT, b"other"), Name(ROOT, b"f"), 9)


def remove_the_tree(txn: Txn) -> None:
    below = create(txn, ROOT, b"d", NewInode(type=FileType.DIRECTORY, mode=0o755), 8).ino
    rename(txn, Name(ROOT, b"f"), Name(below, b"f"), 8)
    detach(txn, ROOT, b"d", 9)
    while reap(txn, 1, 9):
        pass


@pytest.mark.parametrize("remove", [remove_all, replace_by_another, remove_the_tree])
def test_an_open_file_is_kept_until_it_is_closed(remove: Callable[[Txn], None]) -> None:
    tree = Tree()
    tree.run(remove)
    assert tree.free(tree.ino) == 0
    attr = tree.engine.read(lambda txn: records.get_attr(txn, tree.ino))
    assert (attr.nlink, attr.size) == (0, 100)
    # It is written and read on as before.
    grown = tree.run(lambda txn: content.append_content(txn, tree.ino, [Extent(0, 50, BLOCK)], 10))
    assert grown.size == 150
    assert tree.free() == 1
    with pytest.raises(NotFound):
        tree.engine.read(lambda txn: records.get_attr(txn, tree.ino))
    assert tree.engine.read(lambda txn: txn.get(keys.garbage(BLOCK))) is not None


def test_one_name_of_two_makes_no_orphan() -> None:
    tree = Tree()
    tree.run(lambda txn: link(txn, tree.ino, ROOT, b"second", 4))
    tree.run(remove_all)
    assert tree.free() == 0
    assert tree.engine.read(lambda txn: records.get_attr(txn, tree.ino)).nlink == 1


def test_an_orphan_gets_no_new_name() -> None:
    tree = Tree()
    tree.run(remove_all)
    with pytest.raises(NotFound):
        tree.run(lambda txn: link(txn, tree.ino, ROOT, b"again", 4))


def test_orphans_are_freed_in_batches() -> None:
    tree = Tree()
    for number in range(5):
        tree.run(partial(create_and_unlink, name=b"%d" % number))
    assert [tree.run(lambda txn: free_orphans(txn, 2, ())) for _ in range(4)] == [2, 2, 1, 0]
