"""A store that has metadata, and datanodes that were brought older, newer or other metadata: LMDB, files, HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import lmdb
import pytest

from dfslib.errors import InvalidArgument, Unavailable
from dfslib.model import ROOT, FileType, NodeId
from dfslib.namenode.checkpoint import comparing
from dfslib.namenode.checkpoint.cluster import State
from dfslib.namenode.checkpoint.format import Encoder, Header, name_of
from dfslib.namenode.checkpoint.keeper import Keeper
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.lineage import OWN_KEYS
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace import records
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.records import ClusterRecord, NodeRecord
from dfslib.transfer.peer_session import open_peer_session
from dfslib.wire.positions import Position
from tests.unit.namenode.fake_datanode import FakeDatanode
from tests.unit.namenode.open_gate import OpenGate

CLUSTER, EPOCH = "c1", 3
FILE = NewInode(type=FileType.FILE, mode=0o644)


class Store:
    """A folder that is opened, written to, copied, and opened again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = LmdbEngine(folder)

    def write(self, name: str) -> Store:
        asyncio.run(self.engine.transact(lambda txn: create(txn, ROOT, name.encode(), FILE, 1)))
        return self

    def copy(self, folder: Path) -> Store:
        folder.mkdir()
        self.engine._env.copy(str(folder))
        return Store(folder)

    def reopened(self) -> Store:
        self.engine.close()
        self.engine = LmdbEngine(self.folder)
        return self

    @property
    def position(self) -> str:
        head = self.engine.history.head
        return str(Position(EPOCH, head.number, head.run, head.chain))

    def copy_of_metadata(self) -> dict[str, bytes]:
        """As datanodes have it."""
        path = self.folder / "file"
        about = Header("checkpoint", CLUSTER, EPOCH, 0, 0, 1)
        header = self.engine.read(lambda txn: write_snapshot(txn, about, path))
        return {str(name_of(header)): path.read_bytes()}


def begun(folder: Path, nodes: int, **changed: NodeRecord) -> Store:
    """A store of a cluster that knows n0, n1, …"""

    def first(txn: Txn) -> None:
        records.put_cluster(txn, ClusterRecord(CLUSTER, 1, epoch=EPOCH))
        make_root(txn, 1)
        for number in range(nodes):
            records.put_node(txn, changed.get(f"n{number}", node_record(number)))

    store = Store(folder)
    asyncio.run(store.engine.transact(first))
    return store


def node_record(number: int, *, drained: bool = False, dead: bool = False) -> NodeRecord:
    return NodeRecord(NodeId(f"n{number}"), f"http://n{number}", "", 1, 0, 0, 0, drained, dead)


class Namenode:
    def __init__(self, store: Store) -> None:
        self.engine = store.engine
        self.now_s = 0.0
        self.keeper = Keeper(
            store.engine, OpenGate(), Registry(5, 60), store.folder, lambda: self.now_s, new_cluster=False
        )
        self.datanodes: dict[str, FakeDatanode] = {}

    async def join(self, number: int, position: str = "") -> None:
        """Raises Unavailable."""
        name = f"n{number}"
        url = self.datanodes[name].url if name in self.datanodes else f"http://{name}"
        await self.keeper.admit(Joiner(NodeId(name), url, CLUSTER, EPOCH, 1, position))

    async def refused(self, number: int, position: str = "") -> str:
        """Why."""
        with pytest.raises(Unavailable) as refusal:
            await self.join(number, position)
        return str(refusal.value)

    @property
    def state(self) -> State:
        return self.keeper.cluster.state

    @property
    def is_outdated(self) -> bool:
        return self.keeper._outdated.is_set()

    @property
    def epoch(self) -> int:
        record = self.engine.read(records.get_cluster)
        assert record is not None
        assert record.epoch == self.keeper.cluster.epoch
        return record.epoch


