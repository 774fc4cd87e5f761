"""Copies of the metadata on datanodes: whatever they hold leads to what the store had. LMDB, files, HTTP."""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from dfslib.model import NodeId
from dfslib.namenode.checkpoint import journal as journal_module
from dfslib.namenode.checkpoint import sender as sender_module
from dfslib.namenode.checkpoint import shipper as shipper_module
from dfslib.namenode.checkpoint.chains import best_chain
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.checkpoint.format import Header, check, parse_name, read_header, read_records
from dfslib.namenode.checkpoint.generations import AGES_NS, HOUR_NS
from dfslib.namenode.checkpoint.journal import Journal
from dfslib.namenode.checkpoint.recent import Recent
from dfslib.namenode.checkpoint.shipper import Shipper
from dfslib.namenode.checkpoint.snapshot import write_snapshot
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn, Txn
from dfslib.namenode.metadata.history import Lineage
from dfslib.namenode.metadata.lineage import Digest
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace import records
from dfslib.transfer.peer_session import PeerSession, open_peer_session
from dfslib.wire.features import NEWEST_LEVEL
from dfslib.wire.messages import JoinRequest
from tests.deadline import DEADLINE_S
from tests.unit.namenode.fake_datanode import FakeDatanode
from tests.unit.namenode.stores import go_on

State = dict[bytes, bytes]


def everything(txn: ReadTxn) -> State:
    return {bytes(key): bytes(value) for key, value in txn.scan(b"", b"\xff" * KEY_MAX)}


class Shipped:
    """A store, a shipper, datanodes; and every state that the store was ever in, by commit."""

    def __init__(self, folder: Path, nodes: list[FakeDatanode]) -> None:
        self.nodes = nodes
        self.engine = LmdbEngine(folder / "store")
        self.cluster = Cluster()
        self.cluster.opened("c1", 2, 1, None)
        self.registry = Registry(1e9, 1e9)
        self.later_ns = 0
        self.session: PeerSession
        self.history: dict[int, State] = {0: {}}
        self.heads: dict[int, Lineage] = {0: self.engine.history.head}
        self.folder = folder / "copies"
        self.recent = folder / "recent"
        self.start()

    def start(self) -> None:
        self.journal = Journal(time.time_ns, Recent(self.recent))
        self.journal.keep("c1", self.cluster.epoch, 1, self.engine.history)
        self.engine.journal(self.journal.committed)
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.shipper = Shipper(
            self.engine,
            self.registry,
            self.cluster,
            self.journal,
            self.write_checkpoint,
            self.folder,
            self.wall_ns,
            time.monotonic,
        )

    def wall_ns(self) -> int:
        """Now, or a while later."""
        return time.time_ns() + self.later_ns

    async def write_checkpoint(self, about: Header, path: Path) -> Header:
        """As a process that checks the store, whose check it is not."""
        await self.may_write.wait()
        return await asyncio.to_thread(self.engine.read, lambda txn: write_snapshot(txn, about, path))

    def join(self, node: FakeDatanode) -> None:
        message = JoinRequest(node.name, "c1", 1, 1, node.url, "", 100, 0, 100, 0)
        self.registry.join(message, node.url, time.monotonic(), 0).reported = True
        self.shipper.joined(NodeId(node.name))

    async def commit(self, **values: str | None) -> None:
        def change(txn: Txn) -> None:
            for key, value in values.items():
                if value is None:
                    txn.delete(key.encode())
                else:
                    txn.put(key.encode(), value.encode())

        await self.engine.transact(change)
        self.engine.read(lambda txn: self.history.update({txn.number: everything(txn)}))
        self.heads[self.number()] = self.engine.history.head

    def number(self) -> int:
        return self.engine.read(lambda txn: txn.number)

    def reach(self, node: FakeDatanode) -> int:
        """The commit that the datanode's files lead to; what they lead to is what the store was then."""
        names = [name for text in node.files if (name := parse_name(text)) is not None]
        chain = best_chain(names)
        if chain is None:
            return 0
        found: State = {}
        for name in chain.files:
            file = io.BytesIO(node.files[str(name)])
            header = check(file, name, "c1")
            assert set(header.nodes) <= {known.name for known in self.nodes}
            if str(name) in node.positions and name.last:  # what was put there otherwise tells nothing
                assert (header.head, header.runs) == (self.heads[name.last], self.engine.history.runs)
                assert header.before in (b"", self.heads[name.first - 1].chain if name.first else b"")
                assert node.positions[str(name)] == str(header.position)
            file.seek(0)
            read_header(file)
            if name.is_checkpoint:
                for frame in read_records(file):
                    found.update(frame)
                continue
            go_on(found, file)
        assert found == self.history[chain.reach[1]]
        digest = Digest()
        for key, value in found.items():
            digest.change(key, None, value)
        assert digest.value == self.heads[chain.reach[1]].digest
        return chain.reach[1]

    async def until(self, condition: Callable[[], object], what: str) -> None:
        """Rounds go on until it holds."""
        end_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end_s, what
            await self.shipper.run_once()


