"""The cluster mends itself: missing copies are made, surplus ones given up, drained datanodes emptied."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, MakeCluster, Server, wait_until


def block_files(server: Server) -> dict[str, Path]:
    blocks = Path(server.env["DFS_FS_ROOT"]) / "blocks"
    return {path.name: path for path in blocks.rglob("*") if path.is_file()}


def status(cluster: Cluster) -> Any:
    return call(cluster.url, "GET", "/cluster").json()


def write_files(cluster: Cluster, count: int = 12, **params: str) -> dict[str, bytes]:
    numbers = random.Random(count)
    query = "&".join(f"{name}={value}" for name, value in params.items())
    files = {f"/fs/f{n}": numbers.randbytes(numbers.choice([100, 5000, 300_000])) for n in range(count)}
    for path, data in files.items():
        assert call(cluster.url, "PUT", f"{path}?{query}" if query else path, data).status == 201
    return files


def check_files(cluster: Cluster, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        assert read_file(cluster.url, path).body == data, path
    fsck = call(cluster.url, "GET", "/cluster/fsck").json()
    assert fsck["problems"] == []


def test_a_datanode_catches_up_with_what_it_missed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    away = cluster.datanodes[0]
    away.kill()
    cluster.wait_alive(2)
    files = write_files(cluster)
    away.start()
    cluster.wait_alive(3)
    wait_until(lambda: block_files(away).keys() == block_files(cluster.datanodes[1]).keys(), "it has every block")
    wait_until(lambda: status(cluster)["repair"]["running"] == 0, "the namenode knows")
    check_files(cluster, files)


def test_a_volume_that_comes_back_empty_is_filled(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    files = write_files(cluster)
    emptied = cluster.datanodes[2]
    emptied.kill()
    shutil.rmtree(Path(emptied.env["DFS_FS_ROOT"]) / "blocks")
    emptied.start()
    cluster.wait_alive(3)
    wait_until(lambda: block_files(emptied).keys() == block_files(cluster.datanodes[0]).keys(), "it has every block")
    wait_until(lambda: status(cluster)["repair"]["running"] == 0, "the namenode knows")
    check_files(cluster, files)
    for server in cluster.datanodes[:2]:
        server.kill()
    cluster.wait_alive(1)
    for path, data in files.items():
        assert read_file(cluster.url, path).body == data


def test_a_damaged_copy_is_replaced(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    data = random.Random(5).randbytes(300_000)
    call(cluster.url, "PUT", "/fs/rot", data)
    victim = cluster.datanodes[1]
    name, path = next(iter(block_files(victim).items()))
    with path.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    location = call(cluster.url, "GET", "/fs/rot?redirect=false").json()["location"]
    for server in cluster.datanodes:
        assert call(server.url, "GET", "/" + location.split("/", 3)[3]).body == data
    good = block_files(cluster.datanodes[0])[name].read_bytes()
    replaced = Path(victim.env["DFS_FS_ROOT"]) / "blocks"
    wait_until(
        lambda: (
            [p.stat().st_size for p in replaced.rglob(name)] == [len(good)]
            and next(replaced.rglob(name)).read_bytes()[: len(data)] == data
        ),
        "the copy is good again",
    )
    assert list((Path(victim.env["DFS_FS_ROOT"]) / "quarantine").iterdir())
    wait_until(lambda: call(cluster.url, "GET", "/cluster/fsck").json()["healthy"], "the namenode knows")


def test_copies_of_a_dead_datanode_are_made_elsewhere(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(4, DFS_REPLICATION="2", DFS_DEAD_AFTER="6", DFS_GARBAGE_DELAY="0.1")
    files = write_files(cluster, 20)
    dead = cluster.datanodes[3]
    dead.kill()
    wait_until(
        lambda: (
            [node["state"] for node in status(cluster)["nodes"]].count("dead") == 1
            and call(cluster.url, "GET", "/cluster/fsck").json()["healthy"]
        ),
        "every block has two copies again",
    )
    check_files(cluster, files)
    dead.start()
    cluster.wait_alive(4)
    wait_until(
        lambda: (
            sum(len(block_files(server)) for server in cluster.datanodes)
            == 2 * call(cluster.url, "GET", "/cluster/fsck").json()["blocks"]
        ),
        "surplus copies are gone",
    )
    check_files(cluster, files)


def test_a_drained_datanode_can_be_taken_away(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_REPLICATION="1", DFS_DEAD_AFTER="6")
    files = write_files(cluster, 20)
    leaving = max(cluster.datanodes, key=lambda server: len(block_files(server)))
    assert block_files(leaving)
    assert call(cluster.url, "POST", f"/cluster/drain?node={leaving.url}").status == 200
    assert call(cluster.url, "POST", f"/cluster/forget?node={leaving.url}").error == "EINVAL"

    def entry() -> Any:
        return next(node for node in status(cluster)["nodes"] if node["url"].rstrip("/") == leaving.url)

    assert entry()["state"] == "draining"
    wait_until(lambda: entry()["to_move"] == 0, "nothing is left to move")
    assert leaving.stop() == 0
    wait_until(lambda: entry()["state"] in ("suspect", "dead"), "it is gone")
    assert call(cluster.url, "POST", f"/cluster/forget?node={leaving.url}").status == 200
    assert len(status(cluster)["nodes"]) == 2
    check_files(cluster, files)


def test_a_drain_can_be_taken_back(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    node = status(cluster)["nodes"][0]["id"]
    call(cluster.url, "POST", f"/cluster/drain?node={node[:8]}")
    assert status(cluster)["nodes"][0]["state"] == "draining"
    call(cluster.url, "POST", f"/cluster/drain?node={node[:8]}&cancel=true")
    assert status(cluster)["nodes"][0]["state"] == "alive"
    assert call(cluster.url, "POST", "/cluster/drain?node=nonsense").error == "ENOENT"


def test_repair_keeps_to_its_rate(make_cluster: MakeCluster) -> None:
    """By what is copied in a time that is measured, not by how long it takes on a machine of some speed."""
    cluster = make_cluster(2, DFS_DEAD_AFTER="3", DFS_MIN_REPLICAS="1")
    slow = cluster.datanodes[0]
    slow.kill()
    for number in range(8):
        assert call(cluster.url, "PUT", f"/fs/{number}", b"x" * (2 << 20)).status == 201
    slow.env["DFS_REPAIR_RATE"] = "4MiB"
    began = time.monotonic()
    slow.start()
    cluster.wait_alive(2)
    wait_until(lambda: call(cluster.url, "GET", "/cluster/fsck").json()["healthy"], "all is copied")
    assert time.monotonic() - began > 2.5  # 16 MiB take four seconds, the burst at the beginning left out
