"""Clients outside of the swarm, before one address for all datanodes: over HTTP, and mounted.

The mesh here is a TCP balancer that knows nothing of health, unless it is told. The true one is shown in `mesh_vm`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from http_client import HttpNameNode
from tests.cluster.balancer import Balancer
from tests.cluster.real_cluster import wait_until
from tests.mount.real_mount import Mount, run
from tests.swarm import engine
from tests.swarm.stack import INSIDE, Stack, load_from_outside, stack


@pytest.fixture(scope="module")
def mesh() -> Iterator[Balancer]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    balancer = Balancer([], random.Random(seed))
    with contextlib.closing(balancer):
        yield balancer


@pytest.fixture(scope="module")
def cluster(on_swarm: str, mesh: Balancer) -> Iterator[Stack]:
    """Three datanodes behind one address."""
    settings = {"DATA_PORT": "0", "INSIDE_PUBLIC_URL": mesh.url}
    with stack("dfs-mesh", on_swarm, ["host-ports", "replicas", INSIDE], 3, **settings) as made:
        mesh.send_to(made.datanode_ports())
        yield made


def test_one_address_for_all_datanodes(cluster: Stack, mesh: Balancer) -> None:
    content = os.urandom(1 << 20)
    with HttpNameNode(cluster.url) as dfs:
        assert {node.public_url for node in dfs.status().nodes} == {f"{mesh.url}/"}
        dfs.tee("/seen", content)
    for _ in range(30):
        with HttpNameNode(cluster.url) as dfs:
            assert dfs.cat("/seen") == content
    assert len(set(mesh.chosen)) == 3


def test_a_datanode_dies_and_no_call_fails(cluster: Stack, mesh: Balancer, tmp_path: Path) -> None:
    """Every third connection is refused until swarm has replaced it."""
    with load_from_outside(cluster.url, tmp_path):
        cluster.kill("data")
        mesh.send_to(cluster.datanode_ports())
        cluster.wait_alive(3)


@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="/dev/fuse is missing: nothing can be mounted here")
def test_every_image_is_replaced_and_no_call_fails(cluster: Stack, mesh: Balancer, tmp_path: Path) -> None:
    """Neither on a mount, where everything written is right afterwards, nor of `HttpNameNode`."""
    image = engine.derive("next", "LABEL version=next")
    before = {container for service in ("name", "data") for container in cluster.containers(service)}
    with _mounted(cluster, tmp_path / "mnt") as top:
        (top / "work").mkdir()
        with (
            _following(mesh, cluster),
            load_from_outside(top / "work", tmp_path, pause_s=0.05) as digests,
            load_from_outside(cluster.url, tmp_path, pause_s=0.2),
        ):
            cluster.update("data", image)
            cluster.update("name", image)
            cluster.wait_alive(3)
            cluster.wait_settled()
        assert before.isdisjoint({*cluster.containers("name"), *cluster.containers("data")})
        with HttpNameNode(cluster.url) as dfs:
            assert {path: hashlib.sha256(dfs.cat(f"/work/{path}")).hexdigest() for path in digests} == digests
            wait_until(lambda: dfs.fsck().healthy, "the cluster is whole", pause_s=0.3)
    sums = "\n".join(f"{digest}  work/{path}" for path, digest in digests.items())
    (tmp_path / "sums").write_text(f"{sums}\n")
    with _mounted(cluster, tmp_path / "again") as top:
        run(f"sha256sum --quiet --strict -c {tmp_path}/sums", top)


@contextlib.contextmanager
def _mounted(cluster: Stack, path: Path) -> Iterator[Path]:
    """A mount that keeps little."""
    mount = Mount(cluster.url, path, "-o", "cache=16,timeout=180")
    try:
        mount.start()
        yield path
        assert mount.stop() == 0
    except BaseException:
        print(mount.log.read_text()[-5000:])
        raise
    finally:
        mount.clean_up()


@contextlib.contextmanager
def _following(mesh: Balancer, cluster: Stack) -> Iterator[None]:
    """The mesh sends to those alone whose health checks succeed, soon after that is so."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(0.3):
            if ports := cluster.datanode_ports(health="healthy"):
                mesh.send_to(ports)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
