"""Clients at work while servers are killed, paused, cut off, filled, wiped and corrupted. `DFS_SEED` repeats a run."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.faults.trial import breakable_cluster, run_trial

SECONDS = 15.0


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    seed = int(os.environ.get("DFS_SEED") or random.randrange(1 << 32))
    with breakable_cluster(tmp_path) as (cluster, means):
        run_trial(cluster, seed, SECONDS, means)
