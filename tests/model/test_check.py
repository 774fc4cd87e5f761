"""The checker misses nothing: each key of a good store in turn is dropped, or is there a second time under
another number, and each field that is accounted for is changed. Named damages, and what is said of them,
are in tests/unit/namenode/test_check.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from dfslib.model import BLOCK_SIZE, ROOT, Attr, BlockId, BlockRef, Extent, FileType, InodeId, NodeId
from dfslib.namenode.files.once import Done, once
from dfslib.namenode.metadata.engine import KEY_MAX, Txn
from dfslib.namenode.metadata.lineage import OWN_KEYS
from dfslib.namenode.namespace import content, extents, keys, records
from dfslib.namenode.namespace.check import Problem, check
from dfslib.namenode.namespace.create import NewInode, create, make_directories, make_root
from dfslib.namenode.namespace.deferred import add_deferred
from dfslib.namenode.namespace.link import link
from dfslib.namenode.namespace.unlink import detach, reap, unlink
from dfslib.namenode.namespace.xattr import set_xattr
from tests.interleaving import memory_engine

UNTOLD = {keys.XATTRS}
"""No other key tells that an attribute was there."""


def furnish(txn: Txn) -> None:
    """Something of everything that there is a key for."""
    make_root(txn, 1)
    below = make_directories(txn, [b"d", b"below"], 1)
    file = create(txn, below, b"f", NewInode(type=FileType.FILE, mode=0o644), 1).ino
    link(txn, file, ROOT, b"second", 1)
    create(txn, below, b"s", NewInode(type=FileType.SYMLINK, mode=0o777, target=b"there"), 1)
    create(txn, below, b"p", NewInode(type=FileType.FIFO, mode=0o600), 1)
    for number in (1, 2, 3, 4):
        extents.add_block(txn, BlockRef(BlockId(number), 100, 0, (NodeId("n"),)))
    used = [Extent(BLOCK_SIZE - 50, 100, BlockId(1)), Extent(BLOCK_SIZE + 60, 10, BlockId(2), 90)]
    content.replace_content(txn, file, BLOCK_SIZE + 100, used, 2)
    other = create(txn, ROOT, b"other", NewInode(type=FileType.FILE, mode=0o644), 1).ino
    content.replace_content(txn, other, 100, [Extent(0, 100, BlockId(3))], 2)
    set_xattr(txn, file, b"user.x", b"1", 3)
    make_directories(txn, [b"cut off", b"a", b"b"], 1)
    detach(txn, ROOT, b"cut off", 4)
    reap(txn, 1, 5)
    late = create(txn, ROOT, b"late", NewInode(type=FileType.FILE, mode=0o644), 1).ino
    add_deferred(txn, BlockId(5), b"deferred")
    content.replace_content(txn, late, 8, [Extent(0, 8, BlockId(5))], 2)
    orphan = create(txn, ROOT, b"orphan", NewInode(type=FileType.FILE, mode=0o644), 1).ino
    content.replace_content(txn, orphan, 10, [Extent(0, 10, BlockId(3))], 2)
    unlink(txn, ROOT, b"orphan", 3)
    once(b"request", lambda _: Done(None), lambda: 6)(txn)


def problems_after(damage: Callable[[Txn], None]) -> list[Problem]:
    engine = memory_engine()

    async def run() -> None:
        await engine.transact(furnish)
        await engine.transact(damage)

    asyncio.run(run())
    return engine.read(lambda txn: list(check(txn)))


def good_store() -> dict[bytes, bytes]:
    engine = memory_engine()
    asyncio.run(engine.transact(furnish))
    found = engine.read(lambda txn: dict(txn.scan(b"", b"\xff" * KEY_MAX)))
    return {key: value for key, value in found.items() if key not in OWN_KEYS}


GOOD = good_store()


def prefix_of(key: bytes) -> bytes:
    return key[:2] if key.startswith(b"s") else key[:1]


def renumbered(key: bytes) -> bytes:
    """The key with its first number far away from any other."""
    at = len(prefix_of(key))
    return key[:at] + b"\x01" + key[at + 1 :]


def test_the_store_is_sound_and_has_every_kind_of_key() -> None:
    assert problems_after(lambda _: None) == []
    assert {prefix_of(key) for key in GOOD} == {
        keys.INODES, keys.DENTRIES, keys.CHUNKS, keys.BLOCKS, keys.DEFERRED, keys.REFERENCES, keys.XATTRS, keys.GARBAGE,
        keys.SPARSE, keys.DETACHED, keys.ORPHANS, keys.REQUESTS, keys.REQUEST_TIMES, b"sk",
    }  # fmt: skip


@pytest.mark.parametrize("key", [key for key in GOOD if prefix_of(key) not in UNTOLD])
def test_a_key_that_is_gone_is_missed(key: bytes) -> None:
    assert problems_after(lambda txn: txn.delete(key))


@pytest.mark.parametrize("key", [key for key in GOOD if not key.startswith(b"sk")])
def test_a_key_too_many_is_found(key: bytes) -> None:
    assert renumbered(key) not in GOOD
    assert problems_after(lambda txn: txn.put(renumbered(key), GOOD[key]))


ATTRS = [records._decode_attr(value) for key, value in GOOD.items() if key.startswith(keys.INODES)]
WRONG: dict[str, Callable[[Attr], Any]] = {
    "ino": lambda attr: attr.ino + 1000,
    "type": lambda attr: FileType.SOCKET if attr.type is FileType.FIFO else FileType.FIFO,
    "nlink": lambda attr: attr.nlink + 1,
    "size": lambda attr: -1 if attr.type is FileType.FILE else attr.size + 1,
    "allocated": lambda attr: attr.allocated + 1,
    "parent": lambda attr: InodeId(attr.parent + 1000),
    "target": lambda attr: attr.target + b"t",
}
"""The other fields are the user's, and may have any value."""


