"""One range of bytes (RFC 9110, 14.2) is a slice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfslib.errors import RangeNotSatisfiable
from dfslib.wire.ranges import parse_range

SIZE = st.integers(0, 60)


@given(SIZE, st.integers(0, 80), st.integers(0, 80))
def test_first_and_last_are_a_slice(size: int, first: int, last: int) -> None:
    body = bytes(range(size))
    if last < first or first >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_range(f"bytes={first}-{last}", size)
        return
    found = parse_range(f"bytes={first}-{last}", size)
    assert found
    assert body[slice(*found)] == body[first : last + 1]


@given(SIZE, st.integers(0, 80))
def test_an_open_end_and_a_suffix_are_slices(size: int, number: int) -> None:
    body = bytes(range(size))
    for header, expected in (
        (f"bytes={number}-", body[number:]),
        (f"bytes=-{number}", body[-number:] if number else b""),
    ):
        if not expected:
            with pytest.raises(RangeNotSatisfiable):
                parse_range(header, size)
            continue
        found = parse_range(header, size)
        assert found
        assert body[slice(*found)] == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-499", (0, 500)),
        ("bytes=500-999", (500, 1000)),
        ("bytes=-500", (9500, 10000)),
        ("bytes=9500-", (9500, 10000)),
        ("bytes=0-0", (0, 1)),
        ("bytes=-1", (9999, 10000)),
        ("bytes=0-99999999999", (0, 10000)),
        ("bytes=-99999999999", (0, 10000)),
        (" Bytes = 1 - 2 ", (1, 3)),
    ],
)
def test_the_examples_of_the_rfc(header: str, expected: tuple[int, int]) -> None:
    assert parse_range(header, 10000) == expected


@pytest.mark.parametrize("header", [None, "", "lines=1-2", "items=0-", "bytes=0-0,-1", "bytes=0-1, 5-6", "0-5"])
def test_what_is_not_for_us_means_the_whole(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize(
    "header",
    [
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=--1",
        "bytes=-1-",
        "bytes=-5-10",
        "bytes=5-4",
        "bytes=100-",
        "bytes=1.5-3",
        "bytes=0x1-2",
        "bytes=\u0661-\u0662",
        "bytes=" + "9" * 20 + "-",
        "bytes=0-" + "9" * 5000,
        "bytes=-0",
    ],
)
def test_what_makes_no_sense_is_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 100)