@asynccontextmanager
async def namenode_on(store: Store, **held: dict[str, bytes]) -> AsyncIterator[Namenode]:
    """`held`: what datanodes have that can be asked."""
    async with AsyncExitStack() as stack:
        namenode = Namenode(store)
        session = open_peer_session()
        stack.push_async_callback(session.close)
        for name, files in held.items():
            datanode = namenode.datanodes[name] = await stack.enter_async_context(FakeDatanode(name).running())
            datanode.files.update(files)
        namenode.keeper.use(session)
        stack.push_async_callback(namenode.keeper.close)
        await namenode.keeper.load()
        yield namenode


def run(store: Store, scenario: Callable[[Namenode], Awaitable[None]], **held: dict[str, bytes]) -> None:
    async def whole() -> None:
        async with namenode_on(store, **held) as namenode:
            await scenario(namenode)

    asyncio.run(whole())
    store.engine.close()


def test_it_opens_with_half_and_commits_nothing_before(tmp_path: Path) -> None:
    store = begun(tmp_path / "a", 3).write("x")
    older = store.position
    store.write("y").reopened()

    async def scenario(namenode: Namenode) -> None:
        head = namenode.engine.history.head
        assert (namenode.state, namenode.keeper.cluster.id) == (State.WAITING, CLUSTER)
        assert "2 of its 3 datanodes" in await namenode.refused(1, older)
        assert "(1 so far)" in await namenode.refused(1, older)
        assert "2 of its 3 datanodes" in await namenode.refused(7, store.position)
        assert namenode.engine.history.head == head
        await namenode.join(2, store.position)
        assert namenode.state is State.OPEN
        await namenode.join(1, older)

    run(store, scenario)


@pytest.mark.parametrize(("drained", "dead"), [(True, False), (False, True)])
def test_the_drained_and_the_dead_do_not_count(tmp_path: Path, drained: bool, dead: bool) -> None:
    gone = {f"n{number}": node_record(number, drained=drained, dead=dead) for number in (1, 2)}
    store = begun(tmp_path / "a", 3, **gone)

    async def scenario(namenode: Namenode) -> None:
        await namenode.refused(1, store.position)
        await namenode.join(0, store.position)
        assert namenode.state is State.OPEN

    run(store, scenario)


def test_without_any_datanode_it_opens_at_once(tmp_path: Path) -> None:
    async def scenario(namenode: Namenode) -> None:
        assert namenode.state is State.OPEN

    run(begun(tmp_path / "a", 0), scenario)


def test_a_later_commit_of_its_own_run_makes_it_out_of_date_without_a_question(tmp_path: Path) -> None:
    store = begun(tmp_path / "a", 3)
    old = store.copy(tmp_path / "b")
    later = store.write("x").position
    store.engine.close()

    async def scenario(namenode: Namenode) -> None:
        assert "behind the end of the metadata here" in await namenode.refused(0, later)
        assert namenode.is_outdated
        assert "behind the end" in await namenode.refused(1, old.position)
        with pytest.raises(Unavailable):
            await namenode.keeper.open_by_force()

    run(old, scenario)


def test_a_copy_tells_that_a_later_run_went_on_from_its_end(tmp_path: Path) -> None:
    store = begun(tmp_path / "a", 3)
    old = store.copy(tmp_path / "b")
    for name in "xyz":
        store.reopened().write(name)
    later, files = store.position, store.copy_of_metadata()
    store.engine.close()

    async def scenario(namenode: Namenode) -> None:
        assert "behind the end of the metadata here" in await namenode.refused(0, later)
        assert namenode.is_outdated

    run(old, scenario, n0=files)


def test_one_that_does_not_remember_is_asked_for_its_copies(tmp_path: Path) -> None:
    store = begun(tmp_path / "a", 2)
    old = store.copy(tmp_path / "b")
    files = store.reopened().write("x").copy_of_metadata()
    store.engine.close()

    async def scenario(namenode: Namenode) -> None:
        await namenode.refused(1)  # it cannot be asked
        assert "(0 so far)" in namenode.keeper.cluster.detail
        assert "behind the end" in await namenode.refused(0)
        assert namenode.is_outdated

    run(old, scenario, n0=files)


