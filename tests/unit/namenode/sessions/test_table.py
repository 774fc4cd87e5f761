"""The table of sessions: what each mount is told of what others change."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from random import Random
from typing import cast

import pytest
from aiohttp import WSMessage, WSMsgType, web
from msgspec.structs import replace

from dfslib.errors import LockLost, NoSpace, Stale, WouldBlock
from dfslib.model import ROOT, BlockId, FileType, InodeId
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import T, Txn, prefix_end
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import keys, records
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.sessions.app import SessionRoutes
from dfslib.namenode.sessions.changing import Changing
from dfslib.namenode.sessions.connection import Connection
from dfslib.namenode.sessions.operations import Operations
from dfslib.namenode.sessions.table import Sessions
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.stamps import Stamps
from dfslib.runtime.tasks import Tasks
from dfslib.wire import session as wire
from tests.deadline import DEADLINE_S
from tests.interleaving import chance, memory_engine, run

FILE = NewInode(type=FileType.FILE, mode=0o644)
LOCK = wire.SetLock(InodeId(5), 1, 1, 0, 100)


class FakeSocket:
    """A WebSocket that takes all that is sent, and notes when it is closed."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.closed = asyncio.Event()
        self.reason = b""

    async def send_bytes(self, frame: bytes) -> None:
        self.frames.append(frame)

    async def close(self, *, code: int, message: bytes, drain: bool) -> bool:
        self.reason = message
        self.closed.set()
        return True


def table(engine: MemoryEngine) -> Sessions:
    registry, in_flight = Registry(1e9, 1e9), InFlight()
    clocks = Clocks(time.time_ns, time.monotonic, Stamps(time.time_ns, time.monotonic, 600))
    garbage = GarbageCollector(engine, Orders(), in_flight, clocks, 0, is_held=lambda: False)
    ids = itertools.count(1)
    writer = BlockWriter(
        registry, in_flight, garbage, Tasks(), lambda: BlockId(next(ids)), time.monotonic,
        replication=1, min_replicas=1, stall_timeout_s=1,
    )  # fmt: skip
    return Sessions(engine, writer, registry, 60, time.monotonic, clocks.stamps.now)


def test_a_mount_that_cannot_be_told_is_cut_off_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        engine = memory_engine()
        await engine.transact(lambda txn: make_root(txn, 1))
        sessions = table(engine)
        sockets = [FakeSocket() for _ in range(3)]
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            running = []
            for socket in sockets:
                session = await sessions.begin("mount")
                connection = Connection(socket)
                sessions.connected(session, connection)
                session.directories.add(ROOT)
                running.append(group.create_task(connection.run()))
            broken = sessions.all()[1]
            monkeypatch.setattr(broken, "others_changed", lambda _: 1 / 0)
            await engine.transact(lambda txn: create(txn, ROOT, b"f", NewInode(type=FileType.FILE, mode=0o644), 1))
            await sockets[1].closed.wait()
            for session in sessions.all():
                if session.connection is not None:
                    session.connection.finish()
            await asyncio.wait(running)
        assert [len(socket.frames) for socket in sockets] == [1, 0, 1]
        assert [socket.reason for socket in sockets] == [b"", b"not told of a change", b""]

    run(scenario())
    assert "ZeroDivisionError" in caplog.text


def test_a_session_that_ends_is_taken_up_by_nobody_though_its_end_is_still_on_its_way() -> None:
    """Else a mount that comes back in that moment goes on with a session of which the table knows nothing: nobody tells
    it of changes, and what it opens and locks stays so for good."""

    async def scenario() -> None:
        engine = memory_engine()
        await engine.transact(lambda txn: make_root(txn, 1))
        sessions = table(engine)
        session = await sessions.begin("mount")
        sessions.opened(session, ROOT)
        ending = asyncio.create_task(sessions.end(session))
        await asyncio.sleep(0)
        while not ending.done():
            with pytest.raises(Stale):
                sessions.resume(session.id)
            await asyncio.sleep(0)
        assert ROOT not in sessions
        assert sessions.all() == []
        assert engine.read(lambda txn: list(txn.scan(keys.SESSIONS, prefix_end(keys.SESSIONS)))) == []

    run(scenario())


