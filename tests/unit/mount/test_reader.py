"""Reads that need no task: they give the bytes of the file, say what went wrong, or leave it to `read`."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import DfsError, InputOutput, NotFound, Unavailable
from dfslib.model import Attr, BlockId, Extent, FileType, InodeId
from dfslib.mount.block_cache import PAGE, BlockCache
from dfslib.mount.file import File, OpenFile
from dfslib.mount.filesystem import Buffer
from dfslib.mount.invalidations import Invalidations
from dfslib.mount.layout import Layout
from dfslib.mount.reader import Reader
from dfslib.mount.session import Session
from tests.unit.mount.block_source import Source

MIB = 1 << 20
BLOCK, PACKED, DEFERRED, SHORT = BlockId(1), BlockId(2), BlockId(3), BlockId(4)
BLOCKS = {BLOCK: random.Random(1).randbytes(4 * MIB), PACKED: random.Random(2).randbytes(MIB), SHORT: b"short"}
EXTENTS = [
    Extent(0, 4 * MIB, BLOCK),
    Extent(5 * MIB, 700_000, PACKED, 12_345),  # a hole before it
    Extent(6 * MIB, PAGE, DEFERRED),
    Extent(7 * MIB, PAGE, SHORT),
]
SIZE = 7 * MIB + PAGE
CONTENT = bytearray(SIZE)
for extent in EXTENTS[:2]:
    CONTENT[extent.offset : extent.end] = BLOCKS[extent.block][extent.block_offset :][: extent.length]


class Reading:
    def __init__(self) -> None:
        self.source = Source(BLOCKS)
        no_session = cast(Session, None)  # nothing here may ask the namenode
        cache = BlockCache(16 * MIB, self.source.begin)
        self.reader = Reader(no_session, Invalidations(), cache, 16 * MIB)
        self.handle = OpenFile(File(InodeId(5), Attr(InodeId(5), FileType.FILE, 0o644, size=SIZE)))
        self.file.layouts.learn_whole(Layout(EXTENTS, {}, {DEFERRED: b""}))

    @property
    def file(self) -> File:
        return self.handle.file

    async def read(self, offset: int, size: int, *, after: int = 1 << 40) -> Buffer | DfsError | bool | None:
        """What it came to; False where it was not begun. `after`: where the read before it ended."""
        self.handle.next_offset = after
        found: asyncio.Future[Buffer | DfsError | None] = asyncio.get_running_loop().create_future()
        if not self.reader.begin(self.handle, offset, size, found.set_result):
            assert not found.done()
            return False
        return await found


@given(st.lists(st.tuples(st.integers(0, SIZE + PAGE), st.integers(1, 3 * PAGE)), max_size=30))
def test_what_is_begun_gives_the_bytes(reads: list[tuple[int, int]]) -> None:
    async def all_of_them() -> None:
        reading = Reading()
        for offset, size in reads:
            found = await reading.read(offset, size)
            if offset < 7 * MIB and found is not False:
                assert isinstance(found, memoryview)
                assert found == CONTENT[offset : offset + size]

    asyncio.run(all_of_them())


def test_a_page_is_asked_for_once_and_its_second_reader_waits_with_the_first() -> None:
    async def two() -> None:
        reading = Reading()
        found = await asyncio.gather(reading.read(MIB, 100), reading.read(MIB + 500, 100))
        assert list(found) == [CONTENT[MIB : MIB + 100], CONTENT[MIB + 500 : MIB + 600]]
        assert await reading.read(MIB, PAGE) == CONTENT[MIB : MIB + PAGE]
        assert len(reading.source.asked) == 1

    asyncio.run(two())


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (MIB, PAGE + 1),  # two pages, neither here
        (4 * MIB - 10, 20),  # into the hole
        (4 * MIB + 10, 20),
        (6 * MIB, 10),  # the namenode has it
        (SIZE, 10),
    ],
)
def test_what_takes_more_is_not_begun(offset: int, size: int) -> None:
    async def one() -> None:
        reading = Reading()
        assert await reading.read(offset, size) is False
        assert reading.source.asked == []

    asyncio.run(one())


def test_reads_in_order_are_not_begun_and_no_read_of_what_is_not_known() -> None:
    async def one() -> None:
        reading = Reading()
        assert await reading.read(MIB, PAGE, after=MIB) is False
        reading.file.layouts.forget()
        assert await reading.read(3 * MIB, PAGE) is False

    asyncio.run(one())


def test_what_goes_wrong_is_told() -> None:
    async def each() -> None:
        reading = Reading()
        assert isinstance(await reading.read(7 * MIB, PAGE), InputOutput)  # the block ends before
        reading.source.error = Unavailable("away")
        assert isinstance(await reading.read(MIB, PAGE), Unavailable)
        reading.source.error = NotFound("somebody has written over it")
        assert await reading.read(MIB, PAGE) is None
        assert reading.file.layouts.find(MIB) is None

    asyncio.run(each())
