"""Block ids grow and never repeat, whatever the clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.model import BlockId, format_block, parse_block
from dfslib.runtime.ids import BlockIds


@given(st.lists(st.integers(1_000_000, 2_000_000_000_000_000_000), min_size=1, max_size=50))
def test_ids_grow_even_when_the_clock_goes_back(times: list[int]) -> None:
    clock = iter(times)
    ids = BlockIds(lambda: next(clock))
    made = [ids() for _ in times]
    assert made == sorted(set(made))
    assert all(0 < block < 1 << 64 for block in made)


def test_ids_of_one_moment_differ() -> None:
    ids = BlockIds(lambda: 1_700_000_000_000_000_000)
    assert len({ids() for _ in range(10_000)}) == 10_000


def test_two_makers_with_the_same_clock_differ() -> None:
    """After a restart with the clock set back."""
    one, other = (BlockIds(lambda: 1_700_000_000_000_000_000) for _ in range(2))
    assert {one() for _ in range(3)} != {other() for _ in range(3)}


def test_time_stands_in_front() -> None:
    early = BlockIds(lambda: 1_700_000_000_000_000_000)()
    late = BlockIds(lambda: 1_700_000_000_001_000_000)()
    assert early < late
    assert early >> 20 == 1_700_000_000_000


@given(st.integers(0, (1 << 64) - 1).map(BlockId))
def test_ids_come_back_from_text(block: BlockId) -> None:
    assert len(format_block(block)) == 16
    assert parse_block(format_block(block)) == block


@pytest.mark.parametrize(
    "text", ["", "0", "0" * 15, "0" * 17, "A" * 16, "+" + "0" * 15, " " * 16, "0x" + "0" * 14, "g" * 16]
)
def test_other_text_is_no_block_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a block id"):
        parse_block(text)
