"""Which datanode a reader is sent to."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from dfslib.errors import NotEnoughDatanodes
from dfslib.model import Attr
from dfslib.namenode.membership.registry import Datanode
from dfslib.namenode.metadata.engine import ReadTxn
from dfslib.namenode.namespace import records

_CHUNKS_LOOKED_AT: Final = 4
"""Of a large file: who has its first blocks most likely has the others, and any datanode can get them."""


def choose_source(txn: ReadTxn, attr: Attr, alive: Sequence[Datanode], reader_host: str, random: Random) -> Datanode:
    """A live datanode that has the file's blocks, one on the reader's own host first; any one otherwise.

    Raises NotEnoughDatanodes where none is alive.
    """
    if not alive:
        raise NotEnoughDatanodes("no datanode is alive")
    best = list(alive)
    for seen, (_, chunk) in enumerate(records.scan_chunks(txn, attr.ino)):
        if seen == _CHUNKS_LOOKED_AT:
            break
        for extent in chunk:
            record = records.find_block(txn, extent.block)
            holders = [node for node in best if record and node.id in record.nodes]
            best = holders or best
    near = [node for node in best if node.host == reader_host]
    return random.choice(near or best)
