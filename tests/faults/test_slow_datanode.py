"""A datanode that answers in ten seconds: writes do not wait for it, the status shows it, and it comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, wait_until
from tests.deadline import DEADLINE_S
from tests.faults.delaying_proxy import DelayingProxy

NEAR = "127.0.0.2"


def node(cluster: Cluster) -> dict[str, Any]:
    nodes: list[dict[str, Any]] = requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()["nodes"]
    return next(found for found in nodes if NEAR in found["url"])


def test_a_slow_datanode_is_gone_on_without(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    slow = cluster.datanodes[0]
    slow.env["DFS_ADVERTISE_HOST"] = NEAR
    with DelayingProxy(NEAR, slow.port, ("127.0.0.1", slow.port)) as proxy:
        try:
            cluster.start()
            assert call(cluster.url, "PUT", "/fs/before", b"quick").json()["replicas"] == 3
            proxy.delay_s = 10.0
            first = call(cluster.url, "PUT", "/fs/first", b"x" * 500_000)
            assert first.json()["replicas"] == 2
            assert node(cluster)["slow"] is True
            before = proxy.writes
            assert before >= 2, "what was sent to it is counted"
            for number in range(20):
                assert call(cluster.url, "PUT", f"/fs/next-{number}", b"y" * 5000).json()["replicas"] == 2
            assert proxy.writes - before <= 3, "now and then it is tried, each time after a longer pause"
            assert node(cluster)["state"] == "alive"
            assert read_file(cluster.url, "/fs/first").body == b"x" * 500_000
            proxy.delay_s = 0.0
            wait_until(lambda: not node(cluster)["slow"], "it is not avoided for ever")
            assert call(cluster.url, "PUT", "/fs/after", b"quick").json()["replicas"] == 3
            fsck = f"{cluster.url}cluster/fsck"
            wait_until(lambda: requests.get(fsck, timeout=DEADLINE_S).json()["healthy"], "it has what it missed")
        finally:
            cluster.stop()
