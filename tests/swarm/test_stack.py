"""A stack with three datanodes: used from outside and inside, healed, updated under load, redeployed with its data."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from docker.models.containers import Container

from http_client import HttpNameNode
from tests.cluster.real_cluster import alive_datanodes, wait_until
from tests.deadline import DEADLINE_S
from tests.swarm import engine
from tests.swarm.stack import INSIDE, Stack, load, stack

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


_MISSED_BYTES = 96 << 20
_REPAIR_RATE = "8MiB"
"""The copy of what was missed takes 12 s; the first health check of a container comes after 5."""
_NOT_WHOLE = "the cluster has not been whole since this datanode started"


@pytest.fixture(scope="module")
def cluster(on_swarm: str) -> Iterator[Stack]:
    """Three datanodes on one host: each on a port that the engine chooses."""
    settings = {"DATA_PORT": "0", "INSIDE_REPAIR_RATE": _REPAIR_RATE}
    with stack("dfs-inside", on_swarm, ["host-ports", "replicas", INSIDE], 3, **settings) as made:
        yield made


def test_another_service_writes_and_reads(cluster: Stack) -> None:
    assert cluster.python(_ROUND, "/from-inside") == "['alive', 'alive', 'alive']"


def test_a_datanode_is_killed_and_all_heals(cluster: Stack) -> None:
    with load(cluster):
        cluster.kill("data")
        cluster.wait_alive(3)
    with HttpNameNode(cluster.url) as dfs:
        wait_until(lambda: dfs.status().repair.short == 0 and dfs.fsck().healthy, "the cluster is whole", pause_s=0.3)


def test_the_namenode_is_killed_and_no_call_fails(cluster: Stack) -> None:
    with load(cluster):
        cluster.kill("name")
        cluster.wait_alive(3)


def test_an_update_waits_until_the_cluster_is_whole_and_not_even_plain_gets_fail(cluster: Stack) -> None:
    """The first datanode that begins anew lacks a file that was written without it. No other one is stopped before it
    has got its copy, which takes some health checks: so the file never has fewer than two.
    """
    image = engine.derive("next", "LABEL version=next")
    before = set(cluster.containers("data"))
    copies: list[int] = []
    with load(cluster, "plain"), HttpNameNode(cluster.url) as dfs, ThreadPoolExecutor(1) as pool:
        update = pool.submit(cluster.update, "data", image)
        wait_until(lambda: alive_datanodes(cluster.url) == 2, "the first is stopped")
        assert dfs.tee("/missed", bytes(_MISSED_BYTES)).replicas == 2
        wait_until(lambda: set(cluster.containers("data")) - before, "it runs again", pause_s=0.3)
        (first,) = set(cluster.containers("data")) - before
        wait_until(lambda: _NOT_WHOLE in _last_health_checks(first), "its health checks fail for it", pause_s=0.3)

        def is_done() -> bool:
            copies.append(_copies(dfs, "/missed"))
            return update.done()

        wait_until(is_done, "the update is completed", 5 * DEADLINE_S, 0.3)
        update.result()
        print(f"copies meanwhile: {sorted(Counter(copies).items())}")
        assert min(copies) == 2
        assert before.isdisjoint(cluster.containers("data"))
        wait_until(lambda: dfs.fsck().healthy, "the cluster is whole", pause_s=0.3)


def _last_health_checks(container: Container) -> str:
    """What the last five have said."""
    container.reload()
    return "".join(check["Output"] for check in container.attrs["State"]["Health"]["Log"])


def _copies(dfs: HttpNameNode, path: str) -> int:
    """On datanodes that are there, of the block that has fewest."""
    return min((problem.copies for problem in dfs.fsck().problems if problem.path == path), default=3)


def test_an_image_that_does_not_start_is_rolled_back(cluster: Stack) -> None:
    broken = engine.derive("broken", 'CMD ["/opt/dfs/app/no_such_file.py"]')
    before = set(cluster.containers("data"))
    with load(cluster, "plain"), HttpNameNode(cluster.url) as dfs:
        cluster.update("data", broken, "rollback_completed")
        cluster.wait_alive(3)
        cluster.wait_settled()
        assert len(before & set(cluster.containers("data"))) == 2, "the others are never stopped"
        wait_until(lambda: dfs.fsck().healthy, "the cluster is whole", pause_s=0.3)


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
