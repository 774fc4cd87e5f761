"""An fsync waits for the datanodes that hold a file's blocks in memory, and for no others."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
from aiohttp import web

from dfslib.errors import InputOutput, Unavailable
from dfslib.model import BlockId, BlockRef, Extent, InodeId, NodeId
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.unsynced import Unsynced
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.records import BlockRecord
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
        self.on_sync: Callable[[], object] = lambda: None

    async def sync(self, _: web.Request) -> web.Response:
        self.syncs += 1
        self.begun.set()
        self.on_sync()
        await self.gate.wait()
        if self.fails:
            return web.Response(status=500, body=encode_error(InputOutput("the disk failed")))
        return web.Response(status=204)


class Namenode:
    """Whose metadata has blocks, and no files but by their numbers."""

    def __init__(self, datanodes: list[Datanode]) -> None:
        self.datanodes = datanodes
        self.engine, self.registry, self.in_flight = MemoryEngine(), Registry(5, 60), InFlight()
        self.unsynced = Unsynced(self.engine, self.registry, self.in_flight, lambda: 0.0)
        self._numbers = itertools.count(1)

    def note(self, ino: InodeId, *nodes: str) -> BlockId:
        """A block that is about to be committed."""
        block = BlockId(next(self._numbers))
        self.in_flight.hold(block)
        self.unsynced.note(ino, [BlockRef(block, 10, 0, tuple(map(NodeId, nodes)))])
        return block

    async def write(self, ino: InodeId, *nodes: str) -> BlockId:
        """A block that is committed."""
        block = self.note(ino, *nodes)
        await self.enter(block, *nodes)
        self.in_flight.release(block, used=True)
        return block

    async def enter(self, block: BlockId, *nodes: str, live: int = 10) -> None:
        record = BlockRecord(10, 0, live, tuple(map(NodeId, nodes)))
        await self.engine.transact(lambda txn: records.put_block(txn, block, record))


@asynccontextmanager
async def cluster(count: int) -> AsyncIterator[Namenode]:
    """So many datanodes, all of whose blocks are on disk."""
    namenode = Namenode([])
    session = open_peer_session()
    namenode.unsynced.use(session)
    runners = []
    for number in range(count):
        datanode, app = Datanode(), web.Application()
        app.router.add_post("/sync", datanode.sync)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        request = JoinRequest(f"n{number}", "", 1, port, "", "", 1, 0, 1, 0)
        namenode.registry.join(request, f"http://127.0.0.1:{port}", 0.0, 0).reported = True
        namenode.datanodes.append(datanode)
        runners.append(runner)
    try:
        await namenode.unsynced.run_once()
        assert [datanode.syncs for datanode in namenode.datanodes] == [1] * count
        yield namenode
    finally:
        await namenode.unsynced.close()
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
        async with cluster(3) as namenode:
            await namenode.write(A, "n0", "n1")
            await namenode.unsynced.sync(B)
            assert [datanode.syncs for datanode in namenode.datanodes] == [1, 1, 1]
            await namenode.unsynced.sync(A)
            await namenode.unsynced.sync(A)
            assert [datanode.syncs for datanode in namenode.datanodes] == [2, 2, 1]

    run(test)


def test_what_is_written_during_a_sync_waits_for_the_next_one() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            (datanode,), unsynced = namenode.datanodes, namenode.unsynced
            datanode.gate.clear()
            datanode.begun.clear()
            await namenode.write(A, "n0")
            first = asyncio.create_task(unsynced.sync(A))
            await datanode.begun.wait()
            await namenode.write(B, "n0")
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
        async with cluster(1) as namenode:
            (datanode,), unsynced = namenode.datanodes, namenode.unsynced
            datanode.on_sync = lambda: namenode.note(A, "n0")
            await namenode.write(A, "n0")
            await asyncio.gather(*(unsynced.sync(A) for _ in range(3)))
            assert datanode.syncs == 2
            await unsynced.sync(A)
            assert datanode.syncs == 3

    run(test)


def test_a_sync_that_failed_is_owed_still() -> None:
    async def test() -> None:
        async with cluster(2) as namenode:
            (bad, good), unsynced = namenode.datanodes, namenode.unsynced
            bad.fails = True
            block = await namenode.write(A, "n0")
            with pytest.raises(InputOutput):
                await unsynced.sync(A)
            with pytest.raises(InputOutput):
                await unsynced.sync(A)
            await namenode.enter(block, "n0", "n1")
            await unsynced.sync(A)  # one good copy is on a disk
            bad.fails = False
            await unsynced.run_once()
            assert (bad.syncs, good.syncs) == (5, 1)
            await unsynced.sync(A)
            assert bad.syncs == 5

    run(test)


def test_each_block_has_to_be_on_some_disk() -> None:
    async def test() -> None:
        async with cluster(3) as namenode:
            (bad, _, _), unsynced = namenode.datanodes, namenode.unsynced
            bad.fails = True
            await namenode.write(A, "n0", "n1")
            await unsynced.sync(A)
            await namenode.write(A, "n0")
            await namenode.write(A, "n1", "n2")
            with pytest.raises(InputOutput, match="the disk failed"):
                await unsynced.sync(A)
            await unsynced.run_once()
            with pytest.raises(InputOutput, match="the disk failed"):
                await unsynced.sync(A)
            bad.fails = False
            await unsynced.sync(A)

    run(test)


def test_a_datanode_that_is_away_has_nothing_on_its_disk() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            await namenode.write(A, "n0")
            await namenode.write(A, "away")
            for _ in range(2):
                with pytest.raises(Unavailable, match="is there"):
                    await namenode.unsynced.sync(A)

    run(test)


def test_a_block_that_was_lost_in_memory_is_no_success_for_whoever_asks_again() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            (datanode,), unsynced = namenode.datanodes, namenode.unsynced
            block = await namenode.write(A, "n0")
            datanode.fails = True
            with pytest.raises(InputOutput):
                await unsynced.sync(A)
            await namenode.enter(block)  # it has told
            datanode.fails = False
            await unsynced.run_once()
            for _ in range(2):
                with pytest.raises(InputOutput, match="lost before it was on disk"):
                    await unsynced.sync(A)
            await namenode.enter(block, live=0)  # overwritten
            await unsynced.sync(A)

    run(test)


def test_what_is_on_its_way_to_the_metadata_is_not_forgotten() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            block = namenode.note(A, "n0")
            await namenode.unsynced.sync(A)
            await namenode.unsynced.run_once()
            await namenode.enter(block)  # without the one that has it: lost since
            namenode.in_flight.release(block, used=True)
            with pytest.raises(InputOutput, match="lost before it was on disk"):
                await namenode.unsynced.sync(A)

    run(test)


def test_a_range_that_two_files_share_is_synced_for_both() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            (datanode,), unsynced = namenode.datanodes, namenode.unsynced
            await namenode.write(A, "n0")
            unsynced.shared(A, B)
            datanode.fails = True
            with pytest.raises(InputOutput):
                await unsynced.sync(B)
            datanode.fails = False
            await unsynced.sync(B)
            assert datanode.syncs == 3

    run(test)


def test_what_was_written_before_this_process_began_is_looked_for_once() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            (datanode,), unsynced = namenode.datanodes, namenode.unsynced
            here, elsewhere = BlockId(100), BlockId(101)
            for block, ino, node in ((here, A, "n0"), (elsewhere, B, "not yet back")):
                await namenode.enter(block, node)
                await namenode.engine.transact(partial(_put_extent, ino, block))
            away = JoinRequest("not yet back", "", 1, 1, "", "", 1, 0, 1, 0)
            namenode.registry.join(away, "http://127.0.0.1:1", 0.0, 0)
            await unsynced.sync(A)
            with pytest.raises(Unavailable):
                await unsynced.sync(B)
            await namenode.enter(here)  # what is lost later is no fsync's
            await unsynced.sync(A)
            assert datanode.syncs == 1

    run(test)


def _put_extent(ino: InodeId, block: BlockId, txn: Txn) -> None:
    records.put_chunk(txn, ino, 0, [Extent(0, 10, block, 0)])


def test_a_caller_that_goes_away_leaves_the_sync_to_the_others() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            (datanode,), unsynced = namenode.datanodes, namenode.unsynced
            datanode.gate.clear()
            datanode.begun.clear()
            await namenode.write(A, "n0")
            gone, stays = asyncio.create_task(unsynced.sync(A)), asyncio.create_task(unsynced.sync(A))
            await datanode.begun.wait()
            gone.cancel()
            datanode.gate.set()
            await stays
            assert datanode.syncs == 2

    run(test)


def test_a_datanode_that_joins_again_owes_everything() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            (datanode,), unsynced = namenode.datanodes, namenode.unsynced
            unsynced.joined(NodeId("n0"))
            await unsynced.sync(A)
            assert datanode.syncs == 2

    run(test)


def test_without_its_datanodes_a_file_is_not_synced() -> None:
    async def test() -> None:
        async with cluster(1) as namenode:
            await namenode.write(A, "elsewhere")
            with pytest.raises(Unavailable):
                await namenode.unsynced.sync(A)

    run(test)
