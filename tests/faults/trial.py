"""One trial: clients work while the nemesis breaks things; then all is mended, and everything is looked at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import requests

from http_client import HttpNameNode
from tests.cluster.real_cluster import Cluster, Server, wait_until
from tests.deadline import DEADLINE_S
from tests.faults.checker import Client, Content, Violation
from tests.faults.nemesis import Means, Nemesis
from tests.faults.network import AVAILABLE as NETWORKS
from tests.faults.network import Network
from tests.faults.small_disk import AVAILABLE as DISKS
from tests.faults.small_disk import SmallDisk

CLIENTS = 3
OPERATIONS_MIN = 20
"""So many files are written, and read, in any trial."""
_TIMEOUT_S = 20.0
"""How long a client goes on trying; then nobody knows what came of its operation."""


def run_trial(cluster: Cluster, seed: int, seconds: float, means: Means) -> None:
    """For so many seconds, and until enough was written and read. Raises Violation, and AssertionError where the
    cluster does not heal."""
    print(f"seed {seed}", flush=True)
    clients = [Client(number, HttpNameNode(cluster.url, timeout_s=_TIMEOUT_S), seed) for number in range(CLIENTS)]
    stop = threading.Event()
    violations: list[BaseException] = []

    def work(client: Client) -> None:
        try:
            client.run(stop)
        except BaseException as error:
            violations.append(error)
            stop.set()
            raise

    threads = [threading.Thread(target=work, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    nemesis = Nemesis(cluster, seed, means)
    try:
        nemesis.run(seconds, lambda: all(total(clients, what) > OPERATIONS_MIN for what in ("put", "read")), stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_S)
    if violations:
        raise violations[0]
    nemesis.wait_healthy()
    check_everything(cluster, clients)
    totals = {what: total(clients, what) for what in sorted({what for client in clients for what in client.counts})}
    print(totals, flush=True)


def total(clients: list[Client], what: str) -> int:
    """How often they have done it, all together."""
    return sum(client.counts.get(what, 0) for client in clients)


def check_everything(cluster: Cluster, clients: list[Client]) -> None:
    """Every file is what it may be, from every datanode; copies are at their number, and no garbage is left."""
    for client in clients:
        for path, file in client.files.items():
            found = {read_from(cluster, path, server.url) for server in cluster.datanodes}
            if len(found) != 1:
                raise Violation(f"{path} is not the same on all datanodes")
            file.check(path, found.pop(), "at the end")
    try:
        wait_until(lambda: no_garbage(cluster), "what no file uses is gone from every datanode")
    except AssertionError:
        describe_garbage(cluster)
        raise


def read_from(cluster: Cluster, path: str, datanode_url: str) -> Content:
    """A file as one datanode serves it."""
    answer = requests.get(f"{cluster.url}fs{path}?redirect=false", timeout=DEADLINE_S)
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    location = answer.json()["location"]
    file = requests.get(datanode_url + "/files/" + location.split("/files/", 1)[1], timeout=DEADLINE_S)
    file.raise_for_status()
    return file.content


def no_garbage(cluster: Cluster) -> bool:
    """Each datanode has just the blocks that files use."""
    if requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()["garbage_blocks"]:
        return False
    used = requests.get(f"{cluster.url}cluster/fsck", timeout=DEADLINE_S).json()["blocks"]
    return all(stored(server) == used for server in cluster.datanodes)


def describe_garbage(cluster: Cluster) -> None:
    """Each block on a disk that the namenode does not know, and what the logs say of it."""
    print("garbage blocks noted:", requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()["garbage_blocks"])
    for server in cluster.datanodes:
        files = {path.name for path in Path(server.env["DFS_FS_ROOT"]).glob("blocks/*/*")}
        print(server.name, "counts", stored(server), "has", len(files))
        for name in sorted(files):
            if requests.get(f"{cluster.url}cluster/locate/{name}", timeout=DEADLINE_S).status_code == 404:
                lines = [line for one in cluster.servers for line in one.log.read_text().splitlines() if name in line]
                print(server.name, name, *lines[-6:], sep="\n  ")


def stored(server: Server) -> int:
    text = requests.get(f"{server.url}/metrics", timeout=DEADLINE_S).text
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("dfs_datanode_blocks "))))


@contextmanager
def breakable_cluster(folder: Path) -> Iterator[tuple[Cluster, Means]]:
    """Three datanodes that are soon given up for dead, and where root is at work a network and a disk to be broken."""
    quick = {"DFS_GARBAGE_DELAY": "2", "DFS_SUSPECT_AFTER": "2", "DFS_DEAD_AFTER": "8", "DFS_STALL_TIMEOUT": "4"}
    cluster = Cluster(folder, 3, **quick)
    with ExitStack() as stack:
        network = disk = None
        if NETWORKS:
            network = Network(cluster)
            stack.callback(network.close)
        if DISKS:
            disk = SmallDisk(cluster.datanodes[2], folder)
            stack.callback(disk.close)
        stack.callback(cluster.stop)
        try:
            cluster.start()
            yield cluster, Means(network.cut if network else None, disk)
        except BaseException:
            print(cluster.logs())
            raise
