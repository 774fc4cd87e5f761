"""Processes that are killed, restarted and lost: nothing acknowledged is missing."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import MakeCluster, wait_until
from tests.deadline import DEADLINE_S


def test_everything_killed_after_acknowledged_writes(make_cluster: MakeCluster) -> None:
    seed = 7
    print("seed", seed)
    numbers = random.Random(seed)
    cluster = make_cluster(3)
    acknowledged: dict[str, bytes] = {}
    stop = threading.Event()

    def write(worker: int) -> None:
        for number in range(1000):
            if stop.is_set():
                return
            path, data = f"/fs/w{worker}-{number}", numbers.randbytes(numbers.choice([10, 4096, 200_000]))
            try:
                answer = call(cluster.url, "PUT", path, data)
            except OSError:
                return  # killed in the middle: nobody was told that it is there
            if answer.status == 201:
                acknowledged[path] = data

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(acknowledged) > 150, "a burst of acknowledged writes")
    for server in cluster.servers:
        server.kill()
    stop.set()
    for thread in threads:
        thread.join()
    for server in cluster.servers:
        server.start()
    cluster.wait_alive(3)
    for path, data in acknowledged.items():
        assert read_file(cluster.url, path).body == data, path
    assert call(cluster.url, "GET", "/cluster/fsck").json()["problems"] == []


def test_reads_go_on_without_a_datanode(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    data = b"still here" * 50_000
    call(cluster.url, "PUT", "/fs/file", data)
    cluster.datanodes[0].kill()
    cluster.wait_alive(2)
    for _ in range(12):
        assert read_file(cluster.url, "/fs/file").body == data
    assert call(cluster.url, "PUT", "/fs/other", b"written by two").json()["replicas"] == 2
    cluster.datanodes[0].start()
    cluster.wait_alive(3)
    lacking = cluster.datanodes[0]
    location = call(cluster.url, "GET", "/fs/other?redirect=false").json()["location"]
    path = location.split("/", 3)[3]
    assert call(lacking.url, "GET", f"/{path}").body == b"written by two"


def test_writes_need_enough_datanodes(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    assert call(cluster.url, "PUT", "/fs/two", b"2").json()["replicas"] == 2
    cluster.datanodes[0].kill()
    cluster.wait_alive(1)
    refused = call(cluster.url, "PUT", "/fs/one", b"1")
    assert (refused.status, refused.error) == (503, "ENODATANODES")
    assert call(cluster.url, "HEAD", "/fs/one").status == 404
    assert read_file(cluster.url, "/fs/two").body == b"2"


def test_a_cluster_of_one_datanode(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    assert call(cluster.url, "PUT", "/fs/single", b"1").json()["replicas"] == 1
    assert cluster.datanodes[0].stop() == 0
    cluster.wait_alive(0)
    assert call(cluster.url, "GET", "/fs/single").error == "ENODATANODES"
    assert call(cluster.url, "HEAD", "/fs/single").status == 200


def test_a_datanode_dies_during_uploads(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    data = random.Random(3).randbytes(1 << 20) * 100
    answers: list[int] = []

    def upload(number: int) -> None:
        answers.append(call(cluster.url, "PUT", f"/fs/up{number}", data).status)

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    victim = Path(cluster.datanodes[1].env["DFS_FS_ROOT"])
    wait_until(lambda: any(path.is_file() for path in (victim / "tmp").iterdir()), "a block is being written")
    cluster.datanodes[1].kill()
    for thread in threads:
        thread.join()
    assert answers == [201] * 3
    for number in range(3):
        assert read_file(cluster.url, f"/fs/up{number}").body == data


def test_garbage_is_deleted_and_sparse_packs_are_rewritten(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_GARBAGE_DELAY="0.1")
    bodies = {f"/fs/p{number}": random.Random(number).randbytes(5000) for number in range(64)}
    threads = [
        threading.Thread(target=lambda path=path: call(cluster.url, "PUT", path, bodies[path])) for path in bodies
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    def usage() -> list[int]:
        return [node["used"] for node in call(cluster.url, "GET", "/cluster").json()["nodes"]]

    wait_until(lambda: min(usage()) >= 64 * 5000, "the datanodes have told what they use")
    kept = {path for number, path in enumerate(bodies) if number % 5 == 0}
    for path in bodies.keys() - kept:
        assert call(cluster.url, "DELETE", path).status == 204
    wait_until(lambda: max(usage()) < 2.2 * len(kept) * 5000, "unused bytes are given back")
    for path in kept:
        assert read_file(cluster.url, path).body == bodies[path]
    for path in kept:
        assert call(cluster.url, "DELETE", path).status == 204
    wait_until(lambda: max(usage()) == 0, "nothing is left")
    assert call(cluster.url, "GET", "/cluster/fsck").json()["healthy"] is True


def test_blocks_that_no_file_uses_are_deleted_when_a_datanode_comes_back(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_GARBAGE_DELAY="0.1")
    call(cluster.url, "PUT", "/fs/gone", b"x" * 500_000)
    call(cluster.url, "PUT", "/fs/kept", b"y" * 500_000)
    away = cluster.datanodes[2]
    away.kill()
    cluster.wait_alive(2)
    call(cluster.url, "DELETE", "/fs/gone")
    wait_until(
        lambda: call(cluster.url, "GET", "/cluster").json()["garbage_blocks"] == 0, "the collector has been there"
    )
    away.start()
    cluster.wait_alive(3)
    blocks = Path(away.env["DFS_FS_ROOT"]) / "blocks"
    wait_until(lambda: sum(path.is_file() for path in blocks.rglob("*")) == 1, "its garbage is deleted")


def test_a_second_start_finds_yesterdays_files(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    call(cluster.url, "PUT", "/fs/old", b"yesterday")
    for server in reversed(cluster.servers):
        assert server.stop() == 0
    for server in cluster.datanodes:  # before the namenode: they wait for it
        server.start()
    cluster.namenode.start()
    cluster.wait_alive(3)
    assert read_file(cluster.url, "/fs/old").body == b"yesterday"


def test_a_foreign_volume_is_refused(make_cluster: MakeCluster) -> None:
    one, other = make_cluster(1), make_cluster(1)
    stray = one.datanodes[0]
    assert stray.stop() == 0
    stray.env["DFS_NAMENODE_URL"] = other.url
    stray.start()
    assert stray.process is not None
    assert stray.process.wait(DEADLINE_S) == 1
    assert "belongs to" in stray.log.read_text().splitlines()[-1]


def test_a_volume_in_use_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    twin = cluster.datanodes[1]
    assert twin.stop() == 0
    twin.env["DFS_FS_ROOT"] = cluster.datanodes[0].env["DFS_FS_ROOT"]
    twin.start()
    assert twin.process is not None
    assert twin.process.wait(DEADLINE_S) == 1
    assert "in use" in twin.log.read_text().splitlines()[-1]


def test_a_second_namenode_on_the_same_metadata_is_refused(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    second = cluster.datanodes[0]
    second.env = cluster.namenode.env | {"DFS_PORT": second.env["DFS_PORT"]}
    assert second.stop() == 0
    second.start()
    assert second.process is not None
    assert second.process.wait(DEADLINE_S) == 1
    assert "in use by another namenode" in second.log.read_text().splitlines()[-1]
