"""The command line against the fake cluster of tests/unit/client."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from dfslib.cli.main import main


def _load(name):
    if name not in sys.modules:
        path = Path(__file__).parent.parent / "client" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


_load("fake_server")
_load("fake_cluster")


@pytest.fixture
def cluster():
    servers = []

    def serve(handler):
        servers.append(sys.modules["fake_server"].FakeServer(handler))
        return servers[-1]

    yield sys.modules["fake_cluster"].FakeCluster(serve)
    for server in servers:
        server.close()


class Result:
    def __init__(self, status, out, err):
        self.status, self.raw, self.err = status, out, err

    @property
    def out(self):
        return self.raw.decode("utf-8", "surrogateescape")

    @property
    def json(self):
        return json.loads(self.raw)


@pytest.fixture
def run(cluster, capfdbinary, monkeypatch):
    """Runs a command line against the fake cluster."""
    monkeypatch.setenv("DFS_URL", cluster.namenode.url)

    def call(*arguments):
        capfdbinary.readouterr()
        status = main(list(arguments))
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Result(status, captured.out, captured.err.decode())

    return call
