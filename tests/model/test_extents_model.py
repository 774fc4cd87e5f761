"""Extents against a list of intervals and, near the borders of chunks, against single bytes."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from dfslib.model import BLOCK_SIZE, BlockId, BlockRef, Extent, InodeId, NodeId
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import extents, keys, records
from tests.interleaving import memory_engine

MANY = settings(max_examples=300, deadline=None, print_blob=True)
SPACE = 64
"""Bytes of the small file that is compared byte by byte."""

Byte = tuple[int, int]
"""A block and an offset in it."""

SMALL = st.builds(
    Extent, st.integers(0, SPACE - 1), st.integers(1, 20), st.integers(1, 5).map(BlockId), st.integers(0, 100)
)
NEAR_BORDERS = st.builds(
    lambda border, by: max(0, border * BLOCK_SIZE + by), st.integers(0, 3), st.integers(-3, 3)
)  # fmt: skip


def bytes_of(chunk: list[Extent]) -> dict[int, Byte]:
    laid: dict[int, Byte] = {}
    for extent in chunk:
        for index in range(extent.length):
            assert extent.offset + index not in laid, "two extents lie on one another"
            laid[extent.offset + index] = (extent.block, extent.block_offset + index)
    return laid


def assert_sorted(chunk: list[Extent]) -> None:
    assert all(extent.length > 0 for extent in chunk)
    assert all(one.end <= other.offset for one, other in pairwise(chunk))


@MANY
@given(
    st.lists(
        st.one_of(SMALL, st.tuples(st.integers(0, SPACE), st.integers(0, SPACE)).map(lambda ends: tuple(sorted(ends)))),
        max_size=20,
    )
)
def test_laying_and_cutting_are_as_in_a_file(operations: list[Extent | tuple[int, int]]) -> None:
    chunk: list[Extent] = []
    model: dict[int, Byte] = {}
    for operation in operations:
        if isinstance(operation, Extent):
            chunk = extents.lay(chunk, operation)
            model |= bytes_of([operation])
        else:
            start, end = operation
            chunk = extents.cut(chunk, start, end)
            model = {offset: byte for offset, byte in model.items() if not start <= offset < end}
        assert_sorted(chunk)
        assert bytes_of(chunk) == model
        assert extents.allocated(chunk) == len(model)


@MANY
@given(NEAR_BORDERS, NEAR_BORDERS, st.integers(0, 1000))
def test_an_extent_in_chunks_is_the_same_bytes(one: int, other: int, block_offset: int) -> None:
    whole = Extent(min(one, other), abs(one - other), BlockId(1), block_offset)
    parts = list(extents.by_chunk(whole))
    assert sum(part.length for _, part in parts) == whole.length
    reached = whole.offset
    for index, part in parts:
        assert part.length > 0
        assert part.offset == reached
        assert index * BLOCK_SIZE <= part.offset < part.end <= (index + 1) * BLOCK_SIZE
        assert part.block_offset - block_offset == part.offset - whole.offset
        reached = part.end
    assert reached == whole.end
    assert len({index for index, _ in parts}) == len(parts)


BLOCK_BYTES = 30
PLACED = st.builds(
    lambda chunk, offset, length, block, block_offset: (
        chunk,
        Extent(chunk * BLOCK_SIZE + offset, min(length, BLOCK_BYTES - block_offset), BlockId(block), block_offset),
    ),
    st.integers(0, 2),
    st.integers(0, SPACE),
    st.integers(1, 20),
    st.integers(1, 3),
    st.integers(0, BLOCK_BYTES - 1),
)


@MANY
@given(st.lists(st.tuples(st.integers(1, 2), st.one_of(PLACED, st.integers(0, 2))), max_size=15))
def test_the_accounts_of_blocks_are_true(steps: list[tuple[int, tuple[int, Extent] | int]]) -> None:
    """Extents are laid into two files' chunks, chunks are emptied; blocks know what of them is used."""
    engine = memory_engine()
    files: dict[tuple[int, int], dict[int, Byte]] = {}
    now = 1000

    def step(txn: Txn, ino: InodeId, what: tuple[int, Extent] | int) -> None:
        index = what if isinstance(what, int) else what[0]
        old = records.get_chunk(txn, ino, index)
        model = files.setdefault((ino, index), {})
        before = len(model)
        if isinstance(what, int):
            new, model = [], {}
        else:
            extents.add_block(txn, BlockRef(what[1].block, BLOCK_BYTES, 0, (NodeId("n"),)))
            new = extents.lay(old, what[1])
            model = model | bytes_of([what[1]])
        grown = extents.store_chunk(txn, ino, index, old, new)
        assert grown == len(model) - before
        assert records.get_chunk(txn, ino, index) == new
        files[ino, index] = model

    def audit(txn: Txn) -> None:
        for block, record in records.scan_blocks(txn):
            used = {place: sum(b == block for b, _ in model.values()) for place, model in files.items()}
            live = sum(used.values())
            assert record.live == live
            assert list(records.scan_references(txn, block)) == sorted(place for place, count in used.items() if count)
            assert (txn.get(keys.garbage(block)) is not None) == (live == 0)
            assert (txn.get(keys.sparse(block)) is not None) == (0 < live < BLOCK_BYTES / 2)
        chunks = {(ino, index) for ino in (1, 2) for index, _ in records.scan_chunks(txn, InodeId(ino))}
        assert chunks == {place for place, model in files.items() if model}

    async def run() -> None:
        nonlocal now
        for number, what in steps:
            await engine.transact(partial(step, ino=InodeId(number), what=what))
            await engine.transact(audit)
            now += 1

    asyncio.run(run())


