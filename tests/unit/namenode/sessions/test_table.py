"""The table of sessions: what each mount is told of what others change."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from dfslib.model import ROOT, BlockId, FileType
from dfslib.namenode.blocks.garbage import GarbageCollector
from dfslib.namenode.blocks.in_flight import InFlight
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.membership.orders import Orders
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace.create import NewInode, create, make_root
from dfslib.namenode.sessions.connection import Connection
from dfslib.namenode.sessions.table import Sessions
from dfslib.runtime.clocks import Clocks
from dfslib.runtime.stamps import Stamps
from dfslib.runtime.tasks import Tasks
from tests.deadline import DEADLINE_S
from tests.interleaving import memory_engine


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
    clocks = Clocks(time.time_ns, time.monotonic, Stamps(time.time_ns, time.monotonic, 600, 0))
    garbage = GarbageCollector(engine, Orders(), in_flight, clocks, 0, is_held=lambda: False)
    ids = itertools.count(1)
    writer = BlockWriter(
        registry, in_flight, garbage, Tasks(), lambda: BlockId(next(ids)), time.monotonic,
        replication=1, min_replicas=1, stall_timeout_s=1,
    )  # fmt: skip
    return Sessions(engine, writer, registry, 60, time.monotonic)


def test_a_mount_that_cannot_be_told_is_cut_off_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
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

    asyncio.run(run())
    assert "ZeroDivisionError" in caplog.text
