"""A network of the test's own: each server in a namespace, all on one bridge, any of them cut off at will.

Cut off as by a broken switch: packets vanish, and nobody is told. Needs root, iproute2 and nftables.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cluster.real_cluster import Cluster, Server

AVAILABLE = os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("nft") is not None
_NAMESPACES = Path("/run/netns")
_DROP_ALL = """table inet cut {
    chain in { type filter hook input priority 0; policy drop; iif lo accept; }
    chain out { type filter hook output priority 0; policy drop; oif lo accept; }
}"""


class Network:
    """Made for one cluster before it starts; `close` removes all of it. The bridge has a namespace of its own, so
    that no rules of the machine's apply to what crosses it."""

    def __init__(self, cluster: Cluster) -> None:
        self._reservation, number = _reserve_number()
        self._tag = f"dfs{number}-"
        self._switch = f"{self._tag}switch"
        self._own = f"{self._tag}own"
        subnet = f"10.98.{number}"
        self._names: dict[str, str] = {}
        self._remove()  # what is left of one that was killed
        try:
            _run("ip", "netns", "add", self._switch)
            _run("ip", "-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", self._switch, "link", "set", "bridge", "up")
            _run("ip", "link", "add", self._own, "type", "veth", "peer", "name", "port1", "netns", self._switch)
            self._plug("port1")
            _run("ip", "addr", "add", f"{subnet}.1/24", "dev", self._own)
            _run("ip", "link", "set", self._own, "up")
            for number, server in enumerate(cluster.servers, 2):
                self._add(server, number, f"{subnet}.{number}")
            cluster.url = f"{cluster.namenode.url}/"
            for server in cluster.datanodes:
                server.env["DFS_NAMENODE_URL"] = cluster.url
        except BaseException:
            self.close()
            raise

    def cut(self, server: Server) -> Callable[[], None]:
        """Take a server off the network; what is returned brings it back."""
        name = self._names[server.name]
        _run("ip", "netns", "exec", name, "nft", "-f", "-", text=_DROP_ALL)
        return lambda: _run("ip", "netns", "exec", name, "nft", "delete", "table", "inet", "cut")

    def close(self) -> None:
        self._remove()
        self._reservation.close()

    def _remove(self) -> None:
        for path in _NAMESPACES.glob(f"{self._tag}*"):
            _run("ip", "netns", "delete", path.name)
        subprocess.run(["ip", "link", "delete", self._own], check=False, capture_output=True)  # gone with its peer

    def _add(self, server: Server, number: int, address: str) -> None:
        name, port = f"{self._tag}{number}", f"port{number}"
        _run("ip", "netns", "add", name)
        self._names[server.name] = name
        _run("ip", "-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", self._switch)
        self._plug(port)
        _run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "eth0", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        server.env["DFS_HOST"] = address
        server.command_prefix = ["ip", "netns", "exec", name]

    def _plug(self, port: str) -> None:
        _run("ip", "-n", self._switch, "link", "set", port, "master", "bridge", "up")


def _reserve_number() -> tuple[socket.socket, int]:
    """A number that no other network on this machine has, for as long as the socket is open."""
    for number in range(1, 255):
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0dfs-test-network-{number}")
        except OSError:
            held.close()
            continue
        return held, number
    raise RuntimeError("254 networks of tests are in use on this machine: is something left over?")


def _run(*command: str, text: str | None = None) -> None:
    subprocess.run(command, input=text, text=True, check=True, capture_output=True)


def networked(folder: Path, **settings: str) -> tuple[Cluster, Network]:
    """A cluster of three datanodes, each of its servers in a namespace; not started."""
    cluster = Cluster(folder, 3, **settings)
    return cluster, Network(cluster)
