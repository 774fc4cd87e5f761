"""From files of metadata back to a store.

A mark is set before the first key is written and taken away with the last one: a store that has it is not whole,
and is cleared and filled anew at the next start. A store that is out of date is marked, too; what it has is set
aside as a file before it is cleared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from msgspec.structs import replace

from dfslib.errors import InputOutput, Unavailable
from dfslib.model import InodeId
from dfslib.namenode.checkpoint import format as files
from dfslib.namenode.checkpoint.fetching import Copy, Fetched
from dfslib.namenode.checkpoint.format import Damaged, Header
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.metadata.engine import KEY_MAX, MetadataEngine, ReadTxn, Txn
from dfslib.namenode.metadata.lineage import OWN_KEYS, Digest
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.records import RestoredRecord, RestoringRecord
from dfslib.namenode.upgrade.level import too_late
from dfslib.wire.features import NEWEST_LEVEL

_BATCH: Final = 20_000
"""Keys in one transaction: some 50 ms of the writer's time, and few fsyncs for millions of keys."""
_INODES_SKIPPED: Final = 1_000_000
"""Numbers that may have been given out after the copy was made; they are not used a second time."""
_KEPT: Final = OWN_KEYS | {keys.RESTORING}
"""Keys of the store itself: neither cleared nor taken over from a copy."""
HOLD_S: Final = 24 * 3600.0
"""How long after a restore nothing is deleted from the datanodes, unless an operator says so before."""


async def mark(engine: MetadataEngine, cluster_id: str, *, set_aside: bool = False) -> None:
    """Durably: the store is not whole, and is to be filled from that cluster's copies alone; `set_aside`: what it
    has is to be kept as a file first."""
    record = RestoringRecord(cluster_id, set_aside)
    await engine.transact(lambda txn: records.put_restoring(txn, record))


async def set_aside(engine: MetadataEngine, path: Path) -> Header | None:
    """Write all of a marked store to `path`, durably; None where it has no cluster, and so nothing of worth."""
    record = engine.read(records.get_cluster)
    if record is None:
        return None
    about = Header("checkpoint", record.cluster_id, record.epoch, 0, 0, 0)
    return await asyncio.to_thread(engine.read, lambda txn: write_snapshot(txn, about, path))


async def clear(engine: MetadataEngine) -> None:
    """Delete every key but the store's own, in batches."""
    while await engine.transact(_clear_some):
        pass


def _clear_some(txn: Txn) -> int:
    found: list[bytes] = []
    for key, _ in txn.scan(b"", b"\xff" * KEY_MAX):
        if key not in _KEPT:
            found.append(bytes(key))
        if len(found) == _BATCH:
            break
    for key in found:
        txn.delete(key)
    return len(found)


class NotAsWritten(Exception):
    """After a file was applied, the store is not what it was where the file was made."""

    def __init__(self, copy: Copy | None) -> None:
        """`copy`: the first of which that is known."""
        super().__init__(f"what {copy[0]} at {copy[1]} leads to" if copy else "what the copies lead to")
        self.copy = copy


async def apply(
    engine: MetadataEngine,
    fetched: Fetched,
    epoch: int,
    level: int,
    progress: Callable[[int], None],
    *,
    one_by_one: bool = False,
) -> None:
    """Fill an empty store that is marked, and take the mark away: then it is whole, of `epoch`, and of `level` or a
    later one that the copy tells. Datanodes that have met a level accept none that is earlier: where the upgrade's end
    is not in the copy, it is made good.

    `progress` is told how many keys have been written. Raises NotAsWritten where the keys do not add up to what they
    did at the end of a file, looked at `one_by_one` or at the end of all; InputOutput where a file has changed since it
    was checked, or is no cluster's; Unavailable where it is of a later level than this build knows; what the store's
    disk says.
    """
    done = 0
    batch: list[tuple[bytes, bytes | None]] = []
    empty = engine.history.head.digest
    marks: list[bytes | None] = [None]
    """The copied store's own mark is not taken over; where it had one, that counts in what its keys added up to."""

    async def flush() -> None:
        nonlocal done, batch
        await engine.transact(partial(_write, batch))
        done += len(batch)
        progress(done)
        marks.extend(value for key, value in batch if key == keys.RESTORING)
        batch = []

    try:
        for header, path, copy in zip(fetched.headers, fetched.paths, fetched.copies, strict=True):
            with path.open("rb") as file:
                for some in _changes(files.read_header(file), file):
                    batch += some
                    if len(batch) >= _BATCH:
                        await flush()
            if one_by_one:
                await flush()
                _require_as_written(engine.history.head.digest, empty, header, marks[-1], copy)
    except Damaged as error:
        raise InputOutput(f"a copy of the metadata that was right when it came is not any more: {error}") from error
    await flush()
    _require_as_written(engine.history.head.digest, empty, fetched.headers[-1], marks[-1], None)
    await engine.transact(partial(_finish, epoch, level, fetched.headers[-1].time_ns))


def _require_as_written(now: bytes, empty: bytes, header: Header, mark: bytes | None, copy: Copy | None) -> None:
    """Raises NotAsWritten. A file of a release that keeps no lineage does not tell what its keys added up to."""
    if header.head is None:
        return
    wanted = Digest(header.head.digest)
    wanted.change(keys.RESTORING, mark, None)
    wanted.add(empty)
    if now != wanted.value:
        raise NotAsWritten(copy)


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
        if key in _KEPT:
            continue  # of the store that was copied: this one's own mark stands until the end
        if value is None:
            txn.delete(key)
        else:
            txn.put(key, value)


def begin_epoch(epoch: int, level: int, until_ns: int, txn: Txn) -> None:
    """From here on others may have changed what this store knows: what they changed after `until_ns` is missing here,
    and nothing of it is to be deleted or used a second time. The epoch is this one at least, and the level, too.

    Raises InputOutput where the store names no cluster, Unavailable where it is of a level that this build does not
    know.
    """
    record = records.get_cluster(txn)
    if record is None:
        raise InputOutput("the copy of the metadata names no cluster")
    if record.level > NEWEST_LEVEL:
        raise Unavailable(too_late("the copy of the metadata", record.level))
    records.put_cluster(txn, replace(record, epoch=max(epoch, record.epoch + 1), level=max(level, record.level)))
    txn.put(keys.LAST_INODE, records.encode(InodeId(records.last_inode(txn) + _INODES_SKIPPED)))
    records.put_restored(txn, RestoredRecord(until_ns, HOLD_S))


def _finish(epoch: int, level: int, until_ns: int, txn: Txn) -> None:
    begin_epoch(epoch, level, until_ns, txn)
    records.delete_restoring(txn)


def unfinished(txn: ReadTxn) -> RestoringRecord | None:
    """The mark, if the store has it: it is not whole."""
    return records.get_restoring(txn)
