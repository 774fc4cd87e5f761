"""Blocks on their way into the metadata: nothing touches them, whatever comes between their steps."""

from __future__ import annotations

import asyncio
import time
from random import Random

from dfslib.model import BlockId, BlockRef, NodeId
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.reconcile import Page, reconcile
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import extents, records
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.stamps import Stamps
from tests.interleaving import chance, memory_engine, run

BLOCK, NODE = BlockId(7), NodeId("n")


def enter(txn: Txn) -> None:
    extents.add_block(txn, BlockRef(BLOCK, 10, 0, (NODE,)))


async def report(
    engine: MetadataEngine, in_flight: InFlight, *blocks: BlockId, made_after_s: float = 0
) -> list[int]:
    """What the datanode is told to delete."""
    page = Page(0, blocks, True, made_after_s)
    return await engine.transact(lambda txn: reconcile(txn, NODE, page, in_flight))


def collector(engine: MetadataEngine, orders: Orders, in_flight: InFlight) -> GarbageCollector:
    stamps = Stamps(time.time_ns, time.monotonic, 600)
    return GarbageCollector(engine, orders, in_flight, Clocks(time.time_ns, time.monotonic, stamps), 0)


def test_a_report_deletes_nothing_that_is_about_to_be_entered() -> None:
    """Its page is looked at before the transaction that enters the block; the writer has gone away by then."""

    async def scenario(random: Random) -> tuple[bool, list[int]]:
        engine, orders, in_flight = MemoryEngine(random), Orders(), InFlight()
        in_flight.hold(BLOCK)
        reported = asyncio.create_task(report(engine, in_flight, BLOCK))
        await asyncio.sleep(0)
        entered = asyncio.create_task(engine.transact(enter))
        await asyncio.sleep(0)
        entered.cancel()
        discarding = None
        if in_flight.release(BLOCK, used=False):
            discarding = asyncio.create_task(collector(engine, orders, in_flight).discard([BLOCK], [NODE]))
        deleted = await reported
        assert discarding is not None
        await discarding
        assert BLOCK not in in_flight
        deleted += (await orders.wait(NODE, 0)).delete
        return engine.read(lambda txn: records.find_block(txn, BLOCK)) is not None, deleted

    random = chance()
    outcomes = [run(scenario(random)) for _ in range(100)]
    assert {known for known, _ in outcomes} == {True, False}
    assert all(bool(deleted) != known for known, deleted in outcomes), "deleted if, and only if, it was not entered"


def test_a_block_that_came_after_the_page_was_made_is_not_missed() -> None:
    """Nor is one whose datanode has lost it since taken to be there."""
    now_s = 10.0

    async def scenario() -> None:
        nonlocal now_s
        engine, in_flight = memory_engine(), InFlight(lambda: now_s)
        in_flight.hold(BLOCK)
        await engine.transact(enter)
        assert not in_flight.release(BLOCK, used=True)
        await report(engine, in_flight, made_after_s=9)
        assert holders(engine) == (NODE,)
        await report(engine, in_flight, made_after_s=11)
        assert holders(engine) == ()

    def holders(engine: MetadataEngine) -> tuple[NodeId, ...]:
        record = engine.read(lambda txn: records.find_block(txn, BLOCK))
        assert record is not None
        return record.nodes

    run(scenario())
