"""The address that a datanode gives to its peers where none is set."""

from __future__ import annotations

import asyncio

import pytest

from dfslib.datanode.own_address import own_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8180/", "127.0.0.1"),
        ("http://127.9.9.9/", "127.0.0.1"),  # not the peer's own
        ("http://localhost:8180/", "127.0.0.1"),
        ("http://[::1]:8180/", ""),
        ("http://no-such-host.invalid:8180/", ""),
    ],
)
def test_it_is_the_end_of_the_way_to_the_namenode(url: str, expected: str) -> None:
    assert asyncio.run(own_address(url)) == expected
