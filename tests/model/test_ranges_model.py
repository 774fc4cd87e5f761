"""Holes punched and ranges copied, around the border of two chunks, against files as dicts of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import DfsError, InvalidArgument
from dfslib.model import BLOCK_SIZE, ROOT, BlockId, BlockRef, Extent, FileType, InodeId, NodeId
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.namespace import content, extents, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import NewInode, create, make_root
from tests.interleaving import memory_engine

T = TypeVar("T")
BLOCK = BlockId(9)
BASE = BLOCK_SIZE - 20
"""Everything happens within 40 bytes, half of them in the next chunk."""
OFFSET = st.integers(0, 40)
STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 1), OFFSET, OFFSET, OFFSET),
    st.tuples(st.just("punch"), st.integers(0, 1), OFFSET, OFFSET, OFFSET),
    st.tuples(st.just("truncate"), st.integers(0, 1), OFFSET, OFFSET, OFFSET),
    st.tuples(st.just("copy"), st.integers(0, 1), OFFSET, OFFSET, OFFSET),
    st.tuples(st.just("copy within"), st.integers(0, 1), OFFSET, OFFSET, OFFSET),
)


class Model:
    """`bytes`: where each byte that is no hole lies in the block."""

    def __init__(self) -> None:
        self.size = 0
        self.bytes: dict[int, int] = {}

    def set(self, start: int, values: dict[int, int], end: int) -> None:
        for at in range(start, end):
            self.bytes.pop(at, None)
        self.bytes |= values


class Files:
    def __init__(self) -> None:
        self.engine = memory_engine()
        self.run(lambda txn: make_root(txn, 1))
        self.run(lambda txn: extents.add_block(txn, BlockRef(BLOCK, 100, 0, (NodeId("n"),))))
        new = NewInode(type=FileType.FILE, mode=0o644)
        self.inos = self.run(lambda txn: [create(txn, ROOT, name, new, 1).ino for name in (b"a", b"b")])
        self.models = [Model(), Model()]

    def run(self, fn: Callable[[Txn], T]) -> T:
        return asyncio.run(self.engine.transact(fn))

    def assert_like(self, ino: InodeId, model: Model) -> None:
        """The size, all of it, and parts read for themselves."""

        def look(txn: ReadTxn) -> None:
            assert records.get_attr(txn, ino).size == model.size
            assert expanded(content.read_extents(txn, ino)) == model.bytes
            for start in (BASE, BASE + 13, BASE + 25):
                part = expanded(content.read_range(txn, ino, start, start + 12))
                assert part == {at: place for at, place in model.bytes.items() if start <= at < start + 12}

        self.engine.read(look)


def expanded(found: list[Extent]) -> dict[int, int]:
    return {extent.offset + n: extent.block_offset + n for extent in found for n in range(extent.length)}


def step(files: Files, what: str, which: int, a: int, b: int, c: int) -> None:
    ino, model = files.inos[which], files.models[which]
    start, end = BASE + min(a, b), BASE + max(a, b)
    if what == "write":
        piece = Extent(0, end - start, BLOCK, c)
        files.run(lambda txn: content.write_content(txn, ino, start, [piece] if piece.length else [], 2))
        model.set(start, {start + n: c + n for n in range(end - start)}, end)
        model.size = max(model.size, end) if piece.length else model.size
    elif what == "punch":
        files.run(lambda txn: content.punch(txn, ino, start, end, 2))
        model.set(start, {}, end)
    elif what == "truncate":
        files.run(lambda txn: content.truncate(txn, ino, start, 2))
        model.set(start, {}, BASE + 100)
        model.size = start
    else:
        copied(files, which, which if what == "copy within" else 1 - which, content.Range(ino, start, end), BASE + c)


def copied(files: Files, which: int, to: int, source: content.Range, target_offset: int) -> None:
    origin, goal = files.models[which], files.models[to]
    end = min(source.end, origin.size)
    length = max(0, end - source.start)
    try:
        files.run(lambda txn: content.copy_range(txn, source, files.inos[to], target_offset, 2))
    except InvalidArgument:
        assert to == which and abs(target_offset - source.start) < length
        return
    assert to != which or abs(target_offset - source.start) >= length
    shift = target_offset - source.start
    values = {at + shift: place for at, place in origin.bytes.items() if source.start <= at < end}
    if length:
        goal.set(target_offset, values, target_offset + length)
        goal.size = max(goal.size, target_offset + length)


@given(st.lists(STEP, max_size=25))
def test_ranges_are_those_of_plain_bytes(steps: list[tuple[str, int, int, int, int]]) -> None:
    files = Files()
    for one in steps:
        step(files, *one)
        for ino, model in zip(files.inos, files.models, strict=True):
            files.assert_like(ino, model)
        assert files.engine.read(lambda txn: list(check(txn))) == []


def test_bad_ranges_change_nothing() -> None:
    files = Files()
    bad: list[Callable[[Txn], object]] = [
        lambda txn: content.punch(txn, files.inos[0], -1, 5, 2),
        lambda txn: content.punch(txn, files.inos[0], 5, 4, 2),
        lambda txn: content.punch(txn, ROOT, 0, 4, 2),
        lambda txn: content.copy_range(txn, content.Range(files.inos[0], -1, 4), files.inos[1], 0, 2),
        lambda txn: content.copy_range(txn, content.Range(files.inos[0], 0, 4), files.inos[1], -1, 2),
    ]
    for fn in bad:
        with pytest.raises(DfsError):
            files.run(fn)
