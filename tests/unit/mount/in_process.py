"""The namenode's side of sessions in this process, over real WebSockets: mounts are cut off, sessions end, and the
namenode is started again as a test says. There are no datanodes: what is written stays in the metadata, as small writes
do at first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Iterator
from typing import Any, cast

from aiohttp import web
from aiohttp.test_utils import TestServer

from dfslib.model import BlockId, InodeId
from dfslib.mount.clock import Clock
from dfslib.mount.vfs import VFS, Options
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.namespace import content, records
from dfslib.namenode.namespace.create import make_root
from dfslib.namenode.namespace.deferred import find_deferred
from dfslib.namenode.sessions.app import SessionRoutes
from dfslib.namenode.sessions.changing import Changing
from dfslib.namenode.sessions.looking import Looking
from dfslib.namenode.sessions.operations import Operations
from dfslib.namenode.sessions.table import Sessions
from dfslib.namenode.sessions.writing import Writing
from dfslib.namenode.status import ClusterStatus
from dfslib.runtime.tasks import Tasks
from dfslib.wire import routes
from tests.deadline import DEADLINE_S


class _Deferral:
    """Takes all that is small."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    def new_id(self) -> BlockId:
        return BlockId(next(self._ids))

    @contextlib.contextmanager
    def admit(self, ino: InodeId, size: int, copies: int) -> Iterator[None]:
        yield


class _Blocks:
    """Of which there are none."""

    def copies(self, replication: int) -> int:
        return 1


class _Unsynced:
    """The metadata is durable."""

    async def sync(self, ino: InodeId) -> None: ...


class Door:
    """By which one mount comes to the namenode."""

    def __init__(self, namenode: InProcess) -> None:
        self._namenode = namenode
        self.is_open = True
        self._inside: set[asyncio.Task[object]] = set()
        self.server = TestServer(self._app())

    def _app(self) -> web.Application:
        app = web.Application()
        app.add_routes([web.get(routes.SESSION, self._session)])
        return app

    async def _session(self, request: web.Request) -> web.StreamResponse:
        if not self.is_open:
            raise web.HTTPServiceUnavailable
        task = asyncio.current_task()
        assert task is not None
        self._inside.add(task)
        try:
            return await self._namenode.routes.session(request)
        finally:
            self._inside.discard(task)

    async def all_out(self) -> None:
        """Its connections end."""
        for task in self._inside:
            task.cancel()
        await asyncio.gather(*self._inside, return_exceptions=True)


class InProcess:
    def __init__(self, chance: random.Random) -> None:
        self.engine = MemoryEngine(chance)
        self._stamps = itertools.count(1)
        self._deferral: Any = _Deferral()
        self._tasks = Tasks()
        self.doors: list[Door] = []
        self.mounts: list[VFS] = []
        self.routes: SessionRoutes

    async def start(self, mounts: int) -> None:
        await self.engine.transact(lambda txn: make_root(txn, 1))
        self._begin()
        for number in range(mounts):
            door = Door(self)
            await door.server.start_server()
            self.doors.append(door)
            clock = Clock(time.time_ns, time.monotonic)
            vfs = VFS(str(door.server.make_url("/")), f"m{number}", Options(1 << 20, DEADLINE_S), clock)
            await vfs.start()
            self.mounts.append(vfs)

    def _begin(self) -> None:
        blocks: Any = _Blocks()
        nothing: Any = None
        unsynced: Any = _Unsynced()
        stamp = self._stamps.__next__
        self.sessions = Sessions(
            self.engine, cast(BlockWriter, blocks), Registry(1e9, 1e9), 1e9, time.monotonic, stamp
        )
        self.sessions.load()
        changing = Changing(self.engine, self.sessions.locks.check, time.time_ns, stamp)
        writing = Writing(self.engine, changing, self.sessions, blocks, nothing, self._deferral, unsynced)
        looking = Looking(self.engine, cast(ClusterStatus, None))
        operations = Operations(self.sessions, looking, changing, writing)
        self.routes = SessionRoutes(self.sessions, operations, Cluster(), self._tasks)

    async def restart(self) -> None:
        """As a new process on the same metadata."""
        old = self.sessions
        self._begin()
        for session in old.all():
            for task in session.running.values():
                task.cancel()
        for door in self.doors:
            await door.all_out()

    async def cut(self, number: int) -> None:
        """The mount is cut off, and its session stays for now."""
        self.doors[number].is_open = False
        await self.doors[number].all_out()

    async def give_up(self, number: int) -> None:
        """The grace time of a mount that is cut off is over."""
        for session in self.sessions.all():
            if session.name == f"m{number}":
                await self.sessions.end(session)
        await self.sessions.run_once()

    def content(self, ino: InodeId) -> bytes:
        """What the metadata has of the file."""

        def read(txn: Any) -> bytes:
            attr = records.get_attr(txn, ino)
            data = bytearray(attr.size)
            for extent in content.read_extents(txn, ino):
                block = find_deferred(txn, extent.block) or b""
                data[extent.offset : extent.end] = block[extent.block_offset :][: extent.length]
            return bytes(data)

        return self.engine.read(read)

    async def close(self) -> None:
        for door in self.doors:
            door.is_open = True
        for vfs in self.mounts:
            await vfs.close()
        for door in self.doors:
            await door.all_out()
            await door.server.close()
        await self._tasks.close()
