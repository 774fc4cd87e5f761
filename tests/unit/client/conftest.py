"""A fake namenode and datanode, and retries that take no time."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dfslib.client.namenode import HttpNameNode
from dfslib.client.retrying import Timing


def _load(name: str) -> ModuleType:
    """A module beside this file; test folders are no packages."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


_load("fake_server")
_load("fake_cluster")


class FakeTime:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep, chance=lambda: 1.0)


@pytest.fixture
def fake_time():
    return FakeTime()


@pytest.fixture
def serve():
    """Starts a fake server for a handler; all are closed at the end."""
    servers = []

    def start(handler, port=0):
        server = sys.modules["fake_server"].FakeServer(handler, port)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect(fake_time):
    """An HttpNameNode whose retries take no time."""
    clients = []

    def to(url, timeout_s=5.0):
        client = HttpNameNode(url, timeout_s, fake_time.timing())
        clients.append(client)
        return client

    yield to
    for client in clients:
        client.close()


@pytest.fixture
def cluster(serve):
    return sys.modules["fake_cluster"].FakeCluster(serve)


@pytest.fixture
def dfs(cluster, connect):
    """An HttpNameNode of the fake cluster."""
    return connect(cluster.namenode.url)
