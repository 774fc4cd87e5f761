"""Fixtures: a cluster of a module with one or two mounts of it, or a cluster and mounts to break."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.real_cluster import Cluster
from tests.mount.real_mount import Mount

DEVICE = Path("/dev/fuse")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not DEVICE.exists():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"{DEVICE} is missing: nothing can be mounted here"))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A namenode and three datanodes, for tests that stop nothing."""
    made = Cluster(tmp_path_factory.mktemp("cluster"), 3)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def make_shared_mount(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Mount]]:
    """Further mounts of the module's cluster: make_shared_mount("-o", "ro")."""
    folder = tmp_path_factory.mktemp("mounts")
    made: list[Mount] = []

    def make(*arguments: str) -> Mount:
        mount = Mount(cluster.url, folder / f"m{len(made) + 1}", *arguments)
        made.append(mount)
        mount.start()
        return mount

    try:
        yield make
    finally:
        for mount in reversed(made):
            mount.clean_up()


@pytest.fixture(scope="module")
def mount(make_shared_mount: Callable[..., Mount]) -> Mount:
    """The module's mount. Use directories of your own."""
    return make_shared_mount()


@pytest.fixture(scope="module")
def other_mount(mount: Mount, make_shared_mount: Callable[..., Mount]) -> Mount:
    """A second mount of the same tree."""
    return make_shared_mount()


@pytest.fixture
def folder(mount: Mount, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own in the module's mount."""
    made = mount.path / request.node.name.replace("/", "_")[:100]
    made.mkdir()
    return made


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts clusters for tests that break them: make_cluster(datanodes, DFS_...=...)."""
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


@pytest.fixture
def make_mount(tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    """Mounts of any cluster, for tests that break them: make_mount(url, "-o", "timeout=5")."""
    made: list[Mount] = []

    def make(url: str, *arguments: str) -> Mount:
        mount = Mount(url, tmp_path / f"m{len(made) + 1}", *arguments)
        made.append(mount)
        mount.start()
        return mount

    try:
        yield make
    finally:
        for mount in reversed(made):
            mount.clean_up()
