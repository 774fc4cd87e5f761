"""Deferred writes against plain byte arrays: whatever happens before, while and after they are moved to datanodes,
the files read as if there were no such thing, and the store's invariants hold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from dfslib.errors import NotEnoughDatanodes
from dfslib.model import ROOT, BlockId, BlockRef, Extent, FileType, InodeId, NodeId, Origin
from dfslib.namenode.blocks.deferral import Deferral
from dfslib.namenode.blocks.moving import Mover
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import content, extents, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.deferred import add_deferred, find_deferred, scan_deferred
from tests.interleaving import chance, memory_engine, run

FILES = 3
SPACE = 200


class Write(NamedTuple):
    """`offset` None: at the end of the file. Without `deferred`: to datanodes at once."""

    file: int
    offset: int | None
    data: bytes
    deferred: bool = True


class Truncate(NamedTuple):
    file: int
    size: int


class Punch(NamedTuple):
    file: int
    start: int
    length: int


class Copy(NamedTuple):
    file: int
    target: int


Change = Write | Truncate | Punch | Copy


class Move(NamedTuple):
    """To datanodes, while others make these changes."""

    meanwhile: list[Change]


class Settle(NamedTuple):
    file: int


class LoseDatanodes(NamedTuple):
    """They are away when deferred writes are to be moved."""


Step = Change | Move | Settle | LoseDatanodes

file = st.integers(0, FILES - 1)
offset = st.integers(0, SPACE)
data = st.binary(min_size=1, max_size=40)
CHANGE: st.SearchStrategy[Change] = st.one_of(
    st.builds(Write, file, offset, data),
    st.builds(Write, file, offset, data, st.just(False)),
    st.builds(Write, file, st.none(), data),
    st.builds(Truncate, file, offset),
    st.builds(Punch, file, offset, st.integers(0, 60)),
    st.builds(Copy, file, file),
)
STEP: st.SearchStrategy[Step] = st.one_of(
    CHANGE,
    CHANGE,
    st.builds(Move, st.lists(CHANGE, max_size=3)),
    st.builds(Settle, file),
    st.builds(LoseDatanodes),
)


class Datanodes:
    """In the place of BlockWriter: what is written can be read back, and others change files meanwhile."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.blocks: dict[BlockId, bytes] = {}
        self.meanwhile: list[Change] = []
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
            await self._tree.change(change)
        return self.store(data)

    def store(self, data: bytes) -> BlockRef:
        block = next(self._tree.numbers)
        self.blocks[block] = data
        return BlockRef(block, len(data), crc32c(data), (NodeId("a"), NodeId("b")))

    def release(self, block: BlockId, nodes: Sequence[NodeId], *, used: bool) -> None:
        assert used


