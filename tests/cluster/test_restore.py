"""The namenode's folder is lost: an empty namenode restores the metadata from the datanodes' copies."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from random import Random

import requests

from dfslib.wire.messages import ClusterBody, MetadataBody, decode
from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S


def metadata(cluster: Cluster) -> MetadataBody:
    return decode(requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).content, ClusterBody).metadata


def detail(cluster: Cluster) -> str:
    """What it waits for; nothing while it does not answer."""
    return metadata(cluster).detail if cluster.alive() >= 0 else ""


def wait_copied(cluster: Cluster) -> None:
    """Until all that was done before now is on the datanodes."""
    now = time.time()
    wait_until(lambda: (metadata(cluster).copied_until or 0) > now, "the metadata is copied")


def lose_namenode(cluster: Cluster) -> None:
    cluster.namenode.kill()
    shutil.rmtree(cluster.folder / "namenode")
    del cluster.namenode.env["DFS_NEW_CLUSTER"]


def put(cluster: Cluster, path: str, data: bytes) -> None:
    assert call(cluster.url, "PUT", f"/fs{path}?parents=true", data).status in (200, 201)


def wait_open(cluster: Cluster) -> None:
    wait_until(lambda: cluster.namenode.running(), "the namenode runs")
    cluster.wait_alive()
    assert metadata(cluster).state == "open"


def healthy(cluster: Cluster) -> bool:
    return bool(requests.get(f"{cluster.url}cluster/fsck", timeout=DEADLINE_S).json()["healthy"])


def test_what_was_copied_is_restored_and_the_rest_is_in_lost_and_found(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = {f"/old/{number}": b"%d" % number * 1000 for number in range(20)}
    for path, data in contents.items():
        put(cluster, path, data)
    wait_copied(cluster)
    big = b"0123456789abcdef" * 20_000
    cluster.namenode.env["DFS_CHECKPOINT_EVERY"] = "3600"
    cluster.namenode.stop()
    cluster.namenode.start()
    cluster.wait_alive()
    put(cluster, "/home/new.txt", b"first")
    put(cluster, "/home/new.txt", b"second")
    put(cluster, "/home/big", big)
    last = requests.get(f"{cluster.url}fs/old", timeout=DEADLINE_S).json()["entries"][-1]["ino"]
    lose_namenode(cluster)
    cluster.namenode.start()
    wait_open(cluster)
    for path, data in contents.items():
        assert read_file(cluster.url, f"/fs{path}").body == data
    assert call(cluster.url, "GET", "/fs/home").status == 404
    state = metadata(cluster)
    assert state.held
    assert state.restored_until is not None
    assert state.restored_until <= time.time()
    wait_until(lambda: call(cluster.url, "HEAD", "/fs/lost+found/home/big").status == 200, "the block is found")
    assert read_file(cluster.url, "/fs/lost+found/home/big").body == big
    found = {read_file(cluster.url, f"/fs/lost+found/home/new.txt{end}").body for end in ("", "%20(2)")}
    assert found == {b"first", b"second"}
    wait_until(lambda: healthy(cluster), "every block has its copies")
    put(cluster, "/later", b"later")
    later = requests.head(f"{cluster.url}fs/later", timeout=DEADLINE_S).headers["X-DFS-Inode"]
    assert int(later) > last + 1_000_000, "numbers of files that are not known any more are not given again"
    released = requests.post(f"{cluster.url}cluster/release", timeout=DEADLINE_S).json()
    assert released["metadata"]["held"] is False
    assert read_file(cluster.url, "/fs/lost+found/home/big").body == big


def test_writes_go_on_until_the_end_and_clients_wait(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    acknowledged: dict[str, float] = {}
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            try:
                answer = requests.put(f"{cluster.url}fs/f{number}", data=b"%d" % number, timeout=DEADLINE_S)
            except requests.RequestException:
                return
            if answer.status_code == 201:
                acknowledged[f"/f{number}"] = time.time()
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    wait_until(lambda: len(acknowledged) > 20, "files are written")
    wait_copied(cluster)
    copied_until = metadata(cluster).copied_until
    assert copied_until is not None
    lose_namenode(cluster)
    stop.set()
    writer.join()
    cluster.namenode.start()
    wait_open(cluster)
    old = [path for path, written in acknowledged.items() if written < copied_until]
    assert old
    missing = [path for path in old if call(cluster.url, "HEAD", f"/fs{path}").status != 200]
    assert missing == []
    wait_until(lambda: not lacking(cluster, acknowledged), "what was written later is in lost+found")


def lacking(cluster: Cluster, paths: dict[str, float]) -> list[str]:
    return [
        path
        for path in paths
        if call(cluster.url, "HEAD", f"/fs{path}").status != 200
        and call(cluster.url, "HEAD", f"/fs/lost+found{path}").status != 200
    ]


def copies(cluster: Cluster, number: int) -> list[Path]:
    return sorted((cluster.folder / f"data{number}" / "metadata").iterdir())


def test_one_datanode_away_another_one_damaged(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    put(cluster, "/a/file", b"content")
    wait_copied(cluster)
    cluster.datanodes[0].kill()
    lose_namenode(cluster)
    for path in copies(cluster, 2):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    cluster.namenode.start()
    wait_open(cluster)
    assert read_file(cluster.url, "/fs/a/file").body == b"content"
    cluster.datanodes[0].start()
    cluster.wait_alive(3)


def test_killed_in_the_middle_of_the_restore(make_cluster: MakeCluster) -> None:
    """At points that differ from run to run; test_checkpoint_restoring has every one of them."""
    seed = time.time_ns()
    print(f"seed {seed}")
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    for number in range(50):
        put(cluster, f"/many/{number}", b"x" * 100)
    wait_copied(cluster)
    lose_namenode(cluster)
    random = Random(seed)
    folder = cluster.folder / "namenode" / "restore"
    for _ in range(3):
        cluster.namenode.start()
        wait_until(lambda: folder.exists() or cluster.alive() == 3, "the restore begins", pause_s=0.001)
        threading.Event().wait(random.uniform(0, 0.05))  # some point of it
        cluster.namenode.kill()
    cluster.namenode.start()
    wait_open(cluster)
    entries = requests.get(f"{cluster.url}fs/many", timeout=DEADLINE_S).json()["entries"]
    assert len(entries) == 50
    assert healthy(cluster)


def test_the_old_folder_comes_back_after_a_restore(make_cluster: MakeCluster) -> None:
    """As a swarm does that moves the namenode to another host, and back."""
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    put(cluster, "/before", b"before")
    wait_copied(cluster)
    cluster.namenode.kill()
    old = cluster.folder / "namenode.old"
    shutil.move(cluster.folder / "namenode", old)
    del cluster.namenode.env["DFS_NEW_CLUSTER"]
    cluster.namenode.start()
    wait_open(cluster)
    put(cluster, "/after", b"after")
    wait_copied(cluster)
    cluster.namenode.kill()
    shutil.rmtree(cluster.folder / "namenode")
    shutil.move(old, cluster.folder / "namenode")
    cluster.namenode.env["DFS_NEW_CLUSTER"] = "true"  # may well be left over: there is a cluster to be restored
    cluster.namenode.start()
    pid = cluster.namenode.pid
    aside = cluster.folder / "namenode"
    wait_until(lambda: list(aside.glob("outdated-*.checkpoint")), "the old metadata is set aside")
    wait_open(cluster)
    assert cluster.namenode.pid == pid
    assert read_file(cluster.url, "/fs/before").body == b"before"
    assert read_file(cluster.url, "/fs/after").body == b"after"
    assert cluster.namenode.stop() == 0


def test_an_older_copy_of_the_folder_is_put_back(make_cluster: MakeCluster) -> None:
    """As from a backup. What was done since is on the datanodes, and nothing of it is deleted."""
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1")
    put(cluster, "/before", b"before")
    assert cluster.namenode.stop() == 0
    shutil.copytree(cluster.folder / "namenode", cluster.folder / "backup")
    cluster.namenode.start()
    cluster.wait_alive()
    put(cluster, "/after", b"after" * 1000)
    wait_copied(cluster)
    cluster.namenode.kill()
    shutil.rmtree(cluster.folder / "namenode")
    shutil.move(cluster.folder / "backup", cluster.folder / "namenode")
    cluster.namenode.start()
    wait_until(lambda: list((cluster.folder / "namenode").glob("outdated-*")), "the old metadata is set aside")
    wait_open(cluster)
    assert read_file(cluster.url, "/fs/before").body == b"before"
    assert read_file(cluster.url, "/fs/after").body == b"after" * 1000
    metrics = requests.get(f"{cluster.url}metrics", timeout=DEADLINE_S).text
    assert "dfs_metadata_held 1.0" in metrics
    assert "dfs_metadata_copy_failures_total" in metrics


def test_new_volumes_do_not_make_an_old_one_forgotten(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1", DFS_DEAD_AFTER="6")
    put(cluster, "/file", b"content")
    wait_copied(cluster)
    cluster.datanodes[1].kill()
    shutil.rmtree(cluster.folder / "data2")
    lose_namenode(cluster)
    cluster.namenode.start()
    cluster.datanodes[1].start()
    wait_until(lambda: "names 2 datanodes" in detail(cluster), "it waits for the volume that is lost, too")
    assert call(cluster.url, "POST", "/cluster/restore", b"").status == 200
    wait_open(cluster)
    assert read_file(cluster.url, "/fs/file").body == b"content"
    wait_until(lambda: healthy(cluster), "the new volume is filled")


def test_while_it_waits_it_says_so_and_refuses_everything_else(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1, DFS_CHECKPOINT_EVERY="1")
    wait_copied(cluster)
    cluster.datanodes[0].kill()
    lose_namenode(cluster)
    cluster.namenode.start()
    wait_until(lambda: cluster.alive() == 0, "the namenode answers")
    assert metadata(cluster).state == "waiting"
    assert "no datanode has come" in str(metadata(cluster).detail)
    for method, path in (("GET", "/fs/"), ("PUT", "/fs/x"), ("GET", "/healthz"), ("GET", "/cluster/df")):
        answer = call(cluster.url, method, path, b"x" if method == "PUT" else None)
        assert (answer.status, answer.json()["error"]) == (503, "EUNAVAILABLE")
    assert call(cluster.url, "GET", "/healthz?ready").status == 200  # or swarm would not let datanodes find it
    answer = call(cluster.url, "POST", "/cluster/restore", b"")
    assert (answer.status, answer.json()["error"]) == (400, "EINVAL")
    cluster.datanodes[0].start()
    wait_open(cluster)
    answer = call(cluster.url, "POST", "/cluster/restore", b"")
    assert (answer.status, answer.json()["error"]) == (400, "EINVAL")


def test_new_cluster_refuses_the_volumes_of_the_old_one(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1, DFS_CHECKPOINT_EVERY="1")
    wait_copied(cluster)
    lose_namenode(cluster)
    cluster.namenode.env["DFS_NEW_CLUSTER"] = "true"
    cluster.namenode.start()
    wait_until(lambda: not cluster.datanodes[0].running(), "the datanode refuses the new cluster")
    assert metadata(cluster).state == "open"
    assert "belongs to cluster" in cluster.logs()


def test_an_operator_names_the_datanode(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1")
    put(cluster, "/file", b"content")
    wait_copied(cluster)
    lose_namenode(cluster)
    cluster.datanodes[1].kill()  # it is named by the newest copy, and so waited for
    cluster.namenode.start()
    wait_until(lambda: "names 2 datanodes" in detail(cluster), "one has come")
    answer = call(cluster.url, "POST", "/cluster/restore?from=http://127.0.0.1:9", b"")
    assert (answer.status, answer.json()["error"]) == (400, "EINVAL")
    answer = call(cluster.url, "POST", f"/cluster/restore?from={cluster.datanode_urls[0]}", b"")
    assert answer.status == 200, answer
    assert metadata(cluster).state == "open"
    wait_open(cluster)
    assert read_file(cluster.url, "/fs/file").body == b"content"