@pytest.mark.parametrize("field", WRONG)
@pytest.mark.parametrize("attr", ATTRS, ids=lambda attr: f"{attr.type.name}{attr.ino}")
def test_an_inode_that_is_wrong_is_found(attr: Attr, field: str) -> None:
    if field == "parent" and keys.detached(attr.ino) in GOOD:
        return  # it has none any more, and nobody asks
    wrong = replace(attr, **{field: WRONG[field](attr)})
    assert problems_after(lambda txn: txn.put(keys.inode(attr.ino), records.encode(wrong)))


@pytest.mark.parametrize(
    "number, field, change",
    [*((number, "live", change) for number in (1, 2, 3, 4) for change in (1, -1)),
     (1, "size", -1), (1, "size", 1000), (2, "size", -1), (2, "size", -90), (3, "size", -1), (3, "size", 1000)],
)  # fmt: skip
def test_an_account_that_is_wrong_is_found(number: int, field: str, change: int) -> None:
    def damage(txn: Txn) -> None:
        record = records.find_block(txn, BlockId(number))
        assert record
        value = getattr(record, field) + change
        records.put_block(txn, BlockId(number), replace(record, **{field: value}))

    assert problems_after(damage)


CHUNKS = [key for key in GOOD if key.startswith(keys.CHUNKS)]


@pytest.mark.parametrize("key", CHUNKS, ids=range(len(CHUNKS)))
@pytest.mark.parametrize("field, change", [("offset", BLOCK_SIZE), ("length", -1), ("length", 1), ("block", 1)])
def test_an_extent_that_is_wrong_is_found(key: bytes, field: str, change: int) -> None:
    def damage(txn: Txn) -> None:
        first, *others = records._decode_extents(GOOD[key])
        wrong = replace(first, **{field: getattr(first, field) + change})
        txn.put(key, records.encode([wrong, *others]))

    assert problems_after(damage)
