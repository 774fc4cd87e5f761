"""What a datanode may delete: nothing that the metadata counts on it to have, whenever that was entered."""

from __future__ import annotations

from dfslib.model import BlockId, BlockRef, NodeId
from dfslib.namenode.blocks.reconcile import deletable
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.namespace import extents
from tests.interleaving import memory_engine, run

HERE, ELSEWHERE, NOWHERE = BlockId(1), BlockId(2), BlockId(3)


def test_what_is_counted_on_is_not_deleted_though_it_was_ordered() -> None:
    async def scenario() -> None:
        engine = memory_engine()

        def enter(txn: Txn) -> None:
            extents.add_block(txn, BlockRef(HERE, 1, 0, (NodeId("a"), NodeId("b"))))
            extents.add_block(txn, BlockRef(ELSEWHERE, 1, 0, (NodeId("b"),)))

        await engine.transact(enter)
        ordered = [HERE, ELSEWHERE, NOWHERE]
        assert engine.read(lambda txn: deletable(txn, NodeId("a"), ordered)) == [ELSEWHERE, NOWHERE]

    run(scenario())
