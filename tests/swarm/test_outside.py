"""Clients outside of the swarm: on ports of the hosts, and before one address for all datanodes.

The mesh here is a TCP balancer that knows nothing of health. The true one is shown in `mesh_vm`.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import engine
import pytest
from balancer import Balancer
from real_cluster import wait_until
from stack import INSIDE, Stack, load_from_outside, stack

from http_client import HttpNameNode


@pytest.fixture
def mesh() -> Iterator[Balancer]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    balancer = Balancer([], random.Random(seed))
    with contextlib.closing(balancer):
        yield balancer


def test_one_datanode_a_host_under_the_hosts_name(on_swarm: str) -> None:
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine's own name does not resolve: clients cannot be redirected to it")
    content = os.urandom(3 << 20)
    with stack("dfs-hosts", on_swarm, ["host-ports"], 1) as hosts, HttpNameNode(hosts.url) as dfs:
        dfs.tee("/from-outside", content)
        assert dfs.cat("/from-outside") == content
        (node,) = dfs.status().nodes
        assert node.public_url == f"http://{socket.gethostname()}:{hosts.env['DATA_PORT']}/"


def test_one_address_for_all_datanodes(on_swarm: str, mesh: Balancer, tmp_path: Path) -> None:
    settings = {"DATA_PORT": "0", "INSIDE_PUBLIC_URL": mesh.url}
    with stack("dfs-mesh", on_swarm, ["host-ports", "replicas", INSIDE], 3, **settings) as behind:
        mesh.send_to(behind.datanode_ports())
        content = os.urandom(1 << 20)
        with HttpNameNode(behind.url) as dfs:
            assert {node.public_url for node in dfs.status().nodes} == {f"{mesh.url}/"}
            dfs.tee("/seen", content)
        for _ in range(30):
            with HttpNameNode(behind.url) as dfs:
                assert dfs.cat("/seen") == content
        assert len(set(mesh.chosen)) == 3
        _a_datanode_dies(behind, mesh, tmp_path)


def _a_datanode_dies(behind: Stack, mesh: Balancer, folder: Path) -> None:
    """Every third connection is refused until swarm has replaced it, and no call fails."""
    victim = behind.containers("data")[0]
    with load_from_outside(behind, folder):
        engine.docker("kill", victim)
        wait_until(lambda: victim not in behind.containers("data"), "it is gone", pause_s=0.2)
        behind.wait_settled()
        mesh.send_to(behind.datanode_ports())
        behind.wait_alive(3)
