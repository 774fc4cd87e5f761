"""Datanodes by number: 3, then 5, then 3 again, with every file at hand all the while.

Swarm alone chooses which task it ends when there are to be fewer. So one at a time, and what it held is copied
elsewhere at once by draining the one that has gone.
"""

from __future__ import annotations

import os
from pathlib import Path

from http_client import HttpNameNode
from tests.cluster.real_cluster import wait_until
from tests.swarm import documents
from tests.swarm.stack import INSIDE, Stack, load, stack

_FILES = 12


def test_three_five_three(on_swarm: str) -> None:
    overlays: list[str | Path] = ["host-ports", "replicas", INSIDE]
    settings = {"DATA_PORT": "0", "DFS_REPLICATION": "2", "DATA_REPLICAS": "3"}
    with stack("dfs-scale", on_swarm, overlays, 3, **settings) as scaled, HttpNameNode(scaled.url) as dfs:
        for number in range(_FILES):
            dfs.tee(f"/{number}", os.urandom(1 << 18))
        scaled.deploy(5, DATA_REPLICAS="5")
        scaled.wait_settled()
        assert len(dfs.status().nodes) == 5
        with load(scaled):
            for count in (4, 3):
                take_one_away(scaled, dfs, count)
        assert len(dfs.status().nodes) == 3
        health = dfs.fsck()
        assert health.healthy, health


def take_one_away(scaled: Stack, dfs: HttpNameNode, left: int) -> None:
    """As docs/swarm.md has it."""
    scale, *leave = documents.block("docker service scale dfs_data=4")
    (status,) = documents.block("./dfs.py status")[:1]
    documents.run([scale], {"dfs_data=4": f"{scaled.name}_data={left}"})

    def gone() -> list[str]:
        return [node.id for node in dfs.status().nodes if node.state == "suspect"]

    wait_until(lambda: len(gone()) == 1, "one is gone", pause_s=0.3)
    (node,) = gone()
    assert f"{node[:4]}" in documents.run([status], {}, DFS_URL=scaled.url)
    documents.run(leave, {"3f2a": node}, DFS_URL=scaled.url)
