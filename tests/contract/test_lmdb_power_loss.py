"""Power that goes in the middle of a commit: any part of its pages on the disk, and none of it is seen.

LMDB writes a commit's pages first, syncs them, and makes them valid by writing one of its two first pages (the metas).
So a disk that has any of the pages, and not the meta, must read as before.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from functools import partial
from pathlib import Path

import pytest

from dfslib.model import ROOT, BlockId, BlockRef, Extent, FileType, NodeId
from dfslib.namenode.metadata.engine import KEY_MAX, Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace import content, extents
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.unlink import unlink

PAGE = 4096
FILE = NewInode(type=FileType.FILE, mode=0o644)
Store = dict[bytes, bytes]


def change(txn: Txn, number: int) -> None:
    """Something that touches many kinds of keys."""
    for name in range(20):
        ino = create(txn, ROOT, b"%d-%d" % (number, name), FILE, number).ino
        block = BlockId(number * 100 + name + 1)
        extents.add_block(txn, BlockRef(block, 100, 0, (NodeId("n"),)))
        content.replace_content(txn, ino, 100, [Extent(0, 100, block)], number)
    if number:
        for name in range(0, 20, 2):
            unlink(txn, ROOT, b"%d-%d" % (number - 1, name), number)


def pages(data: bytes) -> list[bytes]:
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def contents(engine: LmdbEngine) -> Store:
    return engine.read(lambda txn: dict(txn.scan(b"", b"\xff" * KEY_MAX)))


@pytest.fixture
def commits(tmp_path: Path) -> list[tuple[bytes, Store]]:
    """The file and what it holds after each of some acknowledged commits."""
    engine = LmdbEngine(tmp_path / "db")
    asyncio.run(engine.transact(lambda txn: make_root(txn, 1)))
    found = []
    for number in range(6):
        asyncio.run(engine.transact(partial(change, number=number)))
        found.append(((tmp_path / "db" / "data.mdb").read_bytes(), contents(engine)))
    engine.close()
    return found


def test_a_commit_is_entirely_there_or_not_at_all(tmp_path: Path, commits: list[tuple[bytes, Store]]) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    numbers = random.Random(seed)
    for (before, old), (after, new) in itertools.pairwise(commits):
        assert old != new
        was, is_now = pages(before), pages(after)
        changed = [at for at in range(len(is_now)) if at >= len(was) or was[at] != is_now[at]]
        body = [at for at in changed if at > 1]
        assert len(body) < len(changed), "a meta page says that the commit is valid"
        subsets = [body[:count] for count in range(0, len(body) + 1, max(1, len(body) // 6))]
        subsets += [numbers.sample(body, numbers.randrange(len(body) + 1)) for _ in range(8)]
        for subset in subsets:
            state = list(was)
            for at in subset:
                state += [bytes(PAGE)] * (at + 1 - len(state))
                state[at] = is_now[at]
            assert reopened(tmp_path, b"".join(state)) == old
        assert reopened(tmp_path, after) == new


def reopened(tmp_path: Path, data: bytes) -> Store:
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(data)
    engine = LmdbEngine(folder)
    try:
        assert engine.read(lambda txn: list(check(txn))) == []
        found = contents(engine)
        # It goes on from there.
        asyncio.run(engine.transact(lambda txn: create(txn, ROOT, b"later", FILE, 99)))
        assert engine.read(lambda txn: list(check(txn))) == []
        return found
    finally:
        engine.close()
        shutil.rmtree(folder)
