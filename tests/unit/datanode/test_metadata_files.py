"""Copies of the namenode's metadata: whole or absent, right or refused, over real files."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from crc32c import crc32c

from dfslib.datanode.store.metadata_files import PIECE_BYTES, MetadataFile, MetadataFiles, MetadataWriter
from dfslib.errors import ChecksumMismatch, InputOutput, InvalidArgument, NoSpace, NotFound


def no_limit(_: int) -> None:
    """There is always room."""


def put(files: MetadataFiles, name: str, data: bytes) -> bool:
    writer = MetadataWriter(files, name, crc32c(data), len(data))
    writer.write([data[:10], data[10:]])
    described, created = writer.finish()
    assert described == MetadataFile(name, len(data), crc32c(data))
    return created


def get(files: MetadataFiles, name: str) -> bytes:
    with files.opened(name) as opened:
        return b"".join(opened.pieces())


@pytest.fixture
def files(volume_root: Path) -> MetadataFiles:
    return MetadataFiles(volume_root, no_limit)


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1, (5 << 20) + 77])
def test_what_goes_in_comes_out(files: MetadataFiles, volume_root: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert put(files, "a.b-c", data)
    again = MetadataFiles(volume_root, no_limit)
    assert again.all() == [MetadataFile("a.b-c", size, crc32c(data))]
    assert get(again, "a.b-c") == data
    with again.opened("a.b-c") as opened:
        opened.check()
    assert list((volume_root / "tmp").iterdir()) == []


def test_replacing_and_deleting(files: MetadataFiles) -> None:
    assert put(files, "b", b"old")
    assert put(files, "a", b"")
    with files.opened("b") as opened:
        assert not put(files, "b", b"newer")
        assert b"".join(opened.pieces()) == b"old"  # who has it open goes on with what it was
    assert [(file.name, file.size) for file in files.all()] == [("a", 0), ("b", 5)]
    assert get(files, "b") == b"newer"
    assert files.delete("b")
    assert not files.delete("b")
    with pytest.raises(NotFound):
        files.open("b")


@pytest.mark.parametrize("name", ["", ".a", "-a", "A", "a_b", "a/b", "../a", "ä", "a\n", "a" * 129])
def test_names_that_are_none(files: MetadataFiles, name: str) -> None:
    with pytest.raises(InvalidArgument):
        MetadataWriter(files, name, 0)
    with pytest.raises(InvalidArgument):
        files.open(name)
    with pytest.raises(InvalidArgument):
        files.delete(name)


def test_what_is_refused_leaves_what_was_there(volume_root: Path) -> None:
    room = [1 << 40]

    def require(size: int) -> None:
        if size > room[0]:
            raise NoSpace

    files = MetadataFiles(volume_root, require)
    put(files, "a" * 128, b"here")
    writer = MetadataWriter(files, "a" * 128, 1)
    writer.write([b"other"])
    with pytest.raises(ChecksumMismatch):
        writer.finish()
    writer = MetadataWriter(files, "a" * 128, 1)
    writer.write([b"other"])
    writer.abort()
    writer.write([b"late"])
    room[0] = 3
    with pytest.raises(NoSpace):
        MetadataWriter(files, "b", 1, 4)
    writer = MetadataWriter(files, "b", 1)
    with pytest.raises(NoSpace):
        writer.write([b"1234"])
    assert get(files, "a" * 128) == b"here"
    assert len(files.all()) == 1
    assert list((volume_root / "tmp").iterdir()) == []


def test_damage_at_every_byte_is_found_and_never_given_out(volume_root: Path) -> None:
    bad: list[str] = []
    files = MetadataFiles(volume_root, no_limit, on_bad=bad.append)
    data = b"some metadata"
    path = volume_root / "metadata" / "x"
    put(files, "x", data)
    whole = path.read_bytes()
    for at in range(len(whole)):
        before, after = whole[:at], whole[at + 1 :]
        for damaged in (before, before + bytes([whole[at] ^ 1]) + after, before + b"?" + whole[at:]):
            path.write_bytes(damaged)
            with pytest.raises(InputOutput):
                get(files, "x")
            assert not path.exists()
    assert len(bad) == 3 * len(whole) == len(list((volume_root / "quarantine").iterdir()))


def test_the_listing_leaves_out_what_cannot_be_right(files: MetadataFiles, volume_root: Path) -> None:
    put(files, "good", b"good")
    put(files, "short", b"short")
    folder = volume_root / "metadata"
    os.truncate(folder / "short", 20)
    (folder / "Notes.txt").write_text("mine")
    (folder / "link").symlink_to(folder / "good")
    assert [file.name for file in files.all()] == ["good"]
    assert sorted(path.name for path in folder.iterdir()) == ["Notes.txt", "good", "link"]


def test_the_good_file_that_took_the_place_is_spared(files: MetadataFiles, volume_root: Path) -> None:
    put(files, "x", b"first")
    path = volume_root / "metadata" / "x"
    with files.opened("x") as opened:
        with path.open("r+b") as file:
            file.write(b"F")
        put(files, "x", b"second")
        with pytest.raises(InputOutput):
            opened.check()
    assert get(files, "x") == b"second"
    assert list((volume_root / "quarantine").iterdir()) == []
