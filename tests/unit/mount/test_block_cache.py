"""The cache of blocks: what is read is right, fetched once, in few pieces and within bounds."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import InputOutput
from dfslib.model import BlockId
from dfslib.mount.block_cache import PAGE, UNIT, BlockCache
from tests.unit.mount.block_source import Source

SIZE = 5 * UNIT + 1234
BLOCKS = {BlockId(number): random.Random(number).randbytes(SIZE) for number in (1, 2)}
LIMIT = 6 * UNIT


async def read(cache: BlockCache, block: BlockId, start: int, end: int, grain: int) -> bytes:
    parts = []
    while start < end:
        piece = cache.find(block, start) or cache.start(block, start, end, (), grain)
        assert piece.start <= start < piece.start + piece.length
        stop = min(end, piece.start + piece.length)
        await piece.arrival()
        if piece.error is not None:
            raise piece.error
        assert piece.data is not None
        parts.append(bytes(piece.data[start - piece.start : stop - piece.start]))
        start = stop
    return b"".join(parts)


READS = st.lists(
    st.tuples(
        st.sampled_from(sorted(BLOCKS)),
        st.integers(0, SIZE - 1),
        st.one_of(st.integers(1, 3 * PAGE), st.integers(1, 3 * UNIT)),
        st.sampled_from((PAGE, UNIT)),
    ),
    max_size=30,
)


@given(READS)
def test_any_reads_get_the_bytes_of_the_block_and_nothing_is_kept_beyond_the_bound(
    reads: list[tuple[BlockId, int, int, int]],
) -> None:
    async def run() -> None:
        cache = BlockCache(LIMIT, Source(BLOCKS).begin)
        for block, start, size, grain in reads:
            end = min(start + size, SIZE)
            assert await read(cache, block, start, end, grain) == BLOCKS[block][start:end]
            assert cache.used_bytes <= LIMIT
        await cache.close()
        assert cache.used_bytes == 0

    asyncio.run(run())


def test_a_page_costs_a_page_and_a_neighbour_a_unit() -> None:
    async def run() -> None:
        source = Source(BLOCKS)
        cache = BlockCache(1 << 20, source.begin)
        one = BlockId(1)
        await read(cache, one, 3 * PAGE + 7, 3 * PAGE + 8, PAGE)
        await read(cache, one, 3 * PAGE, 4 * PAGE, PAGE)  # is here
        await read(cache, one, 2 * PAGE, 5 * PAGE, PAGE)  # is here in the middle
        await read(cache, one, 0, 1, UNIT)  # pages do not keep the unit from being fetched
        await read(cache, one, 0, UNIT, PAGE)
        await read(cache, one, UNIT - 1, UNIT + 1, PAGE)
        assert source.asked == [
            (one, 3 * PAGE, 4 * PAGE),
            (one, 2 * PAGE, 3 * PAGE),
            (one, 4 * PAGE, 5 * PAGE),
            (one, 0, UNIT),
            (one, UNIT, UNIT + PAGE),
        ]
        await cache.close()

    asyncio.run(run())


def test_a_lower_limit_holds_at_once_and_what_was_used_last_stays() -> None:
    async def run() -> None:
        cache = BlockCache(LIMIT, Source(BLOCKS).begin)
        one = BlockId(1)
        for number in range(4):
            await read(cache, one, number * UNIT, number * UNIT + 1, UNIT)
        cache.limit(2 * UNIT + PAGE)
        assert cache.used_bytes <= 2 * UNIT + PAGE
        assert [cache.find(one, number * UNIT) is not None for number in range(4)] == [False, False, True, True]
        cache.limit(LIMIT)
        assert await read(cache, one, 0, SIZE, UNIT) == BLOCKS[one]
        await cache.close()

    asyncio.run(run())


def test_many_readers_fetch_once_and_a_failure_is_not_kept() -> None:
    async def run() -> None:
        source = Source(BLOCKS)
        cache = BlockCache(1 << 20, source.begin)
        one = BlockId(1)
        source.error = InputOutput("not now")
        with pytest.raises(InputOutput):
            await read(cache, one, 0, 1, PAGE)
        assert cache.used_bytes == 0
        assert cache.find(one, 0) is None
        source.error = None
        found = await asyncio.gather(*(read(cache, one, 5, 10, PAGE) for _ in range(5)))
        assert found == [BLOCKS[one][5:10]] * 5
        assert source.asked == [(one, 0, PAGE)] * 2
        await cache.close()

    asyncio.run(run())


def test_who_waits_when_the_mount_ends_is_told_and_one_who_gave_up_disturbs_nobody() -> None:
    async def run() -> None:
        cache = BlockCache(1 << 20, Source(BLOCKS).begin)
        waiting, impatient = (asyncio.create_task(read(cache, BlockId(1), 0, 1, PAGE)) for _ in range(2))
        await asyncio.sleep(0)
        impatient.cancel()
        await cache.close()
        with pytest.raises(InputOutput):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await impatient
        assert cache.used_bytes == 0

    asyncio.run(run())
