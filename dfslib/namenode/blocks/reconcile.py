"""What a datanode has against the metadata: its report, both in the order of block ids, and what it may delete."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from dfslib.model import BlockId, NodeId
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.metadata.engine import ReadTxn, Txn
from dfslib.namenode.namespace import keys, records


class Page(NamedTuple):
    """The blocks behind `after`, up to the last one of these or to the `last` of all. `made_after_s`: the datanode made
    the page later than this, on the monotonic clock."""

    after: int
    blocks: Sequence[int]
    last: bool
    made_after_s: float


def reconcile(txn: Txn, node: NodeId, page: Page, in_flight: InFlight) -> list[int]:
    """Make the metadata say of the blocks of a page what `node` reports of them.

    Returns the blocks that nothing knows of: the datanode is to delete them. Blocks in flight are left
    alone either way; one that was so when the page may have been made is not missed in it.
    """
    end = keys.MAX_ID if page.last else page.blocks[-1]
    held = set(page.blocks)
    for block, record in records.scan_blocks(txn, page.after, end):
        if block in held:
            held.discard(block)
            if node not in record.nodes:
                records.put_block(txn, block, replace(record, nodes=(*record.nodes, node)))
        elif node in record.nodes and block not in in_flight and not in_flight.landed_since(block, page.made_after_s):
            nodes = tuple(other for other in record.nodes if other != node)
            records.put_block(txn, block, replace(record, nodes=nodes))
    return sorted(block for block in held if BlockId(block) not in in_flight)


def deletable(txn: ReadTxn, node: NodeId, blocks: Iterable[BlockId]) -> list[BlockId]:
    """Those of the blocks that nobody counts on `node` to have. To be asked in the step in which it is told to delete
    them: since the order was given, it may have been entered as a holder again."""
    return [
        block for block in blocks if (record := records.find_block(txn, block)) is None or node not in record.nodes
    ]
