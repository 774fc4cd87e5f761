"""How a mount is greeted: by what it names, and by the cluster's level at that moment. A real WebSocket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.memory_engine import MemoryEngine
from dfslib.namenode.sessions.app import SessionRoutes
from dfslib.namenode.sessions.operations import Operations
from dfslib.namenode.sessions.session import Session
from dfslib.namenode.sessions.table import Sessions
from dfslib.runtime.tasks import Tasks
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL, VERSION, Role, named
from dfslib.wire.session import (
    SESSION_PROTOCOL,
    Failure,
    Hello,
    LevelRaised,
    Welcome,
    decode_from_namenode,
    encode,
)

NEW = Hello(SESSION_PROTOCOL, "new:/mnt", "", named(Role.MOUNT), VERSION)
OLD = Hello(SESSION_PROTOCOL, "old:/mnt")


class SlowSessions(Sessions):
    """What `meanwhile` does happens while a session is being kept."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    async def begin(self, name: str) -> Session:
        session = await super().begin(name)
        self.meanwhile()
        return session


class Namenode:
    client: TestClient[web.Request, web.Application]

    def __init__(self) -> None:
        self.cluster, self.tasks = Cluster(), Tasks()
        engine = MemoryEngine()
        writer, stamp = cast(BlockWriter, None), itertools.count(1).__next__
        self.sessions = SlowSessions(engine, writer, Registry(5, 60), 60.0, lambda: 0.0, stamp)
        self.routes = SessionRoutes(self.sessions, cast(Operations, None), self.cluster, self.tasks)

    async def greet(self, hello: Hello) -> Any:
        """The first frame that a mount gets, and its connection."""
        self.socket = await self.client.ws_connect("/session")
        await self.socket.send_bytes(encode(hello))
        return await self.frame()

    async def frame(self) -> Any:
        message = await self.socket.receive(30)
        assert message.type is aiohttp.WSMsgType.BINARY
        return decode_from_namenode(message.data)


def run(work: Callable[[Namenode], Awaitable[None]]) -> None:
    async def body() -> None:
        namenode = Namenode()
        app = web.Application()
        app.add_routes(namenode.routes.routes())
        async with TestClient(TestServer(app)) as namenode.client:
            await work(namenode)
        await namenode.tasks.close()

    asyncio.run(body())


def test_old_and_new_mounts_are_welcome_until_the_level_asks_for_more() -> None:
    async def work(namenode: Namenode) -> None:
        for hello in (OLD, NEW):
            welcome = await namenode.greet(hello)
            assert isinstance(welcome, Welcome)
            assert (welcome.level, welcome.features) == (OLDEST_LEVEL, named(Role.NAMENODE))
        told = {session.name: (session.version, sorted(session.features)) for session in namenode.sessions.all()}
        assert told == {"old:/mnt": ("", []), "new:/mnt": (VERSION, named(Role.MOUNT))}
        for session in namenode.sessions.all():
            if session.features:
                session.send(LevelRaised(NEWEST_LEVEL))
        assert await namenode.frame() == LevelRaised(NEWEST_LEVEL)

    run(work)


def test_a_mount_that_lacks_what_the_level_asks_for_is_refused_and_leaves_nothing() -> None:
    async def work(namenode: Namenode) -> None:
        namenode.cluster.level.opened(NEWEST_LEVEL)
        failure = await namenode.greet(OLD)
        assert isinstance(failure, Failure)
        assert (failure.seq, failure.error) == (-1, "EINVAL")
        assert failure.message.endswith("update the mount")
        assert namenode.sessions.all() == []
        welcome = await namenode.greet(NEW)
        assert (welcome.level, len(namenode.sessions.all())) == (NEWEST_LEVEL, 1)

    run(work)


@pytest.mark.parametrize("hello", [OLD, NEW], ids=lambda hello: hello.name)
def test_the_level_may_rise_while_a_session_begins(hello: Hello) -> None:
    async def work(namenode: Namenode) -> None:
        namenode.sessions.meanwhile = lambda: namenode.cluster.level.opened(NEWEST_LEVEL)
        first = await namenode.greet(hello)
        assert isinstance(first, Failure if hello is OLD else Welcome)
        assert len(namenode.sessions.all()) == int(hello is NEW)

    run(work)