def parted(tmp_path: Path, nodes: int) -> tuple[Store, str, dict[str, bytes]]:
    """One of two that went on, each by a run of its own; position and copies of the other, which has the greater
    numbers."""
    store = begun(tmp_path / "a", nodes)
    other = store.copy(tmp_path / "b")
    store.reopened().write("here")
    for name in "xyz":
        other.write(name)
    position, files = other.position, other.copy_of_metadata()
    other.engine.close()
    return store, position, files


def test_where_they_have_parted_most_have_to_say_so(tmp_path: Path) -> None:
    store, position, files = parted(tmp_path, 3)

    async def scenario(namenode: Namenode) -> None:
        assert "which is not in the past of the metadata here" in await namenode.refused(0, position)
        assert not namenode.is_outdated
        assert "most of its datanodes have other metadata" in await namenode.refused(1, position)
        assert namenode.is_outdated

    run(store, scenario, n0=files, n1={})  # the copies of one are gone, and what it remembers is not


def test_who_has_parted_is_refused_once_it_is_open_until_a_person_says_so(tmp_path: Path) -> None:
    store, position, files = parted(tmp_path, 2)

    async def scenario(namenode: Namenode) -> None:
        await namenode.join(0, store.position)
        for _ in range(2):
            assert "both gone on" in await namenode.refused(1, position)
        assert namenode.state is State.OPEN
        assert "which is not in the past of" in namenode.keeper.detail
        assert "namenode open --force" in namenode.keeper.detail
        assert not namenode.keeper.agrees(position)
        inode = namenode.engine.read(records.last_inode)
        await namenode.keeper.open_by_force()
        await namenode.keeper.open_by_force()
        assert namenode.epoch == EPOCH + 1
        assert namenode.engine.read(records.last_inode) == inode + 1_000_000
        assert namenode.keeper.hold.held
        assert (namenode.state, namenode.keeper.detail) == (State.OPEN, "")
        assert namenode.keeper.agrees(position)
        await namenode.join(1, position)

    run(store, scenario, n1=files)


def test_who_has_parted_and_is_brought_back_is_not_refused_any_more(tmp_path: Path) -> None:
    store, position, files = parted(tmp_path, 2)

    async def scenario(namenode: Namenode) -> None:
        await namenode.join(0, store.position)
        await namenode.refused(1, position)
        await namenode.join(1, store.position)  # its volume was put back
        assert namenode.keeper.detail == ""

    run(store, scenario, n1=files)


def test_a_machine_set_back_with_its_memory_is_out_of_date_while_it_serves(tmp_path: Path) -> None:
    """Its run goes on, and the datanodes were brought later commits of that very run."""
    store = begun(tmp_path / "a", 1).write("x")

    async def scenario(namenode: Namenode) -> None:
        await namenode.join(0, store.position)
        head = namenode.engine.history.head
        later = str(Position(EPOCH, head.number + 3, head.run, bytes(16)))
        assert not namenode.keeper.agrees(later)
        assert "behind the end" in await namenode.refused(0, later)
        assert namenode.is_outdated

    run(store, scenario)


def test_a_store_that_does_not_tell_who_was_dead_gives_them_their_time(tmp_path: Path) -> None:
    """Of a release without lineage: those that are gone for good would keep it from being served after an upgrade."""
    store = begun(tmp_path / "a", 5)
    store.engine.close()
    with lmdb.open(str(tmp_path / "a"), map_size=1 << 30) as env, env.begin(write=True) as txn:
        for key in OWN_KEYS:
            assert txn.delete(key)
    store = Store(tmp_path / "a")

    async def scenario(namenode: Namenode) -> None:
        await namenode.refused(0)
        namenode.now_s += 61
        await namenode.keeper._decide_once()
        assert namenode.state is State.OPEN

    run(store, scenario, n0={})


def test_but_not_without_any_of_them_and_no_other_store_does(tmp_path: Path) -> None:
    async def scenario(namenode: Namenode) -> None:
        await namenode.refused(0, store.position)
        namenode.now_s += 1000
        await namenode.keeper._decide_once()
        await namenode.refused(0, store.position)

    store = begun(tmp_path / "a", 3)
    run(store, scenario)
    with lmdb.open(str(tmp_path / "a"), map_size=1 << 30) as env, env.begin(write=True) as txn:
        for key in OWN_KEYS:
            assert txn.delete(key)

    async def nobody(namenode: Namenode) -> None:
        namenode.now_s += 1000
        await namenode.keeper._decide_once()
        assert namenode.state is State.WAITING

    run(Store(tmp_path / "a"), nobody)


