"""Servers whose packets vanish: nobody is told, and everybody has to notice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from http_client import HttpNameNode
from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, wait_until
from tests.deadline import DEADLINE_S
from tests.faults.network import AVAILABLE, Network, networked

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs root, iproute2 and nftables")


@pytest.fixture
def net(tmp_path: Path) -> Iterator[tuple[Cluster, Network]]:
    cluster, network = networked(tmp_path, DFS_SUSPECT_AFTER="2", DFS_DEAD_AFTER="8", DFS_STALL_TIMEOUT="4")
    try:
        cluster.start()
        yield cluster, network
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        cluster.stop()
        network.close()


def state(cluster: Cluster, number: int) -> str:
    nodes = requests.get(f"{cluster.url}cluster", timeout=DEADLINE_S).json()["nodes"]
    url = cluster.datanodes[number].url
    return str(next(node["state"] for node in nodes if node["url"].rstrip("/") == url))


def test_a_datanode_cut_off_in_the_middle_of_an_upload(net: tuple[Cluster, Network]) -> None:
    cluster, network = net
    data = bytes(range(256)) * (8 << 12)
    reached = threading.Event()

    def body() -> Iterator[bytes]:
        yield data[: 4 << 20]
        reached.set()
        yield data[4 << 20 :]

    answers: list[requests.Response] = []

    def send() -> None:
        answers.append(requests.put(f"{cluster.url}fs/big", body(), timeout=DEADLINE_S))

    sender = threading.Thread(target=send)
    sender.start()
    assert reached.wait(DEADLINE_S)
    heal = network.cut(cluster.datanodes[0])
    sender.join(DEADLINE_S)
    assert answers[0].status_code == 201, answers[0].text
    assert answers[0].json()["replicas"] == 2
    wait_until(lambda: state(cluster, 0) in ("suspect", "dead"), "it is suspect")
    for _ in range(6):
        assert read_file(cluster.url, "/fs/big").body == data
    heal()
    cluster.wait_alive(3)
    fsck = f"{cluster.url}cluster/fsck"
    wait_until(lambda: requests.get(fsck, timeout=DEADLINE_S).json()["healthy"], "it has what it missed")


def test_the_namenode_cut_off_from_everybody(net: tuple[Cluster, Network]) -> None:
    cluster, network = net
    call(cluster.url, "PUT", "/fs/file", b"content")
    heal = network.cut(cluster.namenode)
    dfs = HttpNameNode(cluster.url, timeout_s=DEADLINE_S)
    results: list[bytes] = []
    waiting = threading.Thread(target=lambda: results.append(dfs.cat("/file")))
    waiting.start()
    waiting.join(4)
    assert waiting.is_alive()
    heal()
    waiting.join(DEADLINE_S)
    assert results == [b"content"]
    cluster.wait_alive(3)
    dfs.tee("/other", b"more")
    assert dfs.cat("/other") == b"more"
    dfs.close()
