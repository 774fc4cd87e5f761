"""Block files that somebody deletes, cuts off or changes on the disk of a running datanode."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.plain_http import call
from tests.cluster.real_cluster import Cluster, MakeCluster, Server, wait_until

SIZE = 300_000
DATA = random.Random(7).randbytes(SIZE)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(SIZE // 2)
        byte = file.read(1)
        file.seek(SIZE // 2)
        file.write(bytes([byte[0] ^ 1]))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "cut off": lambda path: os.truncate(path, SIZE // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "changed": flip,
}


def block_file(server: Server) -> Path | None:
    found = list(Path(server.env["DFS_FS_ROOT"]).glob("blocks/*/*"))
    return found[0] if found else None


def is_good(path: Path | None) -> bool:
    try:
        return path is not None and path.read_bytes()[:SIZE] == DATA
    except FileNotFoundError:
        return False


def metric(server: Server, name: str) -> float:
    lines = call(server.url, "GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


def read_at(cluster: Cluster, server: Server) -> bytes:
    location = call(cluster.url, "GET", "/fs/file?redirect=false").json()["location"]
    return call(server.url, "GET", "/" + location.split("/", 3)[3]).body


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_next_read_is_right_and_the_copy_comes_back(make_cluster: MakeCluster, damage: str) -> None:
    cluster = make_cluster(3)
    call(cluster.url, "PUT", "/fs/file", DATA)
    for server in cluster.datanodes:
        assert read_at(cluster, server) == DATA  # from now on they have it open
    victim = cluster.datanodes[1]
    path = block_file(victim)
    assert path is not None
    DAMAGES[damage](path)
    assert read_at(cluster, victim) == DATA
    name = "missing" if damage == "deleted" else "bad"
    assert metric(victim, f"dfs_datanode_{name}_blocks_total") == 1
    wait_until(lambda: is_good(block_file(victim)), "a good copy is back")
    wait_until(lambda: call(cluster.url, "GET", "/cluster/fsck").json()["healthy"], "the namenode knows")
    assert read_at(cluster, victim) == DATA


def test_fsck_shows_a_lost_copy_until_it_is_repaired(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    call(cluster.url, "PUT", "/fs/file", DATA)
    victim, other = cluster.datanodes
    other.kill()
    cluster.wait_alive(1)
    path = block_file(victim)
    assert path is not None
    path.unlink()
    assert call(victim.url, "GET", f"/blocks/{path.name}?local=true").error == "ENOENT"

    def problems() -> set[str]:
        return {problem["kind"] for problem in call(cluster.url, "GET", "/cluster/fsck").json()["problems"]}

    wait_until(lambda: problems() == {"lost"}, "fsck shows that no copy is there")
    other.start()
    cluster.wait_alive(2)
    wait_until(lambda: problems() == set(), "repaired")
    assert is_good(block_file(victim))
