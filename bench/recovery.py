"""`python -m bench.recovery`: how long it takes until a broken cluster is whole again, in one run.

A datanode with an empty volume, beside a plain copy of the same bytes; a datanode that is killed, as plain clients see
it; a namenode with a large namespace that is killed, and one that has lost all it had.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests

from tests.cluster.real_cluster import Cluster, wait_until

MIB = 1 << 20
FILE_BYTES = 4 * MIB
FOLDERS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024, help="how much a datanode is filled with (default: 1024)")
    parser.add_argument("--files", type=int, default=1_000_000, help="files in the namespace (default: 1,000,000)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-", dir=Path.cwd()) as folder:
        repair(Path(folder), args.mib)
        failover(Path(folder))
        namespace(Path(folder), args.files)


def started(folder: Path, **settings: str) -> Cluster:
    folder.mkdir()
    cluster = Cluster(folder, 3, **settings)
    cluster.start()
    return cluster


def healthy(cluster: Cluster) -> bool:
    return bool(requests.get(f"{cluster.url}cluster/fsck", timeout=600).json()["healthy"])


def repair(folder: Path, mib: int) -> None:
    """MB/s at which an empty volume is filled."""
    cluster = started(folder / "repair", DFS_DEAD_AFTER="3")
    try:
        data = os.urandom(FILE_BYTES)
        for number in range(mib * MIB // FILE_BYTES):
            requests.put(f"{cluster.url}fs/{number}", data, timeout=60).raise_for_status()
        victim = cluster.datanodes[0]
        victim.kill()
        shutil.rmtree(victim.env["DFS_FS_ROOT"])
        victim.start()
        began = time.perf_counter()
        cluster.wait_alive(3)
        wait_until(lambda: stored(victim.url) >= mib * MIB // FILE_BYTES, "all blocks are copied", 600)
        dfs = mib * MIB / 1e6 / (time.perf_counter() - began)
    finally:
        cluster.stop()
    source, target = folder / "repair" / "data2" / "blocks", folder / "plain"
    began = time.perf_counter()
    for path in source.glob("*/*"):
        copied = target / path.parent.name / path.name
        copied.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as one, copied.open("wb") as other:
            shutil.copyfileobj(one, other, MIB)
            other.flush()
            os.fsync(other.fileno())
    machine = mib * MIB / 1e6 / (time.perf_counter() - began)
    print(f"repair of {mib} MiB: {dfs:.0f} MB/s; plain copies, each fsynced: {machine:.0f} MB/s ({dfs / machine:.2f})")


def stored(url: str) -> int:
    try:
        text = requests.get(f"{url}/metrics", timeout=10).text
    except requests.RequestException:
        return 0
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("dfs_datanode_blocks "))))


def failover(folder: Path) -> None:
    """Seconds from SIGKILL of a datanode to the last request that failed, for clients that repeat nothing."""
    cluster = started(folder / "failover")
    try:
        data = os.urandom(100_000)
        for number in range(20):
            requests.put(f"{cluster.url}fs/{number}", data, timeout=60).raise_for_status()
        stop, failures, done = threading.Event(), [], [0]

        def client(which: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                url = f"{cluster.url}fs/{number % 20}"
                try:
                    if which % 2:
                        requests.get(url, timeout=30).raise_for_status()
                    else:
                        requests.put(f"{url}-{which}", data, timeout=30).raise_for_status()
                except requests.RequestException as error:
                    failures.append((time.perf_counter(), which % 2, str(error)))
                done[0] += 1

        threads = [threading.Thread(target=client, args=(which,)) for which in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: done[0] > 100, "the clients are at work")
        killed = time.perf_counter()
        cluster.datanodes[0].kill()
        count = done[0]
        wait_until(lambda: done[0] > count + 1000, "the clients have gone on", 120)
        stop.set()
        for thread in threads:
            thread.join()
        last = max((when - killed for when, _, _ in failures), default=0.0)
        reads = sum(read for _, read, _ in failures)
        print(
            f"SIGKILL of a datanode: {reads} reads and {len(failures) - reads} writes of {done[0]} failed, "
            f"the last one after {last * 1000:.0f} ms"
        )
    finally:
        cluster.stop()


_MAKE_FILES = """
import asyncio, sys
from pathlib import Path
from dfslib.model import ROOT, FileType
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace.content import share_content
from dfslib.namenode.namespace.create import NewInode, create
from dfslib.namenode.namespace.lookup import Path as Names, find

async def main(folder, files, folders):
    engine = LmdbEngine(Path(folder))
    seed = engine.read(lambda txn: find(txn, Names([b"seed"])).ino)
    new, directory = NewInode(type=FileType.FILE, mode=0o644), NewInode(type=FileType.DIRECTORY, mode=0o755)
    for number in range(folders):
        def fill(txn):
            parent = create(txn, ROOT, b"d%d" % number, directory, 1).ino
            for name in range(files // folders):
                share_content(txn, seed, create(txn, parent, b"file-%d" % name, new, 1).ino, 2)
        await engine.transact(fill)
    engine.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def namespace(folder: Path, files: int) -> None:
    """Seconds until a namenode with so many files serves again: after SIGKILL, and from the datanodes' copies."""
    cluster = started(folder / "namespace", DFS_CHECKPOINT_EVERY="1")
    try:
        requests.put(f"{cluster.url}fs/seed", b"x" * 1000, timeout=60).raise_for_status()
        cluster.namenode.stop()
        own = cluster.namenode.env["DFS_DB_PATH"]
        subprocess.run([sys.executable, "-c", _MAKE_FILES, own, str(files), str(FOLDERS)], check=True)
        size = (Path(own) / "data.mdb").stat().st_size
        cluster.namenode.start()
        cluster.wait_alive()
        cluster.namenode.kill()
        print(f"{files} files: SIGKILL, serving again after {seconds_to_serve(cluster):.1f} s")
        url = f"{cluster.url}cluster"
        wait_until(
            lambda: requests.get(url, timeout=60).json()["metadata"]["copied_until"], "the metadata is copied", 900
        )
        copies = sum(path.stat().st_size for path in (cluster.folder / "data1" / "metadata").iterdir())
        cluster.namenode.kill()
        shutil.rmtree(own)
        del cluster.namenode.env["DFS_NEW_CLUSTER"]
        took = seconds_to_serve(cluster)
        found = requests.get(f"{cluster.url}cluster/df", timeout=60).json()["files"]
        assert found == files + 1, f"{found} files are restored"
        print(
            f"{files} files ({size / MIB:.0f} MiB in LMDB, {copies / MIB:.0f} MiB as a checkpoint): folder lost, "
            f"serving again after {took:.1f} s, {files / took:.0f} files/s"
        )
    finally:
        cluster.stop()


def seconds_to_serve(cluster: Cluster) -> float:
    """From the start of the namenode until a file can be read."""
    cluster.namenode.start()
    began = time.perf_counter()
    wait_until(lambda: reads(cluster), "a file can be read", 900)
    return time.perf_counter() - began


def reads(cluster: Cluster) -> bool:
    try:
        return requests.get(f"{cluster.url}fs/d{FOLDERS - 1}/file-0", timeout=30).content == b"x" * 1000
    except requests.RequestException:
        return False


if __name__ == "__main__":
    main()
