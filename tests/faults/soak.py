"""Trials with ever new seeds for a given time: `make soak MINUTES=30`. Ends at the first broken promise.

The folder of a trial that fails is kept, with the servers' logs; its seed repeats it: DFS_SEED=... make soak.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.trial import breakable_cluster, run_trial

TRIAL_S = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    args = parser.parse_args()
    end = time.monotonic() + args.minutes * 60
    trials = 0
    while time.monotonic() < end:
        seed = int(os.environ.get("DFS_SEED") or random.randrange(1 << 32))
        trials += 1
        print(f"trial {trials}, {max(0, end - time.monotonic()) / 60:.0f} minutes left", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="dfs-soak-"))
        if not trial(folder, seed, min(TRIAL_S, max(10.0, end - time.monotonic()))):
            print(f"seed {seed} failed; logs are in {folder}", flush=True)
            return 1
        shutil.rmtree(folder)
    print(f"{trials} trials, nothing lost", flush=True)
    return 0


def trial(folder: Path, seed: int, seconds: float) -> bool:
    try:
        with breakable_cluster(folder) as (cluster, means):
            run_trial(cluster, seed, seconds, means)
    except (AssertionError, OSError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
