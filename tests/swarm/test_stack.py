"""A stack with three datanodes: used from outside and inside, healed, updated under load, redeployed with its data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import engine
import pytest
from real_cluster import wait_until
from stack import INSIDE, Stack, load, stack

from http_client import HttpNameNode

_ROUND = """
import sys
from http_client import HttpNameNode
with HttpNameNode("http://name:8180/") as dfs:
    data = bytes(range(256)) * 5000
    dfs.tee(sys.argv[1], data)
    assert dfs.cat(sys.argv[1]) == data
    print(sorted(node.state for node in dfs.status().nodes))
"""

_DIGEST = """
import hashlib, sys
from http_client import HttpNameNode
with HttpNameNode("http://name:8180/") as dfs:
    print(hashlib.sha256(dfs.cat(sys.argv[1])).hexdigest())
"""


@pytest.fixture(scope="module")
def cluster(on_swarm: str) -> Iterator[Stack]:
    """Three datanodes on one host: each on a port that the engine chooses."""
    with stack("dfs-inside", on_swarm, ["host-ports", "replicas", INSIDE], 3, DATA_PORT="0") as made:
        yield made


def test_another_service_writes_and_reads(cluster: Stack) -> None:
    assert cluster.python(_ROUND, "/from-inside") == "['alive', 'alive', 'alive']"


def test_a_datanode_is_killed_and_all_heals(cluster: Stack) -> None:
    victim = cluster.containers("data")[0]
    with load(cluster):
        engine.docker("kill", victim)
        wait_until(lambda: victim not in cluster.containers("data"), "it is gone", pause_s=0.2)
        cluster.wait_settled()
        cluster.wait_alive(3)
    with HttpNameNode(cluster.url) as dfs:
        wait_until(lambda: dfs.status().repair.short == 0 and dfs.fsck().healthy, "the cluster is whole", pause_s=0.3)


def test_the_namenode_is_killed_and_no_call_fails(cluster: Stack) -> None:
    victim = cluster.containers("name")[0]
    with load(cluster):
        engine.docker("kill", victim)
        wait_until(lambda: set(cluster.containers("name")) - {victim}, "another one runs", pause_s=0.2)
        cluster.wait_alive(3)


def test_datanodes_are_updated_and_not_even_plain_gets_fail(cluster: Stack) -> None:
    before = set(cluster.containers("data"))
    with load(cluster, "plain"):
        cluster.update("data", "--force")
    assert before.isdisjoint(cluster.containers("data"))


def test_the_namenode_is_updated_to_another_image_and_no_call_fails(cluster: Stack, on_swarm: str) -> None:
    other = f"{on_swarm.split(':')[0]}:next"
    engine.docker("tag", on_swarm, other)
    with load(cluster):
        cluster.update("name", "--image", other, "--no-resolve-image")
        cluster.wait_alive(3)


def test_the_namenode_is_restored_on_an_empty_volume(cluster: Stack) -> None:
    """As on another manager."""
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/before", b"still here")
        copied = dfs.status().metadata.copied_until or 0

        def is_copied() -> bool:
            return (dfs.status().metadata.copied_until or 0) > copied + 1

        wait_until(is_copied, "the metadata is on the datanodes", pause_s=0.3)
        cluster.scale("name", 0)
        wait_until(lambda: not cluster.containers("name"), "it has stopped", pause_s=0.3)
        cluster.remove_volume("name")
        cluster.scale("name", 1)
        cluster.wait_alive(3)
        assert cluster.python(_DIGEST, "/before") == hashlib.sha256(b"still here").hexdigest()
        dfs.release()
        dfs.tee("/after", b"and goes on")
        wait_until(lambda: dfs.fsck().healthy, "the cluster is whole", pause_s=0.3)
    cluster.wait_settled()


def test_removed_and_deployed_again_with_its_data(cluster: Stack) -> None:
    content = os.urandom(2 << 20)
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/kept", content)
        replicas = {node.id for node in dfs.status().nodes}
    cluster.remove()
    cluster.deploy(3)
    assert cluster.python(_DIGEST, "/kept") == hashlib.sha256(content).hexdigest()
    with HttpNameNode(cluster.url) as dfs:
        assert {node.id for node in dfs.status().nodes} == replicas
