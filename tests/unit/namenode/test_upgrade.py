"""Who stands in the way of a higher level, and raising it: at once for all, durably, or not at all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import pytest

from dfslib.errors import InvalidArgument, NoSpace
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.membership.registry import NodeState, Registry
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import make_root
from dfslib.namenode.sessions.table import Sessions
from dfslib.namenode.upgrade.finalize import Upgrade
from dfslib.namenode.upgrade.level import Level
from dfslib.namenode.upgrade.standing import of_datanode, of_mount, refusal
from dfslib.runtime.tasks import Tasks
from dfslib.wire.features import LEVELS, NEWEST_LEVEL, OLDEST_LEVEL, Role, named
from dfslib.wire.messages import JoinRequest

T = TypeVar("T")
KNOWS = named(Role.DATANODE)


def datanode(**facts: Any) -> str:
    usual: dict[str, Any] = {
        "state": NodeState.ALIVE, "present": True, "drained": False, "to_move": None, "features": KNOWS,
        "level": NEWEST_LEVEL,
    }  # fmt: skip
    return of_datanode(**(usual | facts))


def test_a_datanode_that_came_with_the_features_is_in_nobody_s_way_whatever_its_state() -> None:
    assert {datanode(state=state) for state in NodeState} == {""}


def test_one_that_lacks_a_feature_or_has_not_come_is() -> None:
    assert "update it" in datanode(features=[])
    for state in (NodeState.SUSPECT, NodeState.DEAD):
        assert "start it" in datanode(state=state, present=False, features=[])


def test_one_that_is_drained_does_not_count_once_nothing_of_it_is_needed() -> None:
    for state in NodeState:
        assert datanode(state=state, drained=True, to_move=0, features=[]) == ""
    assert datanode(state=NodeState.DEAD, present=False, drained=True, to_move=7, features=[]) == ""
    for to_move in (None, 7):
        assert "until it is drained" in datanode(state=NodeState.DRAINING, drained=True, to_move=to_move, features=[])
        assert "until it is drained" in datanode(
            state=NodeState.SUSPECT, present=False, drained=True, to_move=to_move, features=[]
        )


def test_mounts_have_to_know_and_to_have_come_back() -> None:
    assert of_mount(back=True, features=named(Role.MOUNT), level=NEWEST_LEVEL) == ""
    assert "update it" in of_mount(back=True, features=[], level=NEWEST_LEVEL)
    assert "come back" in of_mount(back=False, features=[], level=NEWEST_LEVEL)


def test_a_refusal_is_one_line_however_many_there_are() -> None:
    text = refusal(1, [f"datanode {number} is away" for number in range(1000)])
    assert "datanode 0 is away" in text
    assert text.endswith("and 992 more")
    assert "mount h:/a?b?[0m is away" in refusal(1, ["mount h:/a\nb\x1b[0m is away"])


def test_a_level_that_is_not_reached_asks_nothing_of_peers() -> None:
    level = Level()
    level.require(Role.DATANODE, [])
    assert not level.has(LEVELS)
    level.opened(LEVELS.level)
    assert level.has(LEVELS)
    level.require(Role.DATANODE, KNOWS)
    with pytest.raises(InvalidArgument, match="update the datanode"):
        level.require(Role.DATANODE, [])


class Engine(MemoryEngine):
    """Commits when it is told to, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.full = False

    async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
        await self.may_commit.wait()
        if self.full:
            raise NoSpace("the namenode's disk is full")
        return await super().transact(fn, by)


def sessions(engine: MemoryEngine, registry: Registry) -> Sessions:
    return Sessions(engine, cast(BlockWriter, None), registry, 60.0, lambda: 0.0, itertools.count(1).__next__)


class Namenode:
    """At level 1, with one datanode that has come."""

    def __init__(self) -> None:
        self.engine, self.cluster, self.registry, self.tasks = Engine(), Cluster(), Registry(5, 60), Tasks()
        self.sessions = sessions(self.engine, self.registry)
        self.moving: dict[str, int | None] = {}
        self.upgrade = Upgrade(
            self.engine, self.cluster, self.registry, self.sessions, self.moving.get, self.tasks, lambda: 0.0
        )

    async def open(self) -> None:
        def begin(txn: Txn) -> None:
            make_root(txn, 1)
            records.put_cluster(txn, records.ClusterRecord("c", 1))

        await self.engine.transact(begin)
        self.cluster.opened("c", 0, self.stored(), None)
        self.join("a", KNOWS)

    def stored(self) -> int:
        return self.engine.read(records.get_level)

    def join(self, name: str, features: list[str]) -> None:
        request = JoinRequest(name, "c", 1, 1, "", "", 1, 0, 1, 0, features=features, version="9")
        node = self.registry.join(request, f"http://{name}", 0.0, 0)
        self.registry.report(node, 0.0, first=True, last=True)


