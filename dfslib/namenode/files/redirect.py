"""Which datanode a reader is sent to."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from random import Random
from typing import Final

from dfslib.errors import NotEnoughDatanodes
from dfslib.model import Attr, InodeId, NodeId
from dfslib.namenode.membership.registry import Datanode
from dfslib.namenode.metadata.engine import ReadTxn
from dfslib.namenode.namespace import records

_CHUNKS_LOOKED_AT: Final = 4
"""Of a large file: who has its first blocks most likely has the others, and any datanode can get them."""
_READERS_AT_HOME: Final = 4
"""Readers in a second that one datanode has to itself: one streams to a few at the network's speed."""
_FILES_REMEMBERED: Final = 10_000


class Popularity:
    """Which files have many readers at the moment. Remembers as many files as were asked for last."""

    def __init__(self) -> None:
        self._asked: OrderedDict[InodeId, tuple[int, int]] = OrderedDict()

    def ask(self, ino: InodeId, now_s: float) -> bool:
        """Note one more reader; whether there are several in this second."""
        second, count = self._asked.pop(ino, (0, 0))
        count = count + 1 if second == int(now_s) else 1
        self._asked[ino] = int(now_s), count
        if len(self._asked) > _FILES_REMEMBERED:
            self._asked.popitem(last=False)
        return count > _READERS_AT_HOME


def choose_source(
    txn: ReadTxn, attr: Attr, alive: Sequence[Datanode], reader_host: str, popular: bool, random: Random
) -> Datanode:
    """A live datanode that has the file's blocks; of these, one on the reader's own host if there is one.

    Readers of the same file go to the same datanode, the first holder of its first block, where it is most
    likely cached; those of a popular file to all that have it. Raises NotEnoughDatanodes where none is alive.
    """
    if not alive:
        raise NotEnoughDatanodes("no datanode is alive")
    best = list(alive)
    home: NodeId | None = None
    for seen, (_, chunk) in enumerate(records.scan_chunks(txn, attr.ino)):
        if seen == _CHUNKS_LOOKED_AT:
            break
        for extent in chunk:
            record = records.used_block(txn, extent.block)
            home = home or (record.nodes[0] if record.nodes else None)
            holders = [node for node in best if node.id in record.nodes]
            best = holders or best
    near = [node for node in best if node.host == reader_host]
    candidates = near or best
    if not popular:
        for node in candidates:
            if node.id == home:
                return node
    return random.choice(candidates)