@asynccontextmanager
async def shipped(folder: Path, count: int) -> AsyncIterator[Shipped]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(FakeDatanode(f"n{n}").running()) for n in range(count)]
        made = Shipped(folder, nodes)
        session = made.session = open_peer_session()
        try:
            made.shipper.use(session)
            for node in nodes:
                made.join(node)
            yield made
        finally:
            for node in nodes:
                node.works.set()
            await made.shipper.close()
            await session.close()
            made.engine.close()


Scenario = Callable[[Shipped], Awaitable[None]]


def run(folder: Path, count: int, scenario: Scenario) -> None:
    async def whole() -> None:
        async with shipped(folder, count) as made:
            await scenario(made)

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long enough on any machine for a datanode that works: a round brings it all there is."""
    monkeypatch.setattr(shipper_module, "_PATIENCE_S", 5.0)
    monkeypatch.setattr(sender_module, "_LIST_S", 5.0)


def test_a_checkpoint_then_journals_on_every_datanode(tmp_path: Path) -> None:
    async def scenario(made: Shipped) -> None:
        await made.commit(a="1", b="2")
        await made.shipper.run_once()
        await made.commit(a="3", b=None)
        await made.commit(c="4")
        before_ns = time.time_ns()
        await made.shipper.run_once()
        for node in made.nodes:
            assert made.reach(node) == made.number()
            assert [name.split("-")[0] for name in sorted(node.files)] == ["checkpoint", "journal"]
        assert made.shipper.complete() == 2
        assert made.cluster.copied_until_ns is not None
        assert made.cluster.copied_until_ns >= before_ns
        until_ns = made.cluster.copied_until_ns
        await made.shipper.run_once()  # nothing to send, and it is known to be all
        assert made.cluster.copied_until_ns > until_ns
        assert {len(node.files) for node in made.nodes} == {2}

    run(tmp_path, 2, scenario)


def test_every_file_tells_the_level_of_what_it_leads_to(tmp_path: Path) -> None:
    async def scenario(made: Shipped) -> None:
        (node,) = made.nodes

        async def level(level: int) -> None:
            await made.engine.transact(lambda txn: records.put_cluster(txn, records.ClusterRecord("c1", 1, level)))
            await made.shipper.run_once()

        await level(1)
        await made.commit(a="1")
        await made.shipper.run_once()
        await level(NEWEST_LEVEL)
        await made.commit(a="2")
        await made.shipper.run_once()
        names = sorted(node.files, key=lambda text: (text.startswith("journal"), text))
        levels = [read_header(io.BytesIO(node.files[name])).level for name in names]
        assert levels == [1, 1, NEWEST_LEVEL, NEWEST_LEVEL]

    run(tmp_path, 1, scenario)


def test_one_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    async def scenario(made: Shipped) -> None:
        good, bad = made.nodes
        await made.commit(a="0")
        await made.shipper.run_once()
        bad.works.clear()
        for number in range(5):
            await made.commit(a=f"{number}")
            await made.shipper.run_once()
            assert made.reach(good) == made.number()
        assert bad.hanging == 1
        assert made.shipper.complete() == 1
        bad.works.set()
        await made.until(lambda: made.shipper.complete() == 2, "it is caught up with")
        assert made.reach(bad) == made.number()

    run(tmp_path, 2, scenario)


def test_one_that_refuses_and_one_that_joins_late_are_brought_everything(tmp_path: Path) -> None:
    async def scenario(made: Shipped) -> None:
        first, second = made.nodes
        second.refuses = True
        for number in range(3):
            await made.commit(a=f"{number}")
            await made.shipper.run_once()
        assert made.shipper.failures
        assert not second.files
        second.refuses = False
        first.files.clear()  # its volume is new
        made.join(first)
        await made.shipper.run_once()
        assert made.reach(first) == made.reach(second) == made.number()

    run(tmp_path, 2, scenario)


def test_what_one_that_joins_anew_had_before_is_not_believed(tmp_path: Path) -> None:
    """It was listed before it joined, and the answer comes after."""

    async def scenario(made: Shipped) -> None:
        node = made.nodes[0]
        await made.commit(a="0")
        await made.shipper.run_once()
        assert made.reach(node) == made.number()

        def lose_everything() -> None:
            node.files.clear()
            made.join(node)

        made.join(node)
        node.before_answer = lose_everything
        await made.until(lambda: made.shipper.complete() == 1, "it is brought everything anew")
        assert made.reach(node) == made.number()

    run(tmp_path, 1, scenario)


def test_journals_go_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_module, "_JOURNALS_MAX", 2)

    async def scenario(made: Shipped) -> None:
        node = made.nodes[0]
        await made.commit(**{f"k{n}": "v" for n in range(3000)})
        await made.shipper.run_once()
        made.may_write.clear()  # the next checkpoint takes until the end
        for number in range(6):
            await made.commit(a=f"{number}")
            await made.shipper.run_once()
            assert made.reach(node) == made.number()
        assert sum("checkpoint" in name for name in node.files) == 1
        await made.commit(a="last")
        await made.shipper.close()
        assert made.reach(node) == made.number()

    run(tmp_path, 1, scenario)


def test_the_chain_before_is_kept_and_most_older_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper_module, "_JOURNALS_MAX", 2)

    async def scenario(made: Shipped) -> None:
        good, bad = made.nodes
        bad.files["journal-000001-" + "0" * 20 + "-" + "0" * 20] = b"of an earlier epoch"
        bad.files["not-ours"] = b"kept"
        for number in range(20):
            bad.refuses = 5 < number < 12
            await made.commit(a=f"{number}")
            await made.shipper.run_once()
            assert made.reach(good) == made.number()
        assert made.reach(bad) == made.number()
        for node in made.nodes:
            checkpoints = [name for name in node.files if name.startswith("checkpoint")]
            assert len(checkpoints) == 3  # the oldest will be the one of an hour ago
            assert len(node.files) < 10
            del node.files[max(checkpoints)]
            assert made.reach(node) > 0  # the chain before goes as far as it went
        assert bad.files["not-ours"] == b"kept"

    run(tmp_path, 2, scenario)


def test_generations_are_kept_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is an hour old, one of a day, one of a week: each can be restored by itself."""
    monkeypatch.setattr(shipper_module, "_JOURNALS_MAX", 1)

    async def scenario(made: Shipped) -> None:
        node = made.nodes[0]
        for number in range(80):
            made.later_ns += 5 * HOUR_NS
            if number % 7 == 6:  # of its checkpoints a new process knows but the names
                await made.shipper.close()
                made.start()
                made.shipper.use(made.session)
                for one in made.nodes:
                    made.join(one)
            if number == 60:
                spoilt = min(name for name in node.files if name.startswith("checkpoint"))
                node.files[spoilt] = b"no header"
            await made.commit(a=f"{number}")
            await made.shipper.run_once()
            assert made.reach(node) == made.number()
        checkpoints = [name for name in map(parse_name, node.files) if name is not None and name.is_checkpoint]
        ages_ns = []
        for name in checkpoints:
            data = node.files[str(name)]
            if data == b"no header":
                continue
            check(io.BytesIO(data), name, "c1")
            ages_ns.append(made.wall_ns() - read_header(io.BytesIO(data)).time_ns)
        assert len(checkpoints) <= 9
        for age_ns in AGES_NS:
            assert any(age_ns <= found_ns <= 2 * age_ns + 10 * HOUR_NS for found_ns in ages_ns)

    run(tmp_path, 1, scenario)