def run(work: Callable[[Namenode], Any]) -> None:
    async def body() -> None:
        namenode = Namenode()
        await namenode.open()
        try:
            await work(namenode)
        finally:
            await namenode.tasks.close()

    asyncio.run(body())


def test_it_is_raised_in_the_store_and_said_again_it_does_nothing() -> None:
    async def work(namenode: Namenode) -> None:
        assert namenode.upgrade.status().possible
        for _ in range(2):
            after = await namenode.upgrade.finalize()
            assert (after.level, after.newest_level, after.possible) == (NEWEST_LEVEL, NEWEST_LEVEL, False)
            assert namenode.stored() == namenode.cluster.level.current == NEWEST_LEVEL
        assert namenode.engine.read(lambda txn: list(check(txn))) == []

    run(work)


def test_who_is_in_the_way_is_named_and_nothing_changes() -> None:
    async def work(namenode: Namenode) -> None:
        namenode.join("old", [])
        session = await namenode.sessions.begin("host:/mnt")
        with pytest.raises(
            InvalidArgument, match=r"http://old\) does not know levels.*mount host:/mnt does not know levels"
        ):
            await namenode.upgrade.finalize()
        assert namenode.stored() == namenode.cluster.level.demanded == OLDEST_LEVEL
        status = namenode.upgrade.status()
        assert [bool(node.obstacle) for node in status.nodes] == [False, True]
        namenode.join("old", KNOWS)
        session.features = frozenset(named(Role.MOUNT))
        await namenode.upgrade.finalize()
        assert namenode.stored() == NEWEST_LEVEL

    run(work)


def test_sessions_from_before_a_restart_are_waited_for() -> None:
    async def work(namenode: Namenode) -> None:
        before = sessions(namenode.engine, namenode.registry)
        await before.begin("host:/mnt")
        with pytest.raises(InvalidArgument, match="host:/mnt has not come back"):
            await namenode.upgrade.finalize()

    run(work)


def test_nobody_who_lacks_it_comes_in_while_it_is_raised() -> None:
    async def work(namenode: Namenode) -> None:
        namenode.engine.may_commit.clear()
        raising = asyncio.create_task(namenode.upgrade.finalize())
        again = asyncio.create_task(namenode.upgrade.finalize())
        await asyncio.sleep(0)
        assert namenode.cluster.level.current == OLDEST_LEVEL  # nothing is written that is not read yet
        with pytest.raises(InvalidArgument):
            namenode.cluster.level.require(Role.MOUNT, [])
        namenode.engine.may_commit.set()
        assert (await raising).level == (await again).level == NEWEST_LEVEL

    run(work)


def test_a_client_that_goes_away_leaves_it_whole() -> None:
    async def work(namenode: Namenode) -> None:
        namenode.engine.may_commit.clear()
        raising = asyncio.create_task(namenode.upgrade.finalize())
        await asyncio.sleep(0)
        raising.cancel()
        await asyncio.gather(raising, return_exceptions=True)
        namenode.engine.may_commit.set()
        assert (await namenode.upgrade.finalize()).level == NEWEST_LEVEL == namenode.stored()

    run(work)


def test_a_store_that_fails_leaves_the_level_and_lets_the_old_in_again(caplog: pytest.LogCaptureFixture) -> None:
    async def work(namenode: Namenode) -> None:
        namenode.engine.full = True
        with pytest.raises(NoSpace):
            await namenode.upgrade.finalize()
        namenode.cluster.level.require(Role.DATANODE, [])
        namenode.engine.full = False
        assert (await namenode.upgrade.finalize()).level == NEWEST_LEVEL

    run(work)


def test_a_drained_one_that_stays_behind_has_to_join_anew() -> None:
    async def work(namenode: Namenode) -> None:
        namenode.join("old", [])
        for node in namenode.registry.all():
            if node.id == "old":
                node.drained = True
        with pytest.raises(InvalidArgument, match="wait until it is drained"):
            await namenode.upgrade.finalize()
        namenode.moving["old"] = 0
        await namenode.upgrade.finalize()
        present = {node.id: node.present for node in namenode.registry.all()}
        assert present == {"a": True, "old": False}

    run(work)
