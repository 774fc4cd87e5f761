"""Several reads with one request: what is asked and answered, and what is neither."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import InputOutput, InvalidArgument
from dfslib.model import BlockId
from dfslib.wire.reads import (
    READ_BYTES_MAX,
    READS_MAX,
    BlockRange,
    answer_bytes,
    encode_answer,
    parse_reads,
    reads_url,
    split_answer,
)

RANGE = st.builds(
    lambda block, start, size: BlockRange(BlockId(block), start, start + size),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 1 << 26),
    st.integers(1, READ_BYTES_MAX // READS_MAX),
)
ONE = BlockRange(BlockId(1), 0, 3)


@given(st.lists(RANGE, min_size=1, max_size=READS_MAX))
def test_what_is_asked_is_understood(ranges: list[BlockRange]) -> None:
    path, _, text = reads_url(ranges).partition("?reads=")
    assert path == "/blocks"
    assert parse_reads(text.encode()) == ranges


@pytest.mark.parametrize(
    "text",
    [
        b"", b",", b"0000000000000001:0-1,", b"0000000000000001:1-1", b"0000000000000001:2-1", b"1:0-1",
        b"000000000000000G:0-1", b"0000000000000001:0-1 ", b"0000000000000001:-1-1", b"0000000000000001:0-99999999999",
        b",".join([b"0000000000000001:0-1"] * (READS_MAX + 1)), b"\xff",
        b"0000000000000001:0-%d,0000000000000001:0-1" % READ_BYTES_MAX,
    ],
)  # fmt: skip
def test_what_asks_for_nothing_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_reads(text)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.integers(0, 3))
def test_what_is_answered_is_taken_apart(found: list[bytes], longer: int) -> None:
    ranges = [BlockRange(BlockId(1), 0, len(one) + longer) for one in found]
    answer = bytearray(b"".join(encode_answer(found)))
    assert split_answer(answer, ranges) == found
    assert len(answer) <= answer_bytes(sum(one.size for one in ranges), len(ranges))


@pytest.mark.parametrize(
    "body", [b"", b"\3\0\0", b"\3\0\0\0ab", b"\3\0\0\0abcd", b"\4\0\0\0abcd", b"\xff\xff\xff\xffabc"]
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(InputOutput):
        split_answer(bytearray(body), [ONE])