def test_who_is_refused_and_does_not_come_any_more_is_not_told_of(tmp_path: Path) -> None:
    store, position, files = parted(tmp_path, 2)

    async def scenario(namenode: Namenode) -> None:
        await namenode.join(0, store.position)
        await namenode.refused(1, position)
        assert "which is not in the past of" in namenode.keeper.detail
        namenode.now_s += 11
        assert namenode.keeper.detail == ""

    run(store, scenario, n1=files)


def test_opened_by_force_while_it_waits(tmp_path: Path) -> None:
    store = begun(tmp_path / "a", 3).write("x")

    async def scenario(namenode: Namenode) -> None:
        until_ns = namenode.engine.history.head.time_ns
        await namenode.keeper.open_by_force()
        assert (namenode.state, namenode.epoch) == (State.OPEN, EPOCH + 1)
        restored = namenode.engine.read(records.get_restored)
        assert restored is not None
        assert (restored.until_ns, namenode.keeper.hold.held) == (until_ns, True)
        assert namenode.keeper.agrees(str(Position(EPOCH, 9999, b"others.." , bytes(16))))
        await namenode.join(1, str(Position(EPOCH, 9999, b"others..", bytes(16))))

    run(store, scenario)


def test_there_has_to_be_something_to_be_opened(tmp_path: Path) -> None:
    async def scenario(namenode: Namenode) -> None:
        with pytest.raises(InvalidArgument, match="DFS_NEW_CLUSTER"):
            await namenode.keeper.open_by_force()
        assert namenode.state is State.WAITING

    run(Store(tmp_path / "a"), scenario)


@pytest.mark.parametrize(("ahead", "state"), [(0, State.OPEN), (1, State.WAITING)])
def test_one_of_a_release_without_lineage_is_compared_by_numbers(tmp_path: Path, ahead: int, state: State) -> None:
    store = begun(tmp_path / "a", 1)
    last = store.engine.history.head.number + ahead
    header = Header("checkpoint", CLUSTER, EPOCH, 0, last, 1)
    encoder = Encoder()
    files = {str(name_of(header)): encoder.header(header) + encoder.records([]) + encoder.end()}

    async def scenario(namenode: Namenode) -> None:
        if ahead:
            assert "behind the end" in await namenode.refused(0)
        else:
            await namenode.join(0)
        assert (namenode.state, namenode.is_outdated) == (state, bool(ahead))

    run(store, scenario, n0=files)


def test_one_that_takes_long_to_answer_is_heard_when_it_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_PATIENCE_S", 0.05)
    store = begun(tmp_path / "a", 1)

    async def scenario(namenode: Namenode) -> None:
        datanode = namenode.datanodes["n0"]
        datanode.works.clear()
        for _ in range(3):
            assert "are being looked at" in await namenode.refused(0)
        assert datanode.hanging == 1
        datanode.works.set()
        monkeypatch.setattr(comparing, "_PATIENCE_S", 30.0)
        await namenode.join(0)

    run(store, scenario, n0={})


def test_those_that_are_asked_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_PATIENCE_S", 0.01)
    monkeypatch.setattr(comparing, "_ASKED_MAX", 2)
    store = begun(tmp_path / "a", 5)

    async def scenario(namenode: Namenode) -> None:
        for datanode in namenode.datanodes.values():
            datanode.works.clear()
        for number in (0, 1):
            assert f"datanode n{number} are being" in await namenode.refused(number)
        assert "many datanodes" in await namenode.refused(2)
        for datanode in namenode.datanodes.values():
            datanode.works.set()
        monkeypatch.setattr(comparing, "_PATIENCE_S", 30.0)
        assert "(1 so far)" in await namenode.refused(1)
        assert "(2 so far)" in await namenode.refused(0)
        await namenode.join(2)

    run(store, scenario, n0={}, n1={}, n2={})
