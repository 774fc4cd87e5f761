"""How many copies a block is to have: what its files ask for, the most demanding one first."""

from __future__ import annotations

from dfslib.model import REPLICATION_ALL, REPLICATION_DEFAULT, BlockId
from dfslib.namenode.metadata.engine import ReadTxn
from dfslib.namenode.namespace import records


def wanted_copies(txn: ReadTxn, block: BlockId, default: int) -> int:
    """A number, or REPLICATION_ALL. `default` stands in for files that ask for nothing of their own."""
    wanted = 1
    for ino, _ in records.scan_references(txn, block):
        attr = records.find_attr(txn, ino)
        asked = attr.replication if attr else REPLICATION_DEFAULT
        if asked == REPLICATION_DEFAULT:
            asked = default
        if asked == REPLICATION_ALL:
            return REPLICATION_ALL
        wanted = max(wanted, asked)
    return wanted
