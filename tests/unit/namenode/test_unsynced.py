"""An fsync waits for the datanodes that hold a file's blocks in memory, and for no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from dfslib.errors import InputOutput, Unavailable
from dfslib.model import InodeId, NodeId
from dfslib.namenode.blocks.unsynced import Unsynced
from dfslib.namenode.membership.registry import Registry
from dfslib.transfer.peer_session import open_peer_session
from dfslib.wire.messages import JoinRequest, encode_error
from tests.deadline import DEADLINE_S

A, B = InodeId(5), InodeId(6)


class Datanode:
    """Answers POST /sync once `gate` is open."""

    def __init__(self) -> None:
        self.syncs = 0
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False
        self.on_sync: Callable[[], None] = lambda: None

    async def sync(self, _: web.Request) -> web.Response:
        self.syncs += 1
        self.begun.set()
        self.on_sync()
        await self.gate.wait()
        if self.fails:
            return web.Response(status=500, body=encode_error(InputOutput("the disk failed")))
        return web.Response(status=204)


@asynccontextmanager
async def cluster(count: int) -> AsyncIterator[tuple[Unsynced, list[Datanode]]]:
    """So many datanodes, all of whose blocks are on disk."""
    registry = Registry(5, 60)
    unsynced = Unsynced(registry, lambda: 0.0)
    session = open_peer_session()
    unsynced.use(session)
    datanodes, runners = [], []
    for number in range(count):
        datanode, app = Datanode(), web.Application()
        app.router.add_post("/sync", datanode.sync)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        request = JoinRequest(f"n{number}", "", 1, port, "", "", 1, 0, 1, 0)
        registry.join(request, f"http://127.0.0.1:{port}", 0.0, 0).reported = True
        datanodes.append(datanode)
        runners.append(runner)
    try:
        await unsynced.run_once()
        assert [datanode.syncs for datanode in datanodes] == [1] * count
        yield unsynced, datanodes
    finally:
        await unsynced.close()
        await session.close()
        for runner in runners:
            await runner.cleanup()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await test()

    asyncio.run(bounded())


def test_a_file_waits_for_its_own_datanodes_only_and_once() -> None:
    async def test() -> None:
        async with cluster(3) as (unsynced, datanodes):
            unsynced.note(A, [NodeId("n0"), NodeId("n1")])
            await unsynced.sync(B)
            assert [datanode.syncs for datanode in datanodes] == [1, 1, 1]
            await unsynced.sync(A)
            await unsynced.sync(A)
            assert [datanode.syncs for datanode in datanodes] == [2, 2, 1]

    run(test)


def test_what_is_written_during_a_sync_waits_for_the_next_one() -> None:
    async def test() -> None:
        async with cluster(1) as (unsynced, [datanode]):
            datanode.gate.clear()
            datanode.begun.clear()
            unsynced.note(A, [NodeId("n0")])
            first = asyncio.create_task(unsynced.sync(A))
            await datanode.begun.wait()
            unsynced.note(B, [NodeId("n0")])
            same, later = asyncio.create_task(unsynced.sync(A)), asyncio.create_task(unsynced.sync(B))
            for _ in range(10):
                await asyncio.sleep(0)
            assert not same.done()  # it is in the sync that runs, and that has not ended
            datanode.gate.set()
            await asyncio.gather(first, same, later)
            assert datanode.syncs == 3

    run(test)


def test_who_waits_is_not_kept_by_those_who_go_on_writing() -> None:
    async def test() -> None:
        async with cluster(1) as (unsynced, [datanode]):
            datanode.on_sync = lambda: unsynced.note(A, [NodeId("n0")])
            unsynced.note(A, [NodeId("n0")])
            await asyncio.gather(*(unsynced.sync(A) for _ in range(3)))
            assert datanode.syncs == 2
            await unsynced.sync(A)
            assert datanode.syncs == 3

    run(test)


def test_a_sync_that_failed_is_owed_still() -> None:
    async def test() -> None:
        async with cluster(2) as (unsynced, [bad, good]):
            bad.fails = True
            unsynced.note(A, [NodeId("n0")])
            with pytest.raises(InputOutput):
                await unsynced.sync(A)
            with pytest.raises(InputOutput):
                await unsynced.sync(A)
            unsynced.note(A, [NodeId("n1")])
            await unsynced.sync(A)  # one good copy is on a disk
            bad.fails = False
            await unsynced.run_once()
            assert (bad.syncs, good.syncs) == (5, 2)
            await unsynced.sync(A)
            assert bad.syncs == 5

    run(test)


def test_a_caller_that_goes_away_leaves_the_sync_to_the_others() -> None:
    async def test() -> None:
        async with cluster(1) as (unsynced, [datanode]):
            datanode.gate.clear()
            datanode.begun.clear()
            unsynced.note(A, [NodeId("n0")])
            gone, stays = asyncio.create_task(unsynced.sync(A)), asyncio.create_task(unsynced.sync(A))
            await datanode.begun.wait()
            gone.cancel()
            datanode.gate.set()
            await stays
            assert datanode.syncs == 2

    run(test)


def test_a_datanode_that_joins_again_owes_everything() -> None:
    async def test() -> None:
        async with cluster(1) as (unsynced, [datanode]):
            unsynced.joined(NodeId("n0"))
            await unsynced.sync(A)
            assert datanode.syncs == 2

    run(test)


def test_without_its_datanodes_a_file_is_not_synced() -> None:
    async def test() -> None:
        async with cluster(1) as (unsynced, _):
            unsynced.note(A, [NodeId("elsewhere")])
            with pytest.raises(Unavailable):
                await unsynced.sync(A)

    run(test)
