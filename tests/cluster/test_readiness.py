"""A datanode that was away is ready when it has all that it missed, and stays so whatever happens to others."""

from __future__ import annotations

import os
from pathlib import Path

import requests

from http_client import HttpNameNode
from tests.cluster.real_cluster import Cluster, wait_until
from tests.deadline import DEADLINE_S


def ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/healthz?ready", timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def test_ready_when_whole_and_from_then_on(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, 3)
    first, second, third = cluster.datanodes
    cluster.start()
    try:
        wait_until(lambda: all(ready(datanode.url) for datanode in cluster.datanodes), "all are ready")
        assert third.stop() == 0
        with HttpNameNode(cluster.url) as dfs:
            for number in range(8):
                dfs.tee(f"/{number}", os.urandom(1 << 20))
        third.env["DFS_REPAIR_RATE"] = "4MiB"
        third.start()
        wait_until(lambda: ready(third.url), "the one that was away is ready")
        state = requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()
        assert {node["blocks"] for node in state["nodes"]} == {8}
        assert (state["repair"]["waiting"], state["repair"]["running"]) == (0, 0)
        second.kill()
        wait_until(lambda: cluster.alive() == 2, "one is seen to be gone")
        assert ready(first.url) and ready(third.url)
    finally:
        cluster.stop()
