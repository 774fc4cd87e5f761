"""The command line against the fake cluster of tests/unit/client."""

from __future__ import annotations

import sys

import pytest

from dfslib.cli.main import main
from tests.unit.cli.command import Result, Run
from tests.unit.client.conftest import cluster, serve
from tests.unit.client.fake_cluster import FakeCluster

__all__ = ["cluster", "serve"]


@pytest.fixture
def run(cluster: FakeCluster, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("DFS_URL", cluster.namenode.url)

    def call(*arguments: str) -> Result:
        capfdbinary.readouterr()
        status = main(list(arguments))
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Result(status, captured.out, captured.err.decode())

    return call