def test_what_grows_too_large_to_be_kept_is_replaced_by_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "PENDING_MAX_BYTES", 1000)

    async def scenario(made: Shipped) -> None:
        await made.commit(a="0")
        await made.shipper.run_once()
        await made.commit(a="x" * 2000)
        await made.commit(b="1")
        await made.shipper.run_once()
        await made.commit(c="1")
        await made.shipper.run_once()
        assert made.reach(made.nodes[0]) == made.number()
        assert sum("checkpoint" in name for name in made.nodes[0].files) == 2

    run(tmp_path, 1, scenario)


@pytest.mark.parametrize("how", ["the journal fails", "nobody tells the journal"])
def test_a_commit_that_the_journal_misses_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async def scenario(made: Shipped) -> None:
        node = made.nodes[0]

        async def missed() -> None:
            with monkeypatch.context() as patch:
                if how == "the journal fails":
                    patch.setattr(journal_module, "commit_of", raising)
                else:
                    made.engine.journal(raising)
                await made.commit(a="missed")
            made.engine.journal(made.journal.committed)

        await made.commit(a="0")
        await made.shipper.run_once()
        await made.commit(b="1")
        await missed()
        if how == "the journal fails":  # it knows at once, though nothing follows
            await made.shipper.run_once()
            assert made.reach(node) == made.number()
        await made.commit(b="2")
        await made.shipper.run_once()
        assert made.reach(node) == made.number()
        await made.commit(b="3")
        await made.shipper.run_once()
        assert made.reach(node) == made.number()
        assert "the journal of commits failed" in caplog.text

    def raising(*_: object) -> None:
        raise OSError("no memory")

    run(tmp_path, 1, scenario)


