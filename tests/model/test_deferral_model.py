"""Deferred writes against plain byte arrays: whatever happens before, while and after they are moved to datanodes,
the files read as if there were no such thing, and the store's invariants hold."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from functools import partial

from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from dfslib.errors import NotEnoughDatanodes
from dfslib.model import ROOT, BlockId, BlockRef, Extent, FileType, InodeId, NodeId, Origin
from dfslib.namenode.blocks.deferral import Deferral
from dfslib.namenode.blocks.moving import Mover
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import content, extents, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.deferred import add_deferred, find_deferred, scan_deferred

FILES = 3
SPACE = 200
file = st.integers(0, FILES - 1)
offset = st.integers(0, SPACE)
data = st.binary(min_size=1, max_size=40)
CHANGE = st.one_of(
    st.tuples(st.just("defer"), file, offset, data),
    st.tuples(st.just("store"), file, offset, data),
    st.tuples(st.just("append"), file, st.just(0), data),
    st.tuples(st.just("truncate"), file, offset),
    st.tuples(st.just("punch"), file, offset, st.integers(0, 60)),
    st.tuples(st.just("copy"), file, file),
)
STEP = st.one_of(
    CHANGE,
    CHANGE,
    st.tuples(st.just("move"), st.lists(CHANGE, max_size=3)),
    st.tuples(st.just("settle"), file),
    st.tuples(st.just("datanodes away")),
)


class Datanodes:
    """In the place of BlockWriter: what is written can be read back, and others change files meanwhile."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.blocks: dict[BlockId, bytes] = {}
        self.meanwhile: list[tuple] = []  # type: ignore[type-arg]
        self.away = False

    def copies(self, replication: int) -> int:
        return 2

    def check_space(self, copies: int) -> None:
        if self.away:
            raise NotEnoughDatanodes("0 datanodes are alive")

    async def write(self, data: bytes, origins: Sequence[Origin], copies: int) -> BlockRef:
        self.check_space(copies)
        assert sum(origin.length for origin in origins) == len(data)
        meanwhile, self.meanwhile = self.meanwhile, []
        for change in meanwhile:
            await self._tree.change(*change)
        return self.store(data)

    def store(self, data: bytes) -> BlockRef:
        block = next(self._tree.numbers)
        self.blocks[block] = data
        return BlockRef(block, len(data), crc32c(data), (NodeId("a"), NodeId("b")))

    def release(self, block: BlockId, nodes: Sequence[NodeId], *, used: bool) -> None:
        assert used


class Tree:
    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.numbers = map(BlockId, itertools.count(1))
        self.datanodes = Datanodes(self)
        writer: object = self.datanodes
        self.deferral = Deferral(self.engine, writer, Mover(self.engine, writer), self.numbers.__next__)  # type: ignore[arg-type]
        self.inodes: list[InodeId] = []
        self.model = [bytearray() for _ in range(FILES)]
        self.now = 1

    async def begin(self) -> None:
        def fill(txn: Txn) -> None:
            make_root(txn, 1)
            for number in range(FILES):
                new = NewInode(type=FileType.FILE, mode=0o644)
                self.inodes.append(create(txn, ROOT, b"%d" % number, new, 1).ino)

        await self.engine.transact(fill)

    async def change(self, what: str, number: int, *rest: object) -> None:
        self.now += 1
        await self.engine.transact(partial(self._apply, what, number, *rest))

    def _apply(self, what: str, number: int, *rest: object) -> None:
        *rest, txn = rest
        ino, model = self.inodes[number], self.model[number]
        if what in ("defer", "append", "store"):
            at, data = rest
            block = self._enter(txn, ino, data, deferred=what != "store")
            at = len(model) if what == "append" else at
            content.write_content(txn, ino, at, [Extent(0, len(data), block)], self.now)
            model.extend(bytes(max(0, at - len(model))))
            model[at : at + len(data)] = data
        elif what == "truncate":
            content.truncate(txn, ino, rest[0], self.now)
            model[:] = model[: rest[0]] + bytes(max(0, rest[0] - len(model)))
        elif what == "punch":
            start, end = rest[0], min(rest[0] + rest[1], len(model))
            content.punch(txn, ino, start, rest[0] + rest[1], self.now)
            if start < end:
                model[start:end] = bytes(end - start)
        elif rest[0] != number:
            content.share_content(txn, ino, self.inodes[rest[0]], self.now)
            self.model[rest[0]][:] = model

    def _enter(self, txn: Txn, ino: InodeId, data: bytes, *, deferred: bool) -> BlockId:
        if deferred and not self.datanodes.away and self.deferral.admit(ino, len(data), 2):
            block = next(self.numbers)
            add_deferred(txn, block, data)
            return block
        ref = self.datanodes.store(data)
        extents.add_block(txn, ref)
        return ref.block

    def extents(self, ino: InodeId) -> list[Extent]:
        return self.engine.read(lambda txn: content.read_extents(txn, ino))

    def deferred_blocks(self, ino: InodeId) -> list[BlockId]:
        deferred = self.engine.read(lambda txn: dict(scan_deferred(txn)))
        return [extent.block for extent in self.extents(ino) if extent.block in deferred]

    def audit(self) -> None:
        def look(txn: Txn) -> None:
            assert list(check(txn)) == []
            for ino, model in zip(self.inodes, self.model, strict=True):
                assert records.get_attr(txn, ino).size == len(model)
                found = bytearray(len(model))
                for extent in content.read_extents(txn, ino):
                    bytes_ = find_deferred(txn, extent.block) or self.datanodes.blocks[extent.block]
                    found[extent.offset : extent.end] = bytes_[extent.block_offset :][: extent.length]
                assert found == model

        self.engine.read(look)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEP, max_size=15))
def test_files_read_as_if_nothing_were_deferred(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    async def run() -> None:
        tree = Tree()
        await tree.begin()
        for step in steps:
            tree.datanodes.away = step[0] == "datanodes away"
            if step[0] == "move":
                tree.datanodes.meanwhile = list(step[1])
                await tree.deferral.run_once()
                tree.datanodes.meanwhile = []
            elif step[0] == "settle":
                async with tree.deferral.none_of(tree.inodes[step[1]]):
                    assert not tree.deferred_blocks(tree.inodes[step[1]])
                    assert not tree.deferral.admit(tree.inodes[step[1]], 1, 2)
            elif tree.datanodes.away:
                await tree.deferral.run_once()
            else:
                await tree.change(*step)
            tree.audit()
        tree.datanodes.away = False
        await tree.deferral.run_once()
        tree.audit()
        assert tree.engine.read(lambda txn: list(scan_deferred(txn))) == []

    asyncio.run(run())


def test_bytes_that_follow_one_another_become_one_extent() -> None:
    async def run() -> None:
        tree = Tree()
        await tree.begin()
        for turn in range(20):
            await tree.change("append", turn % FILES, 0, b"%02d" % turn)
        await tree.deferral.run_once()
        tree.audit()
        for ino in tree.inodes:
            assert len(tree.extents(ino)) == 1

    asyncio.run(run())


def test_what_is_deferred_has_a_bound() -> None:
    async def run() -> None:
        tree = Tree()
        await tree.begin()
        await tree.deferral.run_once()
        admitted = 0
        while tree.deferral.admit(tree.inodes[0], 64 << 10, 2):
            admitted += 64 << 10
        assert admitted == 64 << 20
        assert not tree.deferral.admit(tree.inodes[0], (64 << 10) + 1, 2)

    asyncio.run(run())
