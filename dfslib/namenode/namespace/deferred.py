"""Deferred blocks: small writes whose bytes stay in the metadata until many of them go to datanodes together.

To everything that deals with extents they are blocks like all others; only their bytes lie elsewhere. BlueStore
(Aghayev et al., "File Systems Unfit as Distributed Storage Backends", 2019) defers small writes in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator

from crc32c import crc32c

from dfslib.model import BlockId
from dfslib.namenode.metadata.engine import ReadTxn, Txn, prefix_end
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.records import BlockRecord


def add_deferred(txn: Txn, block: BlockId, data: bytes) -> None:
    """Enter a new block with its bytes, before extents point at it. Until they do it is garbage."""
    records.put_block(txn, block, BlockRecord(len(data), crc32c(data), 0, (), deferred=True))
    records.put_state(txn, keys.garbage(block))
    txn.put(keys.deferred(block), data)


def find_deferred(txn: ReadTxn, block: BlockId) -> bytes | None:
    """The block's bytes, where it is deferred."""
    return txn.get(keys.deferred(block))


def scan_deferred(txn: ReadTxn) -> Iterator[tuple[BlockId, bytes]]:
    """All deferred blocks with their bytes."""
    for key, data in txn.scan(keys.DEFERRED, prefix_end(keys.DEFERRED)):
        yield keys.block_of(key), data


def drop_unused(txn: Txn, block: BlockId) -> None:
    """Forget a deferred block that no file uses any more. Nobody was sent anywhere for its bytes, so that it need
    not be kept for anyone, as other garbage is."""
    record = records.find_block(txn, block)
    if record is not None and record.deferred and not record.live:
        records.delete_block(txn, block)