def test_what_a_session_held_is_given_to_others_behind_what_it_asked_for() -> None:
    async def scenario() -> None:
        engine = memory_engine()
        await engine.transact(lambda txn: make_root(txn, 1))
        sessions = table(engine)
        first, second = await sessions.begin("first"), await sessions.begin("second")
        await sessions.locks.acquire(first.id, 1, LOCK)
        waiting = asyncio.create_task(sessions.locks.acquire(second.id, 1, replace(LOCK, wait=True)))

        async def write() -> None:
            await engine.transact(lambda txn: create(txn, ROOT, b"f", FILE, 1))

        writing = asyncio.create_task(write())
        await asyncio.sleep(0)
        first.running[2] = writing
        await sessions.end(first)
        await waiting
        await asyncio.gather(writing, return_exceptions=True)
        seen = engine.read(lambda txn: records.get_dentry(txn, ROOT, b"f"))
        for _ in range(5):
            await engine.transact(lambda txn: None)
            assert engine.read(lambda txn: records.get_dentry(txn, ROOT, b"f")) == seen

    run(scenario())


def test_a_mount_that_goes_away_while_its_session_begins_leaves_nothing() -> None:
    async def scenario(random: Random) -> None:
        engine = MemoryEngine(random)
        await engine.transact(lambda txn: make_root(txn, 1))
        sessions = table(engine)
        beginning = asyncio.create_task(sessions.begin("mount"))
        for _ in range(random.randrange(1, 8)):
            await asyncio.sleep(0)
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        await sessions.run_once()
        known = engine.read(lambda txn: len(list(txn.scan(keys.SESSIONS, prefix_end(keys.SESSIONS)))))
        assert known == len(sessions.all())

    random = chance()
    for _ in range(50):
        run(scenario(random))


def test_a_lock_is_not_waited_for_where_that_was_taken_back_before_it_began() -> None:
    """Both frames may come at once, and the second one needs no task."""

    async def scenario() -> None:
        sessions = table(memory_engine())
        sessions.load()
        locks = sessions.locks
        await locks.acquire("one", 1, LOCK)
        waiting = asyncio.create_task(locks.acquire("two", 7, replace(LOCK, wait=True)))
        locks.cancel("two", 7)
        with pytest.raises(WouldBlock):
            await waiting
        again = asyncio.create_task(locks.acquire("two", 8, replace(LOCK, wait=True)))
        await asyncio.sleep(0)
        await locks.acquire("one", 2, replace(LOCK, kind=2))
        await again

    run(scenario())


def test_what_comes_on_a_connection_that_another_one_has_replaced_is_not_done() -> None:
    """A mount that has come back sends it again; done a second time it may close what was opened since."""

    class Frames(FakeSocket):
        def __init__(self, *operations: wire.Operation) -> None:
            super().__init__()
            self._frames = [wire.encode(wire.Request(seq, one)) for seq, one in enumerate(operations, 1)]
            self.after: Callable[[], None] = lambda: None

        async def receive(self) -> WSMessage:
            if not self._frames:
                return WSMessage(WSMsgType.CLOSED, None, None)
            frame = self._frames.pop(0)
            self.after()
            return WSMessage(WSMsgType.BINARY, frame, None)

    class NotingOperations:
        def __init__(self) -> None:
            self.done: list[wire.Operation] = []

        def look(self, session: object, operation: wire.Operation) -> wire.Result:
            self.done.append(operation)
            return wire.Done()

    async def scenario(replaced: bool) -> list[wire.Operation]:
        sessions, operations = table(memory_engine()), NotingOperations()
        session = await sessions.begin("mount")
        old = Frames(wire.Close(InodeId(5)), wire.Close(InodeId(6)))
        no_cluster = cast(Cluster, None)  # it is asked when a session begins
        routes = SessionRoutes(sessions, cast(Operations, operations), no_cluster, Tasks())
        connection = Connection(old)
        sessions.connected(session, connection)
        if replaced:
            old.after = lambda: sessions.connected(session, Connection(FakeSocket()))
        await routes._serve(session, cast(web.WebSocketResponse, old), connection)
        return operations.done

    assert run(scenario(False)) == [wire.Close(InodeId(5)), wire.Close(InodeId(6))]
    assert run(scenario(True)) == []


