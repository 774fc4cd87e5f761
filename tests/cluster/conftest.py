"""Fixtures: one cluster shared by the tests of a module that leave it whole, or a fresh one to break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.real_cluster import Cluster, MakeCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A namenode and three datanodes, for tests that stop nothing. Use names of your own."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), 3)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Starts clusters for tests that break them."""
    made: list[Cluster] = []

    def make(datanodes: int = 3, **settings: str) -> Cluster:
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        cluster = Cluster(folder, datanodes, **settings)
        made.append(cluster)
        cluster.start()
        return cluster

    try:
        yield make
    finally:
        for cluster in made:
            cluster.stop()
