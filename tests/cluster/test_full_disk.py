"""Disks that are full: 507, nothing half done, and back in the placement when space returns."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
MIB = 1 << 20


@pytest.fixture
def small_cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three datanodes; those whose numbers the test names have a volume of 64 MiB."""
    cluster = Cluster(tmp_path, 3, DFS_GARBAGE_DELAY="0.1")
    mounted: list[str] = []
    try:
        for number, server in enumerate(cluster.datanodes):
            server.env["DFS_RESERVED_SPACE"] = "1MiB"
            if number in request.param:
                root = server.env["DFS_FS_ROOT"]
                Path(root).mkdir()
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", root], check=True)
                mounted.append(root)
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        for root in mounted:
            subprocess.run(["umount", root], check=True)


def nodes(cluster: Cluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = call(cluster.url, "GET", "/cluster").json()["nodes"]
    return found


@pytest.mark.parametrize("small_cluster", [(0, 1, 2)], indirect=True)
def test_all_disks_full(small_cluster: Cluster) -> None:
    cluster = small_cluster
    kept = os.urandom(10 * MIB)
    assert call(cluster.url, "PUT", "/fs/kept", kept).status == 201
    refused = call(cluster.url, "PUT", "/fs/kept", os.urandom(80 * MIB))
    assert (refused.status, refused.error) == (507, "ENOSPC")
    assert read_file(cluster.url, "/fs/kept").body == kept
    assert len(call(cluster.url, "GET", "/fs/").json()["entries"]) == 1

    written = 0
    while (answer := call(cluster.url, "PUT", f"/fs/fill{written}", os.urandom(MIB))).status == 201:
        written += 1
        assert written < 64
    assert (answer.status, answer.error) == (507, "ENOSPC")
    for number in range(written):
        assert call(cluster.url, "DELETE", f"/fs/fill{number}").status == 204
    wait_until(lambda: all(node["writable"] and node["free"] > 40 * MIB for node in nodes(cluster)), "space returned")
    assert call(cluster.url, "PUT", "/fs/again", os.urandom(MIB)).json()["replicas"] == 3
    assert read_file(cluster.url, "/fs/kept").body == kept


@pytest.mark.parametrize("small_cluster", [(1,)], indirect=True)
def test_one_full_disk_is_left_out(small_cluster: Cluster) -> None:
    cluster = small_cluster
    data = os.urandom(80 * MIB)
    answer = call(cluster.url, "PUT", "/fs/large", data)
    assert (answer.status, answer.json()["replicas"]) == (201, 2)
    assert read_file(cluster.url, "/fs/large").body == data
    assert call(cluster.url, "PUT", "/fs/small", b"x" * 1000).status == 201
    small = cluster.datanodes[1].url
    assert next(node for node in nodes(cluster) if node["url"].rstrip("/") == small)["state"] == "alive"


@pytest.mark.parametrize("small_cluster", [(1,)], indirect=True)
def test_a_disk_that_becomes_read_only_is_left_out(small_cluster: Cluster) -> None:
    cluster = small_cluster
    sick = cluster.datanodes[1]
    data = os.urandom(3 * MIB)
    assert call(cluster.url, "PUT", "/fs/before", data).json()["replicas"] == 3

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", sick.env["DFS_FS_ROOT"]], check=True)

    def writable() -> bool:
        return bool(next(node for node in nodes(cluster) if node["url"].rstrip("/") == sick.url)["writable"])

    remount("ro")
    for number in range(5):
        assert call(cluster.url, "PUT", f"/fs/during-{number}", data).json()["replicas"] == 2
    wait_until(lambda: not writable(), "the placement avoids it")
    assert read_file(cluster.url, "/fs/before").body == data
    inode = call(cluster.url, "HEAD", "/fs/before").headers["x-dfs-inode"]
    assert call(sick.url, "GET", f"/files/{inode}/1/x").body == data
    remount("rw")
    wait_until(writable, "it is back")
    wait_until(lambda: call(cluster.url, "GET", "/cluster/fsck").json()["healthy"], "it has what it missed")


def test_the_namenodes_disk_is_full(tmp_path: Path) -> None:
    """Writes are refused, nothing is taken for damage, and they go on when space returns, without a restart."""
    cluster = Cluster(tmp_path, 2)
    folder = Path(cluster.namenode.env["DFS_DB_PATH"])
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    filler = folder / "filler"
    try:
        cluster.start()
        kept = {f"/fs/before{number}": b"%d" % number for number in range(20)}
        for path, data in kept.items():
            assert call(cluster.url, "PUT", path, data).status == 201
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        refused = 0
        for number in range(30):
            path = f"/fs/{number}-{'x' * 200}"
            answer = call(cluster.url, "PUT", path, b"full")
            if answer.status == 201:
                kept[path] = b"full"
            else:
                assert (answer.status, answer.error) == (507, "ENOSPC")
                refused += 1
        assert refused
        assert {path: read_file(cluster.url, path).body for path in kept} == kept
        filler.unlink()
        assert call(cluster.url, "PUT", "/fs/after", b"after").status == 201
        assert "damaged" not in cluster.namenode.log.read_text()
    finally:
        cluster.stop()
        subprocess.run(["umount", str(folder)], check=True)
