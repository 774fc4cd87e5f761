"""Clients at work while servers are killed, paused, cut off, wiped and corrupted. `DFS_SEED` repeats a run."""

from __future__ import annotations

import os
import random
from pathlib import Path

from network import AVAILABLE, Network
from real_cluster import Cluster
from trial import run_trial

SECONDS = 35.0


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    seed = int(os.environ.get("DFS_SEED") or random.randrange(1 << 32))
    cluster = Cluster(tmp_path, 3, DFS_GARBAGE_DELAY="2", DFS_SUSPECT_AFTER="2", DFS_DEAD_AFTER="8")
    network = Network(cluster) if AVAILABLE else None
    try:
        cluster.start()
        counts = run_trial(cluster, seed, SECONDS, network.cut if network else None)
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()
        if network is not None:
            network.close()
    assert counts["put"] > 20
    assert counts["read"] > 20
