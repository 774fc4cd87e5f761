"""A datanode's volume is copied, restored or moved: one process alone is the datanode, and nothing is lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import requests

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, MakeCluster, Server, free_ports, wait_until
from tests.deadline import DEADLINE_S


def put(cluster: Cluster, contents: dict[str, bytes], count: int) -> None:
    for _ in range(count):
        path, data = f"/f{len(contents)}", os.urandom(20_000)
        assert call(cluster.url, "PUT", f"/fs{path}", data).status == 201
        contents[path] = data


def node_of(cluster: Cluster, url: str) -> dict[str, object]:
    nodes = requests.get(f"{cluster.url}cluster", timeout=10).json()["nodes"]
    (found,) = [node for node in nodes if node["url"].rstrip("/") == url]
    assert isinstance(found, dict)
    return found


def states(cluster: Cluster) -> list[tuple[str, str]]:
    nodes = requests.get(f"{cluster.url}cluster", timeout=10).json()["nodes"]
    return [(node["url"].rstrip("/"), node["state"]) for node in nodes]


def copy_of(cluster: Cluster, datanode: Server, name: str) -> Server:
    """The same volume, as it is now, on another host."""
    root = cluster.folder / name
    shutil.copytree(datanode.env["DFS_FS_ROOT"], root)
    (port,) = free_ports(1)
    return Server(name, cluster.folder, datanode.env | {"DFS_FS_ROOT": str(root), "DFS_PORT": str(port)})


def assert_refused(server: Server, *words: str) -> None:
    """It ends by itself, and its last line says why."""
    assert server.process is not None
    assert server.process.wait(DEADLINE_S) == 1
    line = server.log.read_text().splitlines()[-1]
    assert line.startswith("server.py: ")
    assert all(word in line for word in words), line


def wait_healthy(cluster: Cluster) -> None:
    wait_until(lambda: requests.get(f"{cluster.url}cluster/fsck", timeout=60).json()["healthy"], "all is whole")


def test_the_second_copy_is_refused_and_nothing_is_lost_with_either(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    contents: dict[str, bytes] = {}
    first, twice = cluster.datanodes
    put(cluster, contents, 5)
    twice.kill()
    clone = copy_of(cluster, twice, "clone")
    twice.start()
    cluster.wait_alive()
    clone.start()
    assert_refused(clone, twice.url, "stop one of the two", "empty folder", "dfs forget")
    put(cluster, contents, 5)
    twice.kill()  # the wrong one's chance
    clone.start()
    assert_refused(clone, twice.url, "start that one", "dfs forget")
    twice.start()
    cluster.wait_alive()
    cluster.namenode.kill()
    clone.start()
    cluster.namenode.start()
    assert_refused(clone, "dfs forget")
    cluster.wait_alive()
    put(cluster, contents, 5)
    first.kill()
    wait_until(lambda: node_of(cluster, first.url)["state"] != "alive", "its end is seen")
    for path, data in contents.items():
        assert read_file(cluster.url, f"/fs{path}").body == data
    first.start()
    cluster.wait_alive()
    # The operator's word: this copy is the datanode from now on, with what it has.
    twice.kill()
    wait_until(lambda: node_of(cluster, twice.url)["state"] == "suspect", "its end is seen")
    assert call(cluster.url, "POST", f"/cluster/forget?node={node_of(cluster, twice.url)['id']}").status == 200
    clone.start()
    cluster.datanodes.append(clone)
    cluster.wait_alive()
    twice.start()
    assert_refused(twice, clone.url, "stop one of the two")
    wait_healthy(cluster)
    first.kill()
    wait_until(lambda: node_of(cluster, first.url)["state"] != "alive", "its end is seen")
    for path, data in contents.items():
        assert read_file(cluster.url, f"/fs{path}").body == data


def test_who_was_cut_off_while_its_volume_was_moved_ends(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    contents: dict[str, bytes] = {}
    put(cluster, contents, 3)
    stuck = cluster.datanodes[1]
    stuck.pause()
    moved = copy_of(cluster, stuck, "moved")
    moved.start()
    cluster.datanodes.append(moved)
    wait_until(lambda: (moved.url, "alive") in states(cluster), "it is admitted")
    put(cluster, contents, 3)
    stuck.resume()
    assert_refused(stuck, "started anew at " + moved.url)
    cluster.wait_alive(2)
    assert len(states(cluster)) == 2
    cluster.datanodes[0].kill()
    wait_until(lambda: cluster.alive() == 1, "its end is seen")
    for path, data in contents.items():
        assert read_file(cluster.url, f"/fs{path}").body == data


def test_an_older_copy_of_a_volume_is_taken_when_the_newer_one_is_gone(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    contents: dict[str, bytes] = {}
    put(cluster, contents, 3)
    lost = cluster.datanodes[1]
    lost.stop()
    old = cluster.folder / "old"
    shutil.copytree(lost.env["DFS_FS_ROOT"], old)
    for _ in range(2):
        lost.start()
        cluster.wait_alive()
        put(cluster, contents, 3)
        lost.kill()
        cluster.wait_alive()
    shutil.rmtree(lost.env["DFS_FS_ROOT"])
    old.rename(lost.env["DFS_FS_ROOT"])
    lost.start()
    cluster.wait_alive()
    assert "an older copy of its volume" in cluster.namenode.log.read_text()
    wait_healthy(cluster)
    cluster.datanodes[0].kill()
    wait_until(lambda: cluster.alive() == 1, "its end is seen")
    for path, data in contents.items():
        assert read_file(cluster.url, f"/fs{path}").body == data
    assert Path(lost.env["DFS_FS_ROOT"], "incarnation.json").exists()


def test_a_copy_of_a_volume_does_not_speak_for_its_datanode_while_a_namenode_waits(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    contents: dict[str, bytes] = {}
    put(cluster, contents, 3)
    one, other = cluster.datanodes
    other.stop()
    clone = copy_of(cluster, other, "clone")
    other.start()
    cluster.wait_alive()
    cluster.namenode.kill()
    for datanode in (one, other):
        datanode.kill()
    clone.start()
    cluster.namenode.start()
    wait_until(lambda: "another copy of the volume" in clone.log.read_text(), "the copy is told to wait")
    assert call(cluster.url, "HEAD", "/fs/").status == 503
    one.start()
    assert_refused(clone, "start that one")
    other.start()
    cluster.wait_alive()
    for path, data in contents.items():
        assert read_file(cluster.url, f"/fs{path}").body == data
