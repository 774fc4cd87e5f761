"""The format of a block's file: whatever is cut off or flipped is noticed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from dfslib.datanode.store.block_file import (
    SLICE_BYTES,
    BadBlock,
    Checksums,
    Footer,
    decode_footer,
    encode_footer,
    slice_count,
)
from dfslib.datanode.store.open_block import OpenBlock
from dfslib.model import BlockId, InodeId, Origin
from tests.unit.datanode.fake_cluster import block_file_bytes

DATA = bytes(range(256)) * 2
WHOLE = block_file_bytes(7, DATA)


def read_whole(path: Path) -> bytes:
    opened = OpenBlock(BlockId(7), path)
    try:
        return opened.read(0, opened.size)
    finally:
        opened.close()


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "block"
    path.write_bytes(WHOLE)
    assert read_whole(path) == DATA


def test_truncation_at_every_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "block"
    for length in range(len(WHOLE)):
        path.write_bytes(WHOLE[:length])
        with pytest.raises(BadBlock):
            read_whole(path)


def test_bytes_after_the_end_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "block"
    for more in (b"\0", WHOLE[-1:], WHOLE):
        path.write_bytes(WHOLE + more)
        with pytest.raises(BadBlock):
            read_whole(path)


def test_a_flip_of_every_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "block"
    for index in range(len(WHOLE)):
        for bit in range(8):
            changed = bytearray(WHOLE)
            changed[index] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(BadBlock):
                read_whole(path)


def test_another_blocks_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "block"
    path.write_bytes(block_file_bytes(8, DATA))
    with pytest.raises(BadBlock, match="0000000000000008"):
        read_whole(path)


def test_a_footer_longer_than_the_first_read(tmp_path: Path) -> None:
    sums = Checksums()
    sums.update(DATA)
    origins = [Origin(b"p" * 400, InodeId(n), n, 1) for n in range(100)]
    path = tmp_path / "block"
    path.write_bytes(DATA + encode_footer(sums.footer(BlockId(7), origins, 5)))
    opened = OpenBlock(BlockId(7), path)
    assert opened.footer.origins == origins
    assert opened.read(3, 5) == DATA[3:5]
    opened.close()


def test_decode_asks_for_as_much_as_it_needs() -> None:
    found = decode_footer(BlockId(7), WHOLE[-20:], len(WHOLE))
    assert isinstance(found, int)
    assert isinstance(decode_footer(BlockId(7), WHOLE[-found:], len(WHOLE)), Footer)


@given(st.lists(st.integers(0, 3 * SLICE_BYTES), max_size=6), st.integers(0, 1 << 32))
def test_checksums_do_not_depend_on_how_data_arrives(sizes: list[int], seed: int) -> None:
    data = random.Random(seed).randbytes(sum(sizes))
    sums = Checksums()
    position = 0
    for size in sizes:
        sums.update(memoryview(data)[position : position + size])
        position += size
    footer = sums.footer(BlockId(1), [], 0)
    assert (footer.size, footer.crc32c) == (len(data), crc32c(data))
    expected = [crc32c(data[at : at + SLICE_BYTES]) for at in range(0, len(data), SLICE_BYTES)]
    assert [footer.slice_sum(index) for index in range(slice_count(len(data)))] == expected
    assert len(footer.slices) == 4 * len(expected)
