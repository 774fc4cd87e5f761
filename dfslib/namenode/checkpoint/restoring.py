"""From the datanodes' copies back to a store of metadata.

A mark is set before the first key is written and taken away with the last one: a store that has it is not whole,
and is cleared and filled anew at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from msgspec.structs import replace

from dfslib.errors import DfsError, Unavailable
from dfslib.model import InodeId
from dfslib.namenode.checkpoint import format as files
from dfslib.namenode.checkpoint.chains import Chain, best_chain
from dfslib.namenode.checkpoint.format import Damaged, FileName, Header
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.metadata.engine import KEY_MAX, MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.records import RestoredRecord
from dfslib.runtime.logs import event
from dfslib.transfer.metadata_files import get_file, list_files
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")

_BATCH: Final = 20_000
"""Keys in one transaction: some 50 ms of the writer's time, and few fsyncs for millions of keys."""
_INODES_SKIPPED: Final = 1_000_000
"""Numbers that may have been given out after the copy was made; they are not used a second time."""
HOLD_S: Final = 24 * 3600.0
"""How long after a restore nothing is deleted from the datanodes, unless an operator says so before."""


class Fetched(NamedTuple):
    """A chain of files, all of them read and found to be right."""

    chain: Chain
    headers: list[Header]
    paths: list[Path]


async def fetch(session: PeerSession, sources: Sequence[Joiner], folder: Path) -> Fetched:
    """Download the chain that leads furthest, over the files of all sources. Raises Unavailable where none is
    complete and right; what was wrong with which file is logged."""
    where = await _find(session, sources)
    folder.mkdir(exist_ok=True)
    while (chain := best_chain(where)) is not None:
        headers: list[Header] = []
        paths = [folder / str(name) for name in chain.files]
        for name, path in zip(chain.files, paths, strict=True):
            header = await _fetch_one(session, where[name], name, sources[0].cluster_id, path)
            if header is None:
                del where[name]
                break
            headers.append(header)
        else:
            return Fetched(chain, headers, paths)
    raise Unavailable("no datanode has a complete copy of the metadata that can be used; the log says why")


async def _find(session: PeerSession, sources: Iterable[Joiner]) -> dict[FileName, list[str]]:
    where: dict[FileName, list[str]] = {}
    for source in sources:
        try:
            listed = await list_files(session, source.url)
        except DfsError as error:
            log.warning(event("datanode does not list its copies", url=source.url, reason=error))
            continue
        for file in listed:
            if (name := files.parse_name(file.name)) is not None:
                where.setdefault(name, []).append(source.url)
    return where


async def _fetch_one(
    session: PeerSession, urls: Sequence[str], name: FileName, cluster_id: str, path: Path
) -> Header | None:
    for url in urls:
        try:
            await get_file(session, url, str(name), path)
            return await asyncio.to_thread(_check, path, name, cluster_id)
        except (DfsError, Damaged, OSError) as error:
            log.warning(event("copy cannot be used", name=name, url=url, reason=error, action="trying another"))
    return None


def _check(path: Path, name: FileName, cluster_id: str) -> Header:
    with path.open("rb") as file:
        return files.check(file, name, cluster_id)


async def apply(engine: MetadataEngine, fetched: Fetched, progress: Callable[[int], None]) -> None:
    """Fill an empty store. `progress` is told how many keys have been written."""
    await engine.transact(lambda txn: txn.put(keys.RESTORING, b""))
    done = 0
    batch: list[tuple[bytes, bytes | None]] = []
    for path in fetched.paths:
        with path.open("rb") as file:
            for some in _changes(files.read_header(file), file):
                batch += some
                if len(batch) >= _BATCH:
                    await engine.transact(partial(_write, batch))
                    done += len(batch)
                    progress(done)
                    batch = []
    await engine.transact(partial(_write, batch))
    epoch = fetched.chain.checkpoint.epoch + 1
    await engine.transact(partial(_finish, epoch, fetched.headers[-1].time_ns))
    for path in fetched.paths:
        path.unlink()


def _changes(header: Header, file: BinaryIO) -> Iterator[list[tuple[bytes, bytes | None]]]:
    """What a file of either kind says is to be written, frame by frame."""
    if files.name_of(header).is_checkpoint:
        for found in files.read_records(file):
            yield list(found)
    else:
        for commits in files.read_commits(file):
            yield [change for _, changes in commits for change in changes]


def _write(batch: Sequence[tuple[bytes, bytes | None]], txn: Txn) -> None:
    for key, value in batch:
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)


def _finish(epoch: int, until_ns: int, txn: Txn) -> None:
    record = records.get_cluster(txn)
    if record is None:
        raise Unavailable("the copy of the metadata names no cluster")
    records.put_cluster(txn, replace(record, epoch=max(epoch, record.epoch + 1)))
    txn.put(keys.LAST_INODE, records.encode(InodeId(records.last_inode(txn) + _INODES_SKIPPED)))
    records.put_restored(txn, RestoredRecord(until_ns, HOLD_S))
    txn.delete(keys.RESTORING)


def is_unfinished(txn: ReadTxn) -> bool:
    """Whether a restore of this store, or its clearing, was interrupted."""
    return txn.get(keys.RESTORING) is not None


async def clear(engine: MetadataEngine) -> None:
    """Delete every key, in batches; until the end the store is marked."""
    await engine.transact(lambda txn: txn.put(keys.RESTORING, b""))
    while await engine.transact(_clear_some):
        pass
    await engine.transact(lambda txn: txn.delete(keys.RESTORING))


def _clear_some(txn: Txn) -> int:
    found = [key for key, _ in _first(txn, _BATCH) if key != keys.RESTORING]
    for key in found:
        txn.delete(key)
    return len(found)


def _first(txn: ReadTxn, count: int) -> Iterator[tuple[bytes, bytes]]:
    for number, item in enumerate(txn.scan(b"", b"\xff" * KEY_MAX)):
        if number > count:
            return
        yield item
