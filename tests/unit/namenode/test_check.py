"""The checker finds each broken invariant, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from dfslib.model import BLOCK_SIZE, ROOT, Attr, BlockId, BlockRef, Extent, FileType, InodeId, NodeId
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import content, extents, keys, records
from dfslib.namenode.namespace.check import Problem, check
from dfslib.namenode.namespace.create import NewInode, create, make_directories, make_root
from dfslib.namenode.namespace.link import link
from dfslib.namenode.namespace.unlink import detach
from dfslib.namenode.namespace.xattr import set_xattr
from tests.interleaving import memory_engine

DIRECTORY, BELOW, FILE, SYMLINK, CUT_OFF = (InodeId(number) for number in (2, 3, 4, 5, 6))
GONE = InodeId(999)
USED, SPARSE, UNUSED = BlockId(1), BlockId(2), BlockId(3)
NO_BLOCK = BlockId(999)


def furnish(txn: Txn) -> None:
    make_root(txn, 1)
    make_directories(txn, [b"d", b"below"], 1)
    create(txn, DIRECTORY, b"f", NewInode(type=FileType.FILE, mode=0o644), 1)
    link(txn, FILE, ROOT, b"second", 1)
    create(txn, BELOW, b"s", NewInode(type=FileType.SYMLINK, mode=0o777, target=b"there"), 1)
    make_directories(txn, [b"cut off", b"a", b"b"], 1)
    for block, size in ((USED, 100), (SPARSE, 100), (UNUSED, 100)):
        extents.add_block(txn, BlockRef(block, size, 0, (NodeId("n"),)))
    pieces = [Extent(BLOCK_SIZE - 50, 100, USED), Extent(BLOCK_SIZE + 60, 10, SPARSE, 90)]
    content.replace_content(txn, FILE, BLOCK_SIZE + 100, pieces, 2)
    set_xattr(txn, FILE, b"user.x", b"1", 3)
    detach(txn, ROOT, b"cut off", 4)


def problems_after(damage: Callable[[Txn], object]) -> list[Problem]:
    engine = memory_engine()

    async def run() -> None:
        await engine.transact(furnish)
        await engine.transact(damage)

    asyncio.run(run())
    return engine.read(lambda txn: list(check(txn)))


def test_what_is_sound_has_no_problem() -> None:
    assert problems_after(lambda _: None) == []


def changed(ino: InodeId, **values: object) -> Callable[[Txn], None]:
    return lambda txn: records.put_attr(txn, replace(records.get_attr(txn, ino), **values))


def entry(parent: InodeId, name: bytes, ino: InodeId, kind: FileType) -> Callable[[Txn], None]:
    return lambda txn: records.put_dentry(txn, parent, name, ino, kind)


def no_entry(parent: InodeId, name: bytes) -> Callable[[Txn], None]:
    return lambda txn: records.delete_dentry(txn, parent, name)


def chunk(index: int, change: Callable[[list[Extent]], list[Extent]]) -> Callable[[Txn], None]:
    return lambda txn: txn.put(
        keys.chunk(FILE, index), records.encode(change(records.get_chunk(txn, FILE, index)))
    )  # fmt: skip


def block(number: BlockId, **values: object) -> Callable[[Txn], None]:
    def damage(txn: Txn) -> None:
        record = records.find_block(txn, number)
        assert record
        records.put_block(txn, number, replace(record, **values))

    return damage


def noted(key: bytes) -> Callable[[Txn], None]:
    return lambda txn: records.put_state(txn, key)


def dropped(key: bytes) -> Callable[[Txn], None]:
    return lambda txn: txn.delete(key)


def circle(txn: Txn) -> None:
    """`d` out of the root and into its own `below`: every count is right, and nobody gets there."""
    root, below = records.get_attr(txn, ROOT), records.get_attr(txn, BELOW)
    records.delete_dentry(txn, ROOT, b"d")
    records.put_attr(txn, replace(root, nlink=root.nlink - 1))
    records.put_dentry(txn, BELOW, b"d", DIRECTORY, FileType.DIRECTORY)
    records.put_attr(txn, replace(below, nlink=below.nlink + 1))
    records.put_attr(txn, replace(records.get_attr(txn, DIRECTORY), parent=BELOW))


def renumbered(txn: Txn) -> None:
    txn.put(keys.LAST_INODE, records.encode(3))


DAMAGES: dict[str, tuple[Callable[[Txn], object], str]] = {
    "entry of nothing": (entry(ROOT, b"x", GONE, FileType.FILE), "names an inode that is not there"),
    "entry in nothing": (entry(GONE, b"x", FILE, FileType.FILE), "which is no inode"),
    "entry in a file": (entry(FILE, b"x", FILE, FileType.FILE), "which is no directory"),
    "entry of another type": (entry(DIRECTORY, b"f", FILE, FileType.FIFO), "says FIFO, inode FILE"),
    "entry of the root": (entry(BELOW, b"x", ROOT, FileType.DIRECTORY), "names the root"),
    "entry with a slash": (entry(ROOT, b"a/b", FILE, FileType.FILE), "has a name that is none"),
    "entry '..'": (entry(ROOT, b"..", FILE, FileType.FILE), "has a name that is none"),
    "second name of a directory": (entry(ROOT, b"x", BELOW, FileType.DIRECTORY), "has 2 names instead of 1"),
    "name of what was cut off": (entry(ROOT, b"x", CUT_OFF, FileType.DIRECTORY), "cut off has 1 names instead of 0"),
    "file without a name": (no_entry(BELOW, b"s"), "has nlink 1 and 0 names"),
    "directory without a name": (no_entry(ROOT, b"d"), "has 0 names instead of 1"),
    "nlink of a file": (changed(FILE, nlink=3), "has nlink 3 and 2 names"),
    "nlink 0": (lambda txn: (changed(SYMLINK, nlink=0)(txn), no_entry(BELOW, b"s")(txn)), "has nlink 0 and 0 names"),
    "orphan with a name": (lambda txn: records.put_state(txn, keys.orphan(FILE)), "2 names, and is noted as an orphan"),
    "orphan that is gone": (lambda txn: records.put_state(txn, keys.orphan(GONE)), "noted as an orphan, and no file"),
    "orphan of another type": (
        lambda txn: records.put_state(txn, keys.orphan(SYMLINK)), "noted as an orphan, and no file"
    ),
    "nlink of a directory": (changed(DIRECTORY, nlink=2), "has nlink 2 and 1 subdirectories"),
    "nlink of what was cut off": (changed(CUT_OFF, nlink=2), "has nlink 2 and 1 subdirectories"),
    "parent": (changed(BELOW, parent=ROOT), "names a directory with parent 1"),
    "parent of a file": (changed(FILE, parent=ROOT), "is no directory and has parent 1"),
    "parent of the root": (changed(ROOT, parent=DIRECTORY), "own parent"),
    "no root": (dropped(keys.inode(ROOT)), "own parent"),
    "circle": (circle, "not reachable from the root"),
    "size of a link": (changed(SYMLINK, size=4), "has size 4 and a target of 5 bytes"),
    "link to nothing": (changed(SYMLINK, size=0, target=b""), "a target of 0 bytes"),
    "target of a file": (changed(FILE, target=b"t"), "no symbolic link and has a target"),
    "size of a directory": (changed(BELOW, size=1), "has a size, content or a target"),
    "negative size": (changed(FILE, size=-1), "file has size -1"),
    "size within an extent": (changed(FILE, size=BLOCK_SIZE + 69), "behind the end"),
    "allocated": (changed(FILE, allocated=109), "109 bytes are said to be allocated, extents have 110"),
    "allocated without extents": (changed(SYMLINK, allocated=1), "is no file and has 1 bytes allocated"),
    "extents of nothing": (
        lambda txn: records.put_chunk(txn, GONE, 0, [Extent(0, 1, USED)]),
        "extents of an inode that is not there",
    ),
    "extents of a directory": (
        lambda txn: records.put_chunk(txn, BELOW, 0, [Extent(0, 1, USED)]),
        "or no file",
    ),
    "empty chunk": (chunk(5, lambda _: []), "chunk 5 is stored and empty"),
    "unsorted": (chunk(1, lambda old: old[::-1]), "is out of order"),
    "overlapping": (chunk(1, lambda old: [*old, replace(old[-1], block_offset=80)]), "overlaps"),
    "outside of the chunk": (
        chunk(0, lambda old: [replace(old[0], length=old[0].length + 1)]),
        "leaves chunk 0",
    ),
    "extent of no bytes": (chunk(1, lambda old: [replace(old[0], length=0), *old]), "out of order"),
    "outside of the block": (chunk(1, lambda old: [old[0], replace(old[1], block_offset=91)]), "outside of its block"),
    "unknown block": (chunk(1, lambda old: [old[0], replace(old[1], block=NO_BLOCK)]), "a block that is not there"),
    "no reference": (dropped(keys.reference(USED, FILE, 0)), "has no reference from its block"),
    "wrong reference": (
        lambda txn: txn.put(keys.reference(USED, FILE, 7), b""),
        "reference from chunk 7, which does not use the block",
    ),
    "reference of no block": (
        lambda txn: txn.put(keys.reference(NO_BLOCK, FILE, 0), b""),
        "references of a block that is not there",
    ),
    "live bytes": (block(USED, live=99), "99 live bytes noted and 100 in use"),
    "not noted as garbage": (dropped(keys.garbage(UNUSED)), "is not noted as garbage"),
    "noted as garbage": (noted(keys.garbage(USED)), "is noted as garbage"),
    "not noted as sparse": (dropped(keys.sparse(SPARSE)), "is not noted as sparse"),
    "noted as sparse": (noted(keys.sparse(USED)), "is noted as sparse"),
    "no block noted as garbage": (noted(keys.garbage(NO_BLOCK)), "not there is noted as garbage"),
    "no block noted as sparse": (noted(keys.sparse(NO_BLOCK)), "not there is noted as sparse"),
    "datanode twice": (block(USED, nodes=(NodeId("n"), NodeId("n"))), "names a datanode twice"),
    "xattr of nothing": (lambda txn: txn.put(keys.xattr(GONE, b"user.x"), b""), "extended attributes of an inode"),
    "nothing cut off": (noted(keys.detached(GONE)), "noted as cut off"),
    "file cut off": (noted(keys.detached(FILE)), "noted as cut off"),
    "root cut off": (noted(keys.detached(ROOT)), "noted as cut off"),
    "totals": (lambda txn: records.add_totals(txn, files=1), "the totals say"),
    "bytes": (lambda txn: records.add_totals(txn, bytes=-1), "the totals say"),
    "last number": (renumbered, "above the last number given out, 3"),
    "orphan": (
        lambda txn: records.put_attr(txn, Attr(GONE, FileType.FILE, 0o644)),
        "has nlink 1 and 0 names",
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found(what: str) -> None:
    damage, said = DAMAGES[what]
    found = problems_after(damage)
    assert any(said in problem.detail for problem in found), found
    assert all(problem.detail for problem in found)


def test_a_problem_says_where() -> None:
    assert problems_after(changed(FILE, nlink=3)) == [Problem("inode has nlink 3 and 2 names", FILE, None)]
    assert problems_after(dropped(keys.sparse(SPARSE)))[0].block == SPARSE
