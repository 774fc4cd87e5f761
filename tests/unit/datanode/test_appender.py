"""Appending past the page cache and through it comes to the same file."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from dfslib.datanode.store.appender import Appender

MIB = 1 << 20


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 5 * MIB + 4097])
@pytest.mark.parametrize("announced", [0, 4 * MIB], ids=["cached", "direct"])
@pytest.mark.parametrize("seed", [1, 2])
def test_pieces_of_any_length(tmp_path: Path, size: int, announced: int, seed: int) -> None:
    numbers = random.Random(seed)
    data = numbers.randbytes(size)
    path = tmp_path / "file"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        appender = Appender(fd, announced)
        at = 0
        while at < size:
            pieces = []
            for _ in range(numbers.randint(1, 5)):
                length = numbers.choice([1, 4095, 65536, 262_144, 2 * MIB])
                pieces.append(memoryview(data)[at : at + length])
                at += length
            appender.append(pieces)
        assert appender.size == size
        appender.finish()
        appender.append([b"footer"])
        assert appender.size == size + len(b"footer")
    finally:
        os.close(fd)
    assert path.read_bytes() == data + b"footer"


def test_a_file_system_without_direct_writes(tmp_path: Path) -> None:
    """Where the first direct write is refused, everything goes through the page cache."""
    data = random.Random(3).randbytes(2 * MIB + 5)
    path = tmp_path / "file"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        appender = Appender(fd, 8 * MIB)
        os.lseek(fd, 512 - 1, os.SEEK_SET)  # no direct write can start here: the disk answers EINVAL
        appender.append([data])
        appender.finish()
        assert appender.size == len(data)
    finally:
        os.close(fd)
    assert path.read_bytes()[511:] == data
