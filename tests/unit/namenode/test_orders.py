"""Orders for datanodes: given at the next heartbeat, which is held until there are some."""

from __future__ import annotations

import asyncio

from dfslib.model import BlockId, NodeId
from dfslib.namenode.membership.orders import Batch, Orders

ONE, OTHER = NodeId("one"), NodeId("other")


def test_a_heartbeat_is_held_until_there_is_something_to_do() -> None:
    async def run() -> None:
        orders = Orders()
        held, held_on = (asyncio.create_task(orders.wait(node, 30.0)) for node in (ONE, OTHER))
        await asyncio.sleep(0)
        orders.delete([BlockId(7)], [ONE])
        assert await held == Batch([BlockId(7)], [])
        assert not held_on.done()
        assert await orders.wait(ONE, 0.0) == Batch([], [])
        orders.stop_waiting()
        await held_on

    asyncio.run(run())


def test_a_namenode_that_stops_holds_no_heartbeat_and_still_gives_what_there_is() -> None:
    async def run() -> None:
        orders = Orders()
        held = asyncio.create_task(orders.wait(ONE, 30.0))
        await asyncio.sleep(0)
        orders.stop_waiting()
        assert await held == Batch([], [])
        assert await orders.wait(ONE, 30.0) == Batch([], [])
        orders.delete([BlockId(7)], [OTHER])
        assert await orders.wait(OTHER, 30.0) == Batch([BlockId(7)], [])

    asyncio.run(run())


def test_orders_are_for_who_waits_last_and_not_for_who_is_forgotten() -> None:
    async def run() -> None:
        orders = Orders()
        first = asyncio.create_task(orders.wait(ONE, 30.0))
        await asyncio.sleep(0)
        orders.forget(ONE)
        second = asyncio.create_task(orders.wait(ONE, 30.0))
        await asyncio.sleep(0)
        orders.delete([BlockId(7)], [ONE])
        assert await first == Batch([], [])
        assert await second == Batch([BlockId(7)], [])

    asyncio.run(run())


def test_who_comes_later_for_the_same_datanode_gets_the_orders() -> None:
    async def run() -> None:
        orders = Orders()
        earlier = asyncio.create_task(orders.wait(ONE, 0.01))
        await asyncio.sleep(0)
        later = asyncio.create_task(orders.wait(ONE, 30.0))
        await earlier
        orders.delete([BlockId(7)], [ONE])
        assert await later == Batch([BlockId(7)], [])

    asyncio.run(run())
