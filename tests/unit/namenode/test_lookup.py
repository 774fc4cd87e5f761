"""path_resolution(7), case by case."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from dfslib.errors import DfsError, Exists, NameTooLong, NotADirectory, NotFound, TooManySymlinks
from dfslib.model import ROOT, SYMLINKS_MAX, Attr, FileType, InodeId
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace.create import NewInode, create, make_directories, make_root
from dfslib.namenode.namespace.link import link
from dfslib.namenode.namespace.lookup import Path, find, nearest, resolve
from dfslib.namenode.namespace.unlink import detach, reap
from dfslib.wire.paths import split_path
from tests.interleaving import memory_engine

LINKS = {
    b"to-dir": b"dir",
    b"to-dir-slash": b"dir/",
    b"to-file": b"dir/file",
    b"to-file-slash": b"dir/file/",
    b"to-file-dot": b"dir/file/.",
    b"to-nothing": b"dir/nothing",
    b"to-nothing-slash": b"dir/nothing/",
    b"to-root": b"/",
    b"to-here": b".",
    b"above-root": b"../../../dir",
    b"absolute": b"/dir//./file",
    b"long-name": b"n" * 256,
    b"circle": b"circle",
    b"ping": b"pong",
    b"pong": b"/ping",
}


@pytest.fixture(scope="module")
def engine() -> MemoryEngine:
    engine = memory_engine()

    def furnish(txn: Txn) -> None:
        make_root(txn, 1)
        directory = make_directories(txn, [b"dir"], 1)
        create(txn, directory, b"file", NewInode(type=FileType.FILE, mode=0o644), 1)
        make_directories(txn, [b"dir", b"sub"], 1)
        for name, target in LINKS.items():
            symlink(txn, name, target)
        for number in range(SYMLINKS_MAX):
            symlink(txn, b"chain%d" % number, b"chain%d" % (number + 1))
        symlink(txn, b"chain%d" % SYMLINKS_MAX, b"dir")
        symlink(txn, b"chain-of-40", b"chain2")

    asyncio.run(engine.transact(furnish))
    return engine


def symlink(txn: Txn, name: bytes, target: bytes) -> None:
    create(txn, ROOT, name, NewInode(type=FileType.SYMLINK, mode=0o777, target=target), 1)


@pytest.mark.parametrize(
    ("path", "same_as"),
    [
        ("", "/"),
        ("..", "/"),
        ("../../dir", "/dir"),
        ("dir/..", "/"),
        ("dir/sub/../file", "/dir/file"),
        ("to-dir/sub", "/dir/sub"),
        ("to-dir/..", "/"),
        ("to-dir-slash", "/dir"),
        ("to-dir-slash/file", "/dir/file"),
        ("to-file", "/dir/file"),
        ("to-root", "/"),
        ("to-root/dir", "/dir"),
        ("to-here", "/"),
        ("to-here/to-here/dir", "/dir"),
        ("above-root", "/dir"),
        ("absolute", "/dir/file"),
        ("chain-of-40", "/dir"),
        ("chain1", "/dir"),
    ],
)
def test_where_a_path_leads(engine: MemoryEngine, path: str, same_as: str) -> None:
    def both(txn: ReadTxn) -> list[Attr]:
        return [find(txn, Path(*split_path(one))) for one in (path, same_as)]

    found, expected = engine.read(both)
    assert found == expected


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("nothing", NotFound),
        ("nothing/..", NotFound),
        ("dir/file/..", NotADirectory),
        ("dir/file/", NotADirectory),
        ("dir/file/x", NotADirectory),
        ("to-file/", NotADirectory),
        ("to-file/x", NotADirectory),
        ("to-file-slash", NotADirectory),
        ("to-file-dot", NotADirectory),
        ("to-nothing", NotFound),
        ("to-nothing/x", NotFound),
        ("to-nothing-slash", NotFound),
        ("long-name", NameTooLong),
        ("long-name/x", NameTooLong),
        ("circle", TooManySymlinks),
        ("ping/x", TooManySymlinks),
        ("chain0", TooManySymlinks),
    ],
)
def test_where_it_leads_nowhere(engine: MemoryEngine, path: str, error: type[DfsError]) -> None:
    with pytest.raises(error):
        engine.read(lambda txn: find(txn, Path(*split_path(path))))


@pytest.mark.parametrize("name", LINKS)
def test_a_last_link_is_itself_unless_followed(engine: MemoryEngine, name: bytes) -> None:
    assert engine.read(lambda txn: find(txn, Path([name]), follow=False)).target == LINKS[name]


def test_a_name_that_is_free_is_a_place(engine: MemoryEngine) -> None:
    directory = engine.read(lambda txn: find(txn, Path([b"dir"]))).ino
    for names in ([b"dir", b"nothing"], [b"to-dir", b"nothing"], [b"to-nothing"]):
        assert engine.read(partial(resolve, path=Path(names))) == (directory, b"nothing", None)
    with pytest.raises(NotFound):
        engine.read(lambda txn: resolve(txn, Path([b"to-nothing-slash"])))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        ([b"dir", b"x", b"y"], [b"dir"]),
        ([b"to-dir", b"sub", b"x"], [b"dir", b"sub"]),
        ([b"dir", b"file", b".."], [b"dir", b"file"]),
        ([b"dir", b"sub", b"..", b"x"], [b"dir"]),
        ([b"to-nothing", b"x"], []),
    ],
)
def test_nearest_is_the_last_that_exists(engine: MemoryEngine, names: list[bytes], expected: list[bytes]) -> None:
    assert engine.read(lambda txn: nearest(txn, names)) == engine.read(lambda txn: find(txn, Path(expected)))


def test_a_second_name_of_a_directory_over_one_that_exists_is_eexist(engine: MemoryEngine) -> None:
    def fn(txn: Txn) -> None:
        link(txn, find(txn, Path([b"dir"])).ino, ROOT, b"to-dir", 1)

    with pytest.raises(Exists):
        asyncio.run(engine.transact(fn))


def test_reaping_takes_no_more_than_its_limit_however_wide_the_tree_is() -> None:
    engine = memory_engine()

    def furnish(txn: Txn) -> InodeId:
        make_root(txn, 1)
        wide = make_directories(txn, [b"wide"], 1)
        for number in range(100):
            create(txn, wide, b"%d" % number, NewInode(type=FileType.DIRECTORY, mode=0o755), 1)
        detach(txn, ROOT, b"wide", 1)
        return wide

    async def run() -> list[int]:
        await engine.transact(furnish)
        taken = [10]
        while taken[-1]:
            taken.append(await engine.transact(lambda txn: reap(txn, 10, 2)))
        return taken[1:]

    taken = asyncio.run(run())
    assert max(taken) <= 10
    assert sum(taken) == 100 + 100 + 1  # each name, each directory under it, and the root of the tree
