"""A fake namenode and datanode, and retries that take no time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dfslib.client.namenode import HttpNameNode
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.fake_server import FakeServer, Handler, Serve
from tests.unit.client.fake_time import Connect, FakeTime


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """All servers are closed at the end."""
    servers: list[FakeServer] = []

    def start(handler: Handler, port: int = 0) -> FakeServer:
        server = FakeServer(handler, port)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect(fake_time: FakeTime) -> Iterator[Connect]:
    clients: list[HttpNameNode] = []

    def to(url: str, timeout_s: float = 5.0) -> HttpNameNode:
        client = HttpNameNode(url, timeout_s, fake_time.timing())
        clients.append(client)
        return client

    yield to
    for client in clients:
        client.close()


@pytest.fixture
def cluster(serve: Serve) -> FakeCluster:
    return FakeCluster(serve)


@pytest.fixture
def dfs(cluster: FakeCluster, connect: Connect) -> HttpNameNode:
    """An HttpNameNode of the fake cluster."""
    return connect(cluster.namenode.url)