class Tree:
    def __init__(self, engine: MemoryEngine | None = None) -> None:
        self.engine = engine or memory_engine()
        self.numbers = map(BlockId, itertools.count(1))
        self.datanodes = Datanodes(self)
        mover = Mover(self.engine, self.datanodes)
        self.deferral = Deferral(self.engine, self.datanodes, mover, self.numbers.__next__)
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

    async def change(self, change: Change) -> None:
        self.now += 1
        match change:
            case Write():
                await self._write(change)
            case _:
                await self.engine.transact(lambda txn: self._apply(txn, change))

    async def _write(self, write: Write) -> None:
        ino, data = self.inodes[write.file], write.data
        admission = None
        if write.deferred and not self.datanodes.away:
            admission = self.deferral.admit(ino, len(data), 2)
        ref = None if admission is not None else self.datanodes.store(data)
        block = next(self.numbers) if ref is None else ref.block

        def commit(txn: Txn) -> None:
            if ref is None:
                add_deferred(txn, block, data)
            else:
                extents.add_block(txn, ref)
            model = self.model[write.file]
            at = len(model) if write.offset is None else write.offset
            content.write_content(txn, ino, at, [Extent(0, len(data), block)], self.now)
            model.extend(bytes(max(0, at - len(model))))
            model[at : at + len(data)] = data

        with admission or contextlib.nullcontext():
            await self.engine.transact(commit)

    def _apply(self, txn: Txn, change: Truncate | Punch | Copy) -> None:
        ino, model = self.inodes[change.file], self.model[change.file]
        match change:
            case Truncate(_, size):
                content.truncate(txn, ino, size, self.now)
                model[:] = model[:size] + bytes(max(0, size - len(model)))
            case Punch(_, start, length):
                content.punch(txn, ino, start, start + length, self.now)
                end = min(start + length, len(model))
                if start < end:
                    model[start:end] = bytes(end - start)
            case Copy(source, target):
                if target != source:
                    content.share_content(txn, ino, self.inodes[target], self.now)
                    self.model[target][:] = model

    def extents(self, ino: InodeId) -> list[Extent]:
        return self.engine.read(lambda txn: content.read_extents(txn, ino))

    def deferred_blocks(self, ino: InodeId) -> list[BlockId]:
        deferred = self.engine.read(lambda txn: dict(scan_deferred(txn)))
        return [extent.block for extent in self.extents(ino) if extent.block in deferred]

    def audit(self) -> None:
        def look(txn: ReadTxn) -> None:
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
def test_files_read_as_if_nothing_were_deferred(steps: list[Step]) -> None:
    async def whole() -> None:
        tree = Tree()
        await tree.begin()
        for step in steps:
            tree.datanodes.away = isinstance(step, LoseDatanodes)
            match step:
                case Move(meanwhile):
                    tree.datanodes.meanwhile = list(meanwhile)
                    await tree.deferral.run_once()
                    tree.datanodes.meanwhile = []
                case Settle(number):
                    async with tree.deferral.none_of(tree.inodes[number]):
                        assert not tree.deferred_blocks(tree.inodes[number])
                        assert tree.deferral.admit(tree.inodes[number], 1, 2) is None
                case LoseDatanodes():
                    await tree.deferral.run_once()
                case _:
                    await tree.change(step)
            tree.audit()
        tree.datanodes.away = False
        await tree.deferral.run_once()
        tree.audit()
        assert tree.engine.read(lambda txn: list(scan_deferred(txn))) == []

    run(whole())


def test_bytes_that_follow_one_another_become_one_extent() -> None:
    async def whole() -> None:
        tree = Tree()
        await tree.begin()
        for turn in range(20):
            await tree.change(Write(turn % FILES, None, b"%02d" % turn))
        await tree.deferral.run_once()
        tree.audit()
        for ino in tree.inodes:
            assert len(tree.extents(ino)) == 1

    run(whole())


def test_what_is_deferred_has_a_bound() -> None:
    async def whole() -> None:
        tree = Tree()
        await tree.begin()
        await tree.deferral.run_once()
        admitted = 0
        while tree.deferral.admit(tree.inodes[0], 64 << 10, 2) is not None:
            admitted += 64 << 10
        assert admitted == 64 << 20
        assert tree.deferral.admit(tree.inodes[0], (64 << 10) + 1, 2) is None

    run(whole())


def test_no_count_takes_back_what_is_admitted_while_it_is_under_way() -> None:
    """Whatever is deferred in the end is brought away, and then nothing is thought to be left."""
    random = chance()
    for _ in range(100):
        run(count_and_admit(random.randrange(1 << 32)))


async def count_and_admit(seed: int) -> None:
    random = Random(seed)
    tree = Tree(MemoryEngine(random))
    await tree.begin()

    async def write(number: int) -> None:
        for _ in range(random.randrange(5)):
            for _ in range(random.randrange(8)):
                await asyncio.sleep(0)
            await tree.change(Write(number, None, b"same"))

    async def count() -> None:
        for _ in range(random.randrange(4)):
            await tree.deferral.run_once()
            async with tree.deferral.none_of(tree.inodes[0]):
                assert not tree.deferred_blocks(tree.inodes[0])

    async with asyncio.TaskGroup() as group:
        for number in range(FILES):
            group.create_task(write(number))
            group.create_task(count())
    await tree.deferral.run_once()
    tree.audit()
    assert tree.engine.read(lambda txn: list(scan_deferred(txn))) == [], f"seed {seed}"
