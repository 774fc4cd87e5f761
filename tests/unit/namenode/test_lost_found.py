"""Blocks that the metadata lacks become files by what their headers tell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from dfslib.model import BlockId, BlockRef, Extent, InodeId, NodeId, Origin
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import content, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import make_root
from dfslib.namenode.namespace.lookup import Path, find
from dfslib.namenode.namespace.lost_found import LOST_FOUND, FoundBlock, adopt
from tests.interleaving import memory_engine

NODE, OTHER = NodeId("n"), NodeId("m")


class Tree:
    def __init__(self) -> None:
        self.engine = memory_engine()
        asyncio.run(self.engine.transact(lambda txn: make_root(txn, 1)))

    def adopt(self, block: int, size: int, origins: Sequence[Origin], *nodes: NodeId) -> bool:
        found = FoundBlock(BlockRef(BlockId(block), size, 7, nodes or (NODE,)), origins)

        def run(txn: Txn) -> bool:
            return adopt(txn, found, 5)

        adopted = asyncio.run(self.engine.transact(run))
        assert self.engine.read(lambda txn: list(check(txn))) == []
        return adopted

    def extents(self, path: bytes) -> list[Extent]:
        names = [LOST_FOUND, *path.split(b"/")]
        return self.engine.read(lambda txn: content.read_extents(txn, find(txn, Path(names)).ino))


def origin(path: bytes, offset: int, length: int, block_offset: int = 0, ino: int = 0) -> Origin:
    return Origin(path, InodeId(ino), offset, length, block_offset)


def test_the_pieces_of_a_file_come_together() -> None:
    tree = Tree()
    assert tree.adopt(2, 50, [origin(b"/home/a", 100, 1000)])
    assert tree.adopt(1, 100, [origin(b"/home/a", 0, 100)])
    assert tree.extents(b"home/a") == [Extent(0, 100, BlockId(1)), Extent(100, 50, BlockId(2))]


def test_a_file_written_twice_becomes_two() -> None:
    tree = Tree()
    tree.adopt(1, 10, [origin(b"/a", 0, 10)])
    tree.adopt(2, 10, [origin(b"/a", 0, 10)])
    assert tree.extents(b"a") == [Extent(0, 10, BlockId(1))]
    assert tree.extents(b"a (2)") == [Extent(0, 10, BlockId(2))]


def test_a_pack_becomes_all_its_files() -> None:
    tree = Tree()
    tree.adopt(1, 30, [origin(b"/a", 0, 10), origin(b"/b/c", 0, 20, 10)])
    assert tree.extents(b"a") == [Extent(0, 10, BlockId(1), 0)]
    assert tree.extents(b"b/c") == [Extent(0, 20, BlockId(1), 10)]


def test_a_block_that_another_datanode_has_too_is_adopted_once() -> None:
    tree = Tree()
    assert tree.adopt(1, 10, [origin(b"/a", 0, 10)])
    assert not tree.adopt(1, 10, [origin(b"/a", 0, 10)], OTHER, NODE)
    record = tree.engine.read(lambda txn: records.find_block(txn, BlockId(1)))
    assert record is not None
    assert record.nodes == (NODE, OTHER)
    assert len(tree.extents(b"a")) == 1


def test_a_block_that_tells_nothing_becomes_a_file_of_its_own() -> None:
    tree = Tree()
    tree.adopt(0x1234, 10, [])
    assert tree.extents(b"block-0000000000001234") == [Extent(0, 10, BlockId(0x1234))]
    tree.adopt(2, 10, [origin(b"", 0, 10, ino=77)])
    assert tree.extents(b"inode-77") == [Extent(0, 10, BlockId(2))]


def test_a_file_in_the_way_of_a_directory() -> None:
    tree = Tree()
    tree.adopt(1, 10, [origin(b"/a", 0, 10)])
    tree.adopt(2, 10, [origin(b"/a/b", 0, 10)])
    assert tree.extents(b"a (2)/b") == [Extent(0, 10, BlockId(2))]


ORIGINS = st.builds(
    origin,
    st.sampled_from([b"/a", b"/a/b", b"/../x", b"", b"/" + b"n" * 300, b"//"]),
    st.integers(-5, 40),
    st.integers(-5, 60),
    st.integers(-5, 40),
    st.integers(0, 3),
)


@given(st.lists(st.tuples(st.integers(1, 6), st.lists(ORIGINS, max_size=3)), max_size=12))
def test_whatever_headers_tell_the_metadata_stays_sound(blocks: list[tuple[int, list[Origin]]]) -> None:
    tree = Tree()
    for block, origins in blocks:
        tree.adopt(block, 30, origins)
    found = {block for block, _ in tree.engine.read(lambda txn: list(records.scan_blocks(txn)))}
    assert found == {block for block, _ in blocks}
    live = tree.engine.read(lambda txn: [record.live for _, record in records.scan_blocks(txn)])
    assert all(live)