def changing(engine: MemoryEngine, sessions: Sessions) -> Changing:
    stamps = Stamps(time.time_ns, time.monotonic, 600)
    return Changing(engine, sessions.locks.check, time.time_ns, stamps.now)


def test_nothing_is_done_for_a_session_behind_its_end() -> None:
    """Its locks are somebody else's then. What it had asked for before is done, or is not."""

    async def scenario() -> None:
        engine = memory_engine()
        await engine.transact(lambda txn: make_root(txn, 1))
        sessions = table(engine)
        session = await sessions.begin("mount")
        change = changing(engine, sessions)
        await change.create(session, 1, wire.Create(ROOT, b"before", FileType.FILE, 0o644, 0, 0))
        await sessions.end(session)
        with pytest.raises(Stale):
            await change.create(session, 2, wire.Create(ROOT, b"behind", FileType.FILE, 0o644, 0, 0))
        with pytest.raises(Stale):
            await change.create(session, 1, wire.Create(ROOT, b"before", FileType.FILE, 0o644, 0, 0))
        assert engine.read(lambda txn: records.get_dentry(txn, ROOT, b"behind")) is None

    run(scenario())


def test_what_was_written_under_a_lost_lock_is_refused_in_its_transaction() -> None:
    async def scenario() -> None:
        engine = memory_engine()
        await engine.transact(lambda txn: make_root(txn, 1))
        sessions = table(engine)
        first, second = await sessions.begin("first"), await sessions.begin("second")
        change = changing(engine, sessions)
        made = await change.create(first, 1, wire.Create(ROOT, b"f", FileType.FILE, 0o644, 0, 0))
        other = await change.create(first, 2, wire.Create(ROOT, b"g", FileType.FILE, 0o644, 0, 0))
        ino = made.attr.ino
        old = await sessions.locks.acquire(first.id, 3, replace(LOCK, ino=ino))
        await change.set_attr(first, 4, wire.SetAttr(ino, size=4, generation=old))
        await sessions.end(first)
        await sessions.locks.acquire(second.id, 1, replace(LOCK, ino=ino))
        again = await sessions.begin("first")
        for seq, operation in enumerate(
            (
                change.set_attr(again, 1, wire.SetAttr(ino, size=8, generation=old)),
                change.punch(again, 2, wire.Punch(ino, 0, 4, old)),
                change.copy_range(again, 3, wire.CopyRange(other.attr.ino, 0, ino, 0, 4, old)),
            )
        ):
            with pytest.raises(LockLost):
                await operation
            assert engine.read(lambda txn: records.get_attr(txn, ino)).size == 4, seq
        await change.copy_range(again, 4, wire.CopyRange(ino, 0, other.attr.ino, 0, 4, 0))
        await change.set_attr(again, 5, wire.SetAttr(ino, size=2))  # it says nothing of a lock

    run(scenario())


def test_a_session_whose_end_fails_holds_what_it_has_until_it_succeeds() -> None:
    """Else it could be taken up again after a restart, and with it locks that others have had since."""

    class Failing(MemoryEngine):
        failures = 0

        async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
            if self.failures:
                self.failures -= 1
                raise NoSpace
            return await super().transact(fn, by)

    async def scenario() -> None:
        engine = Failing(chance())
        await engine.transact(lambda txn: make_root(txn, 1))
        sessions = table(engine)
        session = await sessions.begin("mount")
        sessions.opened(session, ROOT)
        await sessions.locks.acquire(session.id, 1, LOCK)
        engine.failures = 2
        with pytest.raises(NoSpace):
            await sessions.end(session)
        with pytest.raises(NoSpace):
            await sessions.run_once()
        assert ROOT in sessions
        with pytest.raises(Stale):
            sessions.resume(session.id)
        with pytest.raises(WouldBlock):
            await sessions.locks.acquire("other", 1, LOCK)
        await sessions.run_once()
        assert ROOT not in sessions
        assert await sessions.locks.acquire("other", 1, LOCK)

    run(scenario())
