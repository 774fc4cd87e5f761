"""Small stores on disk, as a namenode leaves them, and ways to harm them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dfslib.model import ROOT, BlockId, Extent, FileType, InodeId, NodeId
from dfslib.namenode.checkpoint.format import read_commits
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn, Txn
from dfslib.namenode.metadata.lmdb_engine import DATA, LmdbEngine
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.content import replace_content
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.records import BlockRecord, ClusterRecord
from dfslib.namenode.namespace.unlink import unlink
from dfslib.namenode.namespace.xattr import set_xattr

CLUSTER = "c" * 32
PAGE = 4096
NODES = (NodeId("a" * 32), NodeId("b" * 32))
_FILE = NewInode(type=FileType.FILE, mode=0o644)


def go_on(state: dict[bytes, bytes], journal: BinaryIO) -> None:
    """What the keys are after the commits of a journal, which is read behind its header."""
    for commits in read_commits(journal):
        for _, changes in commits:
            for key, value in changes:
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = value


def begin(txn: Txn, cluster_id: str = CLUSTER) -> None:
    records.put_cluster(txn, ClusterRecord(cluster_id, 1))
    make_root(txn, 1)


def add_file(txn: Txn, number: int) -> None:
    """A file with a block and an attribute, every tenth one so long that it does not fit on a page."""
    attr = create(txn, ROOT, b"file %d" % number, _FILE, number + 1)
    block = BlockId(1000 + number)
    records.put_block(txn, block, BlockRecord(4096, 7, 0, NODES))
    records.put_state(txn, keys.garbage(block))
    replace_content(txn, attr.ino, 4096, [Extent(0, 4096, block, 0)], number + 1)
    long = b"%d" % number * (2000 if number % 10 == 0 else 3)
    set_xattr(txn, attr.ino, b"user.note", long, number + 1)


def remove_file(txn: Txn, number: int) -> None:
    unlink(txn, ROOT, b"file %d" % number, 9)


def make_store(folder: Path, files: int, cluster_id: str = CLUSTER) -> None:
    """A store of some commits, closed: some of its files are gone again, so that it has free pages."""
    engine = LmdbEngine(folder)
    asyncio.run(engine.transact(partial(begin, cluster_id=cluster_id)))
    change_store(engine, files)
    engine.close()


def change_store(engine: LmdbEngine, files: int, first: int = 0) -> None:
    async def change() -> None:
        for number in range(first, first + files):
            await engine.transact(partial(add_file, number=number))
            if number % 4 == 3:
                await engine.transact(partial(remove_file, number=number - 2))

    asyncio.run(change())


def everything(txn: ReadTxn) -> tuple[int, dict[bytes, bytes]]:
    """The number, and what each key that a scan finds gives when it is asked for."""
    return txn.number, {key: txn.get(key) or b"" for key, _ in txn.scan(b"", b"\xff" * KEY_MAX)}


def inode_of(number: int) -> Callable[[ReadTxn], InodeId]:
    def read(txn: ReadTxn) -> InodeId:
        dentry = records.get_dentry(txn, ROOT, b"file %d" % number)
        assert dentry is not None
        return dentry.ino

    return read


def flip(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    data[place] ^= 1 << chance.randrange(8)


def flip_in_a_meta_page(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(2) * PAGE + chance.randrange(160)] ^= 1 << chance.randrange(8)


def flip_in_a_head(data: bytearray, chance: random.Random) -> None:
    data[chance.randrange(2, len(data) // PAGE) * PAGE + chance.randrange(64)] ^= 1 << chance.randrange(8)


def zero_a_page(data: bytearray, chance: random.Random) -> None:
    page = chance.randrange(len(data) // PAGE) * PAGE
    data[page : page + PAGE] = bytes(PAGE)


def fill_a_page(data: bytearray, chance: random.Random) -> None:
    page = chance.randrange(len(data) // PAGE) * PAGE
    data[page : page + PAGE] = chance.randbytes(PAGE)


def swap_pages(data: bytearray, chance: random.Random) -> None:
    one, other = (chance.randrange(len(data) // PAGE) * PAGE for _ in range(2))
    data[one : one + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[one : one + PAGE]


def cut_off(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def swap_metas(data: bytearray, _: random.Random) -> None:
    data[:PAGE], data[PAGE : 2 * PAGE] = data[PAGE : 2 * PAGE], data[:PAGE]


def change_a_name(data: bytearray, chance: random.Random) -> None:
    """A letter of a name, wherever it stands: nothing of the structure."""
    places = [place for place in range(len(data) - 4) if data[place : place + 4] == b"file"]
    data[chance.choice(places)] = ord("g")


def change_names(data: bytearray, _: random.Random) -> None:
    data[:] = data.replace(b"file", b"gile")


def zero_the_metas(data: bytearray, _: random.Random) -> None:
    data[: 2 * PAGE] = bytes(2 * PAGE)


HARMS: dict[str, Callable[[bytearray, random.Random], None]] = {
    harm.__name__: harm
    for harm in (
        flip,
        flip_in_a_meta_page,
        flip_in_a_head,
        zero_a_page,
        fill_a_page,
        swap_pages,
        cut_off,
        swap_metas,
        change_a_name,
        change_names,
        zero_the_metas,
    )
}


def harm_store(folder: Path, harm: Callable[[bytearray, random.Random], None], seed: int) -> None:
    data = bytearray((folder / DATA).read_bytes())
    harm(data, random.Random(seed))
    (folder / DATA).write_bytes(data)