ACROSS = st.builds(
    Extent,
    st.builds(lambda border, by: max(0, border * BLOCK_SIZE + by), st.integers(0, 2), st.integers(-20, 20)),
    st.integers(1, 40),
    st.integers(1, 3).map(BlockId),
    st.integers(0, 30),
)


@MANY
@given(st.lists(ACROSS, max_size=12))
def test_what_lies_across_the_borders_of_chunks_is_as_in_a_file(laid: list[Extent]) -> None:
    """Through by_chunk, lay and store_chunk, as content is written; no byte is lost or twice at a border."""
    engine, ino = memory_engine(), InodeId(2)
    model: dict[int, Byte] = {}

    def write(txn: Txn, extent: Extent) -> int:
        extents.add_block(txn, BlockRef(extent.block, 100, 0, (NodeId("n"),)))
        grown = 0
        for index, part in extents.by_chunk(extent):
            old = records.get_chunk(txn, ino, index)
            grown += extents.store_chunk(txn, ino, index, old, extents.lay(old, part))
        return grown

    def audit(txn: Txn) -> None:
        chunks = list(records.scan_chunks(txn, ino))
        for index, chunk in chunks:
            assert_sorted(chunk)
            assert index * BLOCK_SIZE <= chunk[0].offset
            assert chunk[-1].end <= (index + 1) * BLOCK_SIZE
        assert bytes_of([extent for _, chunk in chunks for extent in chunk]) == model
        for block, record in records.scan_blocks(txn):
            using = [offset for offset, byte in model.items() if byte[0] == block]
            assert record.live == len(using)
            assert {index for _, index in records.scan_references(txn, block)} == {keys.chunk_of(at) for at in using}

    async def run() -> None:
        nonlocal model
        for extent in laid:
            before = len(model)
            model = model | bytes_of([extent])
            assert await engine.transact(partial(write, extent=extent)) == len(model) - before
            await engine.transact(audit)

    asyncio.run(run())


def test_a_block_that_is_known_stays_as_it_is() -> None:
    engine = memory_engine()

    def fn(txn: Txn) -> None:
        block = BlockId(7)
        extents.add_block(txn, BlockRef(block, 10, 1, (NodeId("a"),)))
        extents.store_chunk(txn, InodeId(2), 0, [], [Extent(0, 10, block)])
        extents.add_block(txn, BlockRef(block, 99, 2, (NodeId("b"),)))
        assert records.find_block(txn, block) == records.BlockRecord(10, 1, 10, (NodeId("a"),))
        assert txn.get(keys.garbage(block)) is None

    asyncio.run(engine.transact(fn))
