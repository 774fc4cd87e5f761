"""Metadata and the cluster's level: copies tell it, none of a later one is touched, and a restore never lowers it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dfslib.errors import InvalidArgument, Unavailable
from dfslib.model import NodeId
from dfslib.namenode.checkpoint.cluster import State
from dfslib.namenode.checkpoint.format import Encoder, Header, commit_of, name_of, read_header
from dfslib.namenode.checkpoint.keeper import Keeper
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import make_root
from dfslib.namenode.namespace.records import ClusterRecord
from dfslib.transfer.peer_session import open_peer_session
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL
from dfslib.wire.positions import Position
from tests.unit.namenode.fake_datanode import FakeDatanode
from tests.unit.namenode.open_gate import OpenGate

CLUSTER = "c1"
LATER = NEWEST_LEVEL + 1


class Namenode:
    """A store and its keeper."""

    def __init__(self, folder: Path) -> None:
        self.engine = LmdbEngine(folder)
        self.keeper = Keeper(self.engine, OpenGate(), Registry(5, 60), folder, time.monotonic, new_cluster=False)

    async def begin(self, level: int, epoch: int = 3) -> None:
        def write(txn: Txn) -> None:
            records.put_cluster(txn, ClusterRecord(CLUSTER, 1, level, epoch))
            make_root(txn, 1)

        await self.engine.transact(write)

    @property
    def level(self) -> int:
        return self.engine.read(records.get_level)

    def snapshot(self, path: Path) -> Header:
        about = Header("checkpoint", CLUSTER, 3, 0, 0, 1)
        return self.engine.read(lambda txn: write_snapshot(txn, about, path))


def joiner(level: int, epoch: int = 3, url: str = "http://a") -> Joiner:
    return Joiner(NodeId("a"), url, CLUSTER, epoch, level, str(Position(epoch, 0, bytes(8), bytes(16))))


def put_files(datanode: FakeDatanode, path: Path, level: int) -> None:
    """A checkpoint of a store of the first level, and a journal of this one that goes on from it."""
    with path.open("rb") as file:
        checkpoint = read_header(file)
    datanode.files[str(name_of(checkpoint))] = path.read_bytes()
    number = checkpoint.last + 1
    record = records.encode(ClusterRecord(CLUSTER, 1, level, 3))
    header, encoder = Header("journal", CLUSTER, 3, number, number, 2, level), Encoder()
    body = encoder.header(header) + encoder.records([commit_of(number, {keys.CLUSTER: record})]) + encoder.end()
    datanode.files[str(name_of(header))] = body


@pytest.mark.parametrize("level", range(OLDEST_LEVEL, NEWEST_LEVEL + 1))
def test_a_store_of_a_known_level_is_opened_and_its_copies_tell_the_level(tmp_path: Path, level: int) -> None:
    namenode = Namenode(tmp_path / "store")
    asyncio.run(namenode.begin(level))
    asyncio.run(namenode.keeper.load())
    assert namenode.keeper.cluster.level.current == level
    assert namenode.engine.read(lambda txn: list(check(txn))) == []
    namenode.snapshot(tmp_path / "copy")
    with (tmp_path / "copy").open("rb") as file:
        assert read_header(file).level == level
    namenode.engine.close()


def test_a_store_of_a_later_level_is_refused_with_what_to_do_and_stays(tmp_path: Path) -> None:
    namenode = Namenode(tmp_path)
    asyncio.run(namenode.begin(LATER))
    with pytest.raises(Unavailable, match=f"level {LATER}.*start the version"):
        asyncio.run(namenode.keeper.load())
    assert namenode.level == LATER
    assert any("level" in problem.detail for problem in namenode.engine.read(lambda txn: list(check(txn))))
    namenode.engine.close()


def test_copies_of_a_later_level_are_not_restored_nor_older_ones_in_their_place(tmp_path: Path) -> None:
    source = Namenode(tmp_path / "source")
    asyncio.run(source.begin(OLDEST_LEVEL))
    source.snapshot(tmp_path / "copy")
    source.engine.close()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            datanode = await stack.enter_async_context(FakeDatanode("a").running())
            session = await stack.enter_async_context(open_peer_session())
            put_files(datanode, tmp_path / "copy", LATER)
            before = dict(datanode.files)
            empty = Namenode(tmp_path / "empty")
            empty.keeper.use(session)
            await empty.keeper.load()
            with pytest.raises(Unavailable):
                await empty.keeper.admit(joiner(OLDEST_LEVEL, url=datanode.url))
            with pytest.raises(Unavailable, match=f"level {LATER}.*start the version"):
                await empty.keeper.restore(None)
            assert empty.keeper.cluster.state is State.WAITING
            assert empty.engine.read(records.get_cluster) is None
            assert datanode.files == before
            put_files(datanode, tmp_path / "copy", NEWEST_LEVEL)  # the other ones could have been used
            await empty.keeper.restore(None)
            assert (empty.keeper.cluster.state, empty.level) == (State.OPEN, NEWEST_LEVEL)
            empty.engine.close()

    asyncio.run(work())


def test_a_restore_for_datanodes_of_a_later_level_is_refused_by_hand_as_well(tmp_path: Path) -> None:
    namenode = Namenode(tmp_path)

    async def work() -> None:
        await namenode.keeper.load()
        with pytest.raises(Unavailable):
            await namenode.keeper.admit(joiner(LATER))
        with pytest.raises(InvalidArgument, match=f"level {LATER}.*start the version"):
            await namenode.keeper.restore(None)

    asyncio.run(work())
    namenode.engine.close()


def test_a_restore_from_before_the_upgrade_s_end_makes_it_good(tmp_path: Path) -> None:
    """The datanodes have met the level, and keep it: they would join no namenode of a lower one."""
    source = Namenode(tmp_path / "source")
    asyncio.run(source.begin(OLDEST_LEVEL))
    header = source.snapshot(tmp_path / "copy")
    source.engine.close()

    async def work() -> None:
        async with AsyncExitStack() as stack:
            datanode = await stack.enter_async_context(FakeDatanode("a").running())
            datanode.files[str(name_of(header))] = (tmp_path / "copy").read_bytes()
            empty = Namenode(tmp_path / "empty")
            empty.keeper.use(await stack.enter_async_context(open_peer_session()))
            await empty.keeper.load()
            stranger = Joiner(NodeId("b"), "http://b", "another cluster", 9, NEWEST_LEVEL)
            for one in (joiner(OLDEST_LEVEL, url=datanode.url), stranger):
                with pytest.raises(Unavailable):
                    await empty.keeper.admit(one)
            await empty.keeper.restore(datanode.url)
            assert empty.level == OLDEST_LEVEL, "other clusters' datanodes say nothing of this one"
            empty.engine.close()
            again = Namenode(tmp_path / "again")
            again.keeper.use(await stack.enter_async_context(open_peer_session()))
            await again.keeper.load()
            with pytest.raises(Unavailable):
                await again.keeper.admit(joiner(NEWEST_LEVEL, url=datanode.url))
            await again.keeper.restore(None)
            assert again.level == again.keeper.cluster.level.current == NEWEST_LEVEL
            again.engine.close()

    asyncio.run(work())


def test_a_datanode_that_has_met_more_is_believed(tmp_path: Path) -> None:
    namenode = Namenode(tmp_path)

    async def work() -> None:
        await namenode.begin(OLDEST_LEVEL, epoch=3)
        await namenode.keeper.load()
        with pytest.raises(Unavailable, match="start the version"):
            await namenode.keeper.admit(joiner(LATER))
        assert namenode.keeper.cluster.state is State.OPEN
        # Of an epoch before: the metadata was restored since, from a copy that lacks the upgrade's end.
        await namenode.keeper.admit(joiner(NEWEST_LEVEL, epoch=2))
        assert namenode.level == namenode.keeper.cluster.level.current == NEWEST_LEVEL

    asyncio.run(work())
    namenode.engine.close()


def test_metadata_that_lacks_the_upgrade_s_end_in_its_own_epoch_is_out_of_date(tmp_path: Path) -> None:
    namenode = Namenode(tmp_path)

    async def work() -> None:
        await namenode.begin(OLDEST_LEVEL, epoch=3)
        await namenode.keeper.load()
        with pytest.raises(Unavailable, match="before an upgrade was finalized"):
            await namenode.keeper.admit(joiner(NEWEST_LEVEL, epoch=3))
        assert (namenode.keeper.cluster.state, namenode.level) == (State.WAITING, OLDEST_LEVEL)

    asyncio.run(work())
    namenode.engine.close()
