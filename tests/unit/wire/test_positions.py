"""Positions of the metadata: read as they are written, and sorted as time goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import InvalidArgument
from dfslib.wire.positions import Position, parse_position

POSITIONS = st.builds(
    Position,
    st.integers(0, 999_999),
    st.integers(0, 1 << 64),
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=16, max_size=16),
)


@given(POSITIONS, POSITIONS)
def test_they_are_read_as_they_are_written_and_sort(a: Position, b: Position) -> None:
    assert parse_position(str(a)) == a
    assert (str(a) < str(b)) == (a < b)


GOOD = str(Position(1, 2, b"\xaa" * 8, b"\xbb" * 16))


@pytest.mark.parametrize(
    "text", ["", "1", "x" * 1000, "0" + GOOD, GOOD.upper(), GOOD + "\n", GOOD.replace("2", "٢", 1)]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_position(text)
