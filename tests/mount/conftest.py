"""Fixtures: a cluster of a module with one or two mounts of it, or a cluster and mounts to break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import cluster, make_cluster
from tests.cluster.real_cluster import Cluster
from tests.mount.real_mount import MakeMount, MakeSharedMount, Mount

__all__ = ["cluster", "make_cluster"]

DEVICE = Path("/dev/fuse")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not DEVICE.exists():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=f"{DEVICE} is missing: nothing can be mounted here"))


@pytest.fixture(scope="module")
def make_shared_mount(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeSharedMount]:
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
def mount(make_shared_mount: MakeSharedMount) -> Mount:
    """The module's mount. Use directories of your own."""
    return make_shared_mount()


@pytest.fixture(scope="module")
def other_mount(mount: Mount, make_shared_mount: MakeSharedMount) -> Mount:
    """A second mount of the same tree."""
    return make_shared_mount()


@pytest.fixture
def folder(mount: Mount, request: pytest.FixtureRequest) -> Path:
    """A directory of the test's own in the module's mount."""
    name: str = request.node.name
    made = mount.path / name.replace("/", "_")[:100]
    made.mkdir()
    return made


@pytest.fixture
def make_mount(tmp_path: Path) -> Iterator[MakeMount]:
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
