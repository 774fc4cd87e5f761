"""The format of a block's file: whatever is cut off or flipped is noticed."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from dfslib.datanode.store.block_check import BlockCheck, new_buffer
from dfslib.datanode.store.block_file import (
    SLICE_BYTES,
    BadBlock,
    Checksums,
    Footer,
    check_slices,
    decode_footer,
    encode_footer,
    likely_ending,
)
from dfslib.datanode.store.open_block import OpenBlock
from dfslib.model import BLOCK_SIZE, BlockId, InodeId, Origin
from tests.unit.datanode.fake_cluster import block_file_bytes

DATA = bytes(range(256)) * 2
WHOLE = block_file_bytes(7, DATA)

OLD_DATA = bytes(range(251)) * 700
"""Of a block in format 1: sums of slices of 64 KiB, each alone."""
OLD_ENDING = bytes.fromhex(
    "9607ce0002ae54ceb289cb11c40cdefcaa0dcd9e43f19c2dd7649195c4042f612f620300ce0002ae54000544"
    "4653626c6b0d0a010000002b000000e6021456"
)


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
    expected = [crc32c(data[: at + SLICE_BYTES]) for at in range(0, len(data), SLICE_BYTES)]
    assert [footer.slice_sum(index) for index in range(footer.slice_count(len(data)))] == expected
    assert len(footer.slices) == 4 * len(expected)


@given(st.integers(1, 9 * SLICE_BYTES), st.data())
def test_any_run_of_slices_is_checked_and_the_bad_one_named(size: int, draw: st.DataObject) -> None:
    data = bytearray(random.Random(size).randbytes(size))
    sums = Checksums()
    sums.update(data)
    footer = sums.footer(BlockId(1), [], 0)
    last = footer.slice_count(size)
    first = draw.draw(st.integers(0, last - 1))
    end = draw.draw(st.integers(first + 1, last))
    run = slice(first * SLICE_BYTES, end * SLICE_BYTES)
    check_slices(footer, run.start, memoryview(data)[run])
    at = draw.draw(st.integers(0, size - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    if run.start <= at < run.stop:
        with pytest.raises(BadBlock, match=f"the data at {at // SLICE_BYTES * SLICE_BYTES} "):
            check_slices(footer, run.start, memoryview(data)[run])
    else:
        check_slices(footer, run.start, memoryview(data)[run])


def test_a_file_of_the_format_before_is_read(tmp_path: Path) -> None:
    path = tmp_path / "block"
    path.write_bytes(OLD_DATA + OLD_ENDING)
    opened = OpenBlock(BlockId(7), path)
    assert opened.footer.origins == [Origin(b"/a/b", InodeId(3), 0, len(OLD_DATA))]
    for start, end in ((0, len(OLD_DATA)), (65_535, 65_537), (131_072, 131_073), (len(OLD_DATA) - 1, len(OLD_DATA))):
        assert opened.read(start, end) == OLD_DATA[start:end]
        assert opened.read_if_in_memory(start, end) in (None, OLD_DATA[start:end])
        opened.check(start, end)
    opened.close()
    buffer = new_buffer()
    check = BlockCheck(BlockId(7), path, buffer)
    assert check.next() == len(OLD_DATA)
    check.close()


def test_a_flip_in_a_file_of_the_format_before_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "block"
    for at in (0, 65_535, 65_536, 131_072, len(OLD_DATA) - 1):
        data = bytearray(OLD_DATA)
        data[at] ^= 1
        path.write_bytes(data + OLD_ENDING)
        with pytest.raises(BadBlock, match=f"the data at {at // 65_536 * 65_536} "):
            read_whole(path)


def test_the_footer_of_a_whole_block_is_read_at_once(tmp_path: Path) -> None:
    sums = Checksums()
    for _ in range(64):
        sums.update(bytes(BLOCK_SIZE // 64))
    ending = encode_footer(sums.footer(BlockId(7), [Origin(b"/a/b", InodeId(3), 0, BLOCK_SIZE)], 5))
    assert len(ending) <= likely_ending(BLOCK_SIZE + len(ending)) < 80 << 10
    path = tmp_path / "block"
    with path.open("wb") as file:
        file.truncate(BLOCK_SIZE)
        file.seek(BLOCK_SIZE)
        file.write(ending)
    opened = OpenBlock(BlockId(7), path)
    opened.check(BLOCK_SIZE - 1, BLOCK_SIZE)
    opened.close()
    buffer = new_buffer()
    check = BlockCheck(BlockId(7), path, buffer)
    while check.next():
        pass
    check.close()


def test_a_short_read_brings_no_more_into_memory_than_itself(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(1 << 20)
    path = tmp_path / "block"
    path.write_bytes(block_file_bytes(7, data))
    opened = OpenBlock(BlockId(7), path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if opened.read_if_in_memory(0, 1) is not None:
        pytest.skip("a file system in memory")
    pages = range(0, 40 * SLICE_BYTES, SLICE_BYTES)
    for start in pages:
        assert opened.read(start, start + SLICE_BYTES) == data[start : start + SLICE_BYTES]
    assert opened.read_if_in_memory(pages[-1], pages.stop) == data[pages[-1] : pages.stop]
    assert opened.read_if_in_memory(pages.stop, pages.stop + 1) is None
    assert opened.read(0, len(data)) == data
    opened.close()
