"""Many at once, large ones in constant memory, and a copy of every block on every datanode."""

from __future__ import annotations

import hashlib
import http.client
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, Server, wait_until

GIB = 1 << 30
PATTERN = random.Random(1).randbytes(1 << 20)


def peak_rss_mib(server: Server) -> float:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def block_files(server: Server) -> set[str]:
    root = Path(server.env["DFS_FS_ROOT"])
    return {path.name for path in (root / "blocks").rglob("*") if path.is_file()}


def wait_everywhere(cluster: Cluster) -> None:
    """Until every datanode has every block: one that kept a write waiting for long is gone on without, and gets it
    afterwards."""

    def is_everywhere() -> bool:
        return len({frozenset(block_files(datanode)) for datanode in cluster.datanodes}) == 1

    wait_until(is_everywhere, "every datanode has every block")
    wait_until(lambda: call(cluster.url, "GET", "/cluster/fsck").json()["problems"] == [], "the namenode knows")


def test_200_files_from_16_threads(cluster: Cluster) -> None:
    seed = 2024
    print("seed", seed)
    numbers = random.Random(seed)
    bodies = {f"/fs/many/f{n}": numbers.randbytes(numbers.choice([0, 1, 4096, 70_000, 300_000])) for n in range(200)}
    todo = list(bodies)
    wrong: list[object] = []

    def work() -> None:
        while True:
            try:
                path = todo.pop()
            except IndexError:
                return
            answer = call(cluster.url, "PUT", f"{path}?parents=true", bodies[path])
            if answer.status != 201 or read_file(cluster.url, path).body != bodies[path]:
                wrong.append((path, answer))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(call(cluster.url, "GET", "/fs/many").json()["entries"]) == 200
    wait_everywhere(cluster)


def test_a_gibibyte_in_constant_memory(cluster: Cluster) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(GIB // len(PATTERN)):
            yield PATTERN

    connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc)
    connection.request("PUT", "/fs/gib", body=body(), headers={"Content-Length": str(GIB)})
    answer = connection.getresponse()
    assert answer.status == 201, answer.read()
    connection.close()
    parts = urlsplit(call(cluster.url, "GET", "/fs/gib").headers["location"])
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", parts.path)
    answer = connection.getresponse()
    digest, size = hashlib.blake2b(), 0
    while data := answer.read(1 << 20):
        digest.update(data)
        size += len(data)
    connection.close()
    expected = hashlib.blake2b()
    for _ in range(GIB // len(PATTERN)):
        expected.update(PATTERN)
    assert size == GIB
    assert digest.digest() == expected.digest()
    assert peak_rss_mib(cluster.namenode) < 250
    for datanode in cluster.datanodes:
        assert peak_rss_mib(datanode) < 250
    wait_everywhere(cluster)
    assert call(cluster.url, "DELETE", "/fs/gib").status == 204


def test_a_directory_of_many_entries_is_streamed(cluster: Cluster) -> None:
    connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc)
    for number in range(3000):
        connection.request("POST", f"/fs/wide/d{number:05}?op=mkdir&parents=true")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 201
    connection.close()
    entries = call(cluster.url, "GET", "/fs/wide").json()["entries"]
    assert [entry["name"] for entry in entries] == [f"d{number:05}" for number in range(3000)]
    assert call(cluster.url, "DELETE", "/fs/wide?recursive=true").status == 204
    wait_until(
        lambda: call(cluster.url, "GET", "/cluster/df").json()["directories"] < 1000,
        "the tree that was cut off is reaped",
    )
