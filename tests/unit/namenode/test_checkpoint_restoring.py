"""A store is filled from files, whatever ends the process in between; LMDB, real files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from dfslib.errors import Unavailable
from dfslib.model import ROOT, FileType, NodeId
from dfslib.namenode.checkpoint import recovery as recovery_module
from dfslib.namenode.checkpoint import restoring
from dfslib.namenode.checkpoint.chains import Chain
from dfslib.namenode.checkpoint.cluster import State
from dfslib.namenode.checkpoint.fetching import Fetched
from dfslib.namenode.checkpoint.format import (
    Commit,
    Encoder,
    Header,
    commit_of,
    lineage_in,
    name_of,
    read_header,
    read_records,
)
from dfslib.namenode.checkpoint.keeper import Keeper
from dfslib.namenode.checkpoint.opening import Joiner
from dfslib.namenode.checkpoint.restoring import apply, clear, mark, unfinished
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import KEY_MAX, Journal, MetadataEngine, ReadTxn, Txn, Watch
from dfslib.namenode.metadata.history import History
from dfslib.namenode.metadata.lineage import OWN_KEYS
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.namespace.records import ClusterRecord
from tests.deadline import DEADLINE_S
from tests.unit.namenode.open_gate import OpenGate

T = TypeVar("T")
CLUSTER = "c1"
FILES = 60
FILE = NewInode(type=FileType.FILE, mode=0o644)
ABOUT = Header("checkpoint", CLUSTER, 3, 0, 0, 123)


class Ended(Exception):
    """The process ends here."""


class Mortal:
    """An engine that commits so many transactions, and then is no more."""

    def __init__(self, engine: LmdbEngine, left: int) -> None:
        self._engine = engine
        self.left = left

    def read(self, fn: Callable[[ReadTxn], T]) -> T:
        return self._engine.read(fn)

    async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
        if self.left == 0:
            raise Ended
        self.left -= 1
        return await self._engine.transact(fn, by)

    def journal(self, listener: Journal | None) -> None:
        self._engine.journal(listener)

    def watch(self, listener: Watch) -> None:
        self._engine.watch(listener)

    @property
    def history(self) -> History:
        return self._engine.history

    def close(self) -> None:
        self._engine.close()


def everything(txn: ReadTxn) -> dict[bytes, bytes]:
    """But for what the engine keeps for itself."""
    return {bytes(key): bytes(value) for key, value in txn.scan(b"", b"\xff" * KEY_MAX) if key not in OWN_KEYS}


def begin(txn: Txn) -> None:
    records.put_cluster(txn, ClusterRecord(CLUSTER, 1, epoch=3))
    make_root(txn, 1)


def make_file(txn: Txn, number: int) -> None:
    create(txn, ROOT, b"f%03d" % number, FILE, number)


async def fill(engine: LmdbEngine, numbers: range) -> None:
    for number in numbers:
        await engine.transact(partial(make_file, number=number))


def make_copy(folder: Path) -> tuple[Fetched, dict[bytes, bytes]]:
    """A checkpoint and a journal that overlaps it, and what they lead to."""
    folder.mkdir()
    engine = LmdbEngine(folder / "store")
    commits: list[Commit] = []
    engine.journal(lambda number, writes: commits.append(commit_of(number, writes)))
    asyncio.run(engine.transact(begin))
    asyncio.run(fill(engine, range(FILES // 2)))
    checkpoint = engine.read(lambda txn: write_snapshot(txn, ABOUT, folder / "new"))
    asyncio.run(fill(engine, range(FILES // 2, FILES)))
    asyncio.run(engine.transact(lambda txn: txn.delete(keys.node(NodeId("none")))))
    found = engine.read(everything)
    history = engine.history
    engine.close()
    before = lineage_in(commits[FILES // 4 - 1])
    assert before is not None
    commits = commits[FILES // 4 :]
    journal = Header(
        "journal", CLUSTER, 3, commits[0][0], commits[-1][0], 456, head=history.head, runs=history.runs,
        before=before.chain,
    )  # fmt: skip
    encoder = Encoder()
    paths = [folder / str(name_of(checkpoint)), folder / str(name_of(journal))]
    (folder / "new").rename(paths[0])
    paths[1].write_bytes(encoder.header(journal) + encoder.records(commits) + encoder.end())
    chain = Chain(name_of(checkpoint), (name_of(journal),))
    copies = [(name, "http://n") for name in chain.files]
    return Fetched(chain, [checkpoint, journal], paths, 3, copies), found


def keeper_of(engine: MetadataEngine, folder: Path, *, new_cluster: bool = False) -> Keeper:
    return Keeper(engine, OpenGate(), Registry(5, 60), folder, time.monotonic, new_cluster=new_cluster)


async def restore(engine: MetadataEngine, fetched: Fetched) -> None:
    await mark(engine, CLUSTER)
    await clear(engine)
    await apply(engine, fetched, 7, 1, lambda _: None)


def without_what_a_restore_changes(found: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: value for key, value in found.items() if key not in (keys.CLUSTER, keys.LAST_INODE, keys.RESTORED)}


def require_restored(engine: LmdbEngine, wanted: dict[bytes, bytes]) -> None:
    found = engine.read(everything)
    assert without_what_a_restore_changes(found) == without_what_a_restore_changes(wanted)
    assert engine.read(lambda txn: list(check(txn))) == []
    assert engine.read(records.get_cluster) == ClusterRecord(CLUSTER, 1, epoch=7)
    restored = engine.read(records.get_restored)
    assert restored is not None
    assert (restored.until_ns, restored.held_s) == (456, restoring.HOLD_S)
    assert engine.read(records.last_inode) == 1 + FILES + 1_000_000


def test_ended_after_each_transaction_it_begins_anew_and_never_opens_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "_BATCH", 20)
    fetched, wanted = make_copy(tmp_path / "copy")
    folder = tmp_path / "store"
    for transactions in range(1000):
        engine = LmdbEngine(folder)
        keeper = keeper_of(engine, folder, new_cluster=transactions > 0)
        if transactions:
            asyncio.run(keeper.load())
            assert keeper.cluster.state is State.WAITING  # and no new cluster, whatever the variable says
            assert set(engine.read(everything)) == {keys.RESTORING}
        try:
            asyncio.run(restore(Mortal(engine, transactions + 1), fetched))
            break
        except Ended:
            pass
        finally:
            engine.close()
    assert transactions >= 5
    engine = LmdbEngine(folder)
    require_restored(engine, wanted)
    keeper = keeper_of(engine, folder)
    asyncio.run(keeper.load())
    assert (keeper.cluster.state, keeper.cluster.id, keeper.cluster.epoch) == (State.OPEN, CLUSTER, 7)
    engine.close()


def test_what_is_out_of_date_is_set_aside_whatever_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "_BATCH", 20)
    folder = tmp_path / "store"
    engine = LmdbEngine(folder)
    asyncio.run(engine.transact(begin))
    asyncio.run(mark(engine, CLUSTER, set_aside=True))
    asyncio.run(fill(engine, range(FILES)))  # what was under way when the namenode knew that it is out of date
    wanted = engine.read(everything)
    engine.close()
    for transactions in range(1000):
        engine = LmdbEngine(folder)
        keeper = keeper_of(Mortal(engine, transactions), folder)
        try:
            asyncio.run(keeper.load())
            break
        except Ended:
            pass
        finally:
            engine.close()
        aside = sorted(folder.glob("outdated-*.checkpoint"))
        assert aside
        with aside[0].open("rb") as file:
            assert read_header(file).cluster_id == CLUSTER
            found = dict(record for frame in read_records(file) for record in frame)
            assert {key: value for key, value in found.items() if key not in OWN_KEYS} == wanted
    assert transactions > 3
    assert keeper.cluster.state is State.WAITING
    engine = LmdbEngine(folder)
    assert set(engine.read(everything)) == {keys.RESTORING}
    mark_now = engine.read(unfinished)
    assert mark_now is not None
    assert (mark_now.cluster_id, mark_now.set_aside) == (CLUSTER, False)
    engine.close()


def test_a_snapshot_that_cannot_be_ended_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LmdbEngine(tmp_path / "store")
    asyncio.run(engine.transact(begin))

    def stop(_: Encoder) -> bytes:
        raise Ended

    monkeypatch.setattr(Encoder, "end", stop)
    with pytest.raises(Ended):
        engine.read(lambda txn: write_snapshot(txn, ABOUT, tmp_path / "file"))
    assert not (tmp_path / "file").exists()
    engine.close()


def test_what_an_operator_has_restored_is_not_restored_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The namenode's own attempt waited meanwhile; what was written since would be lost with it."""
    fetched, _ = make_copy(tmp_path / "copy")
    engine = LmdbEngine(tmp_path / "store")
    keeper = keeper_of(engine, tmp_path / "store")
    attempts: list[int] = []

    async def fetch(*_: object) -> Fetched:
        attempts.append(keeper.cluster.epoch)
        await asyncio.sleep(0)
        return fetched

    async def run() -> None:
        keeper.use(object())  # type: ignore[arg-type]
        joiner = Joiner(NodeId("n"), "http://n", CLUSTER, 3, 1)
        with pytest.raises(Unavailable):
            await keeper.admit(joiner)
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            group.create_task(keeper.restore(None))
            await asyncio.sleep(0)
            group.create_task(keeper.run_until_open())
            await asyncio.sleep(0)
        assert keeper.cluster.state is State.OPEN

    monkeypatch.setattr(recovery_module, "fetch", fetch)
    asyncio.run(run())
    engine.close()
    assert attempts == [0]