def test_a_full_disk_of_the_namenode_is_made_up_for(tmp_path: Path) -> None:
    async def scenario(made: Shipped) -> None:
        await made.commit(a="0")
        await made.shipper.run_once()
        (made.folder / "journal").mkdir()  # as good as a full disk: the file cannot be made
        await made.commit(a="1")
        await made.shipper.run_once()
        (made.folder / "journal").rmdir()
        await made.commit(a="2")
        await made.shipper.run_once()
        assert made.reach(made.nodes[0]) == made.number()

    run(tmp_path, 1, scenario)


@pytest.mark.parametrize("_", range(3))
def test_whatever_fails_what_datanodes_hold_was_once_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _: int
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    monkeypatch.setattr(shipper_module, "_JOURNALS_MAX", 3)
    monkeypatch.setattr(shipper_module, "_PATIENCE_S", 0.02)  # whatever a round leaves undone is done in the end
    monkeypatch.setattr(sender_module, "_LIST_S", 0.2)
    chance = random.Random(seed)

    async def scenario(made: Shipped) -> None:
        for _ in range(60):
            for _ in range(chance.randrange(4)):
                keys = chance.sample("abcdefgh", 3)
                await made.commit(**{key: chance.choice(["1", "2", None]) for key in keys})
            node = chance.choice(made.nodes)
            act = chance.randrange(8)
            node.refuses = act == 0
            if act == 1:
                made.join(node)
            elif act == 2:
                node.works.clear()
            elif act == 3:
                node.files.clear()
                made.join(node)
            elif act > 5:
                node.works.set()
            await made.shipper.run_once()
            for one in made.nodes:
                made.reach(one)
        for node in made.nodes:
            node.refuses = False
            node.works.set()
        await made.commit(end="1")
        await made.until(lambda: made.shipper.complete() == 3, "all have everything")
        await made.until(partial(reached_end, made), "and the last commit")

    run(tmp_path, 3, scenario)


def reached_end(made: Shipped) -> bool:
    return all(made.reach(node) == made.number() for node in made.nodes)
