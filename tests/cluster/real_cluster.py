"""A real cluster for tests: `server.py` processes on free ports of 127.0.0.1, killed and restarted at will."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Protocol

import requests

from tests.cluster.forked_server import ForkedServer, Zygote
from tests.deadline import DEADLINE_S

ROOT = Path(__file__).resolve().parents[2]


_PORTS = range(10_240, 32_768)
"""Below those that the system gives to outgoing connections: one of these may have a server's port when the server is
started again."""


def own_ports() -> range:
    """Those of `_PORTS` that no other worker of `pytest -n` uses."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    size = len(_PORTS) // workers
    return _PORTS[number * size : (number + 1) * size]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, in a row."""
    own = own_ports()
    while True:
        first = random.randrange(own.start, own.stop - count)
        with contextlib.ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return list(range(first, first + count))


def wait_until(
    condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S, pause_s: float = 0.02
) -> None:
    """Ask again and again until it holds; fail with `what` at the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what}")
        time.sleep(pause_s)


def alive_datanodes(url: str) -> int:
    """Datanodes that the namenode at `url` holds for alive; -1 while it does not answer."""
    try:
        nodes = requests.get(f"{url}cluster", timeout=5).json()["nodes"]
    except requests.RequestException:
        return -1
    return sum(node["state"] == "alive" for node in nodes)


class Server:
    """One `server.py` process and its environment; its log is kept."""

    zygote: ClassVar[Zygote | None] = None
    """What forks the servers which need no more than `DFS_*` variables; without it, each starts an interpreter."""

    def __init__(self, name: str, folder: Path, env: dict[str, str]) -> None:
        self.name = name
        self.env = env
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | ForkedServer | None = None
        self.sources = ROOT
        """The build that it runs."""
        self.command_prefix: list[str] = []
        """What the process is started through, such as `ip netns exec NAME`."""

    @property
    def port(self) -> int:
        return int(self.env["DFS_PORT"])

    @property
    def url(self) -> str:
        return f"http://{self.env['DFS_HOST']}:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("DFS_")} | self.env
        alike = self.sources == ROOT and not self.command_prefix and all(key.startswith("DFS_") for key in self.env)
        with self.log.open("ab") as log:
            if alike and self.zygote is not None:
                self.process = self.zygote.start_server(environment, log.fileno())
                return
            self.process = subprocess.Popen(
                [*self.command_prefix, sys.executable, str(self.sources / "server.py")],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.sources,
            )

    def kill(self) -> None:
        """As a power cut does it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """As an operator does it; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def pause(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Cluster:
    """A namenode and datanodes; `url` is the namenode's, with a slash at its end."""

    def __init__(self, folder: Path, datanodes: int, **settings: str) -> None:
        self.folder = folder
        ports = free_ports(datanodes + 1)
        common = {"DFS_HOST": "127.0.0.1", "DFS_STOP_TIMEOUT": "5"}
        self.namenode = Server(
            "namenode",
            folder,
            common
            | {
                "DFS_NODE_CLASS": "name_node.NameNode",
                "DFS_DB_PATH": str(folder / "namenode"),
                "DFS_PORT": str(ports[0]),
                "DFS_NEW_CLUSTER": "true",
            }
            | settings,
        )
        self.url = f"{self.namenode.url}/"
        self.datanodes = [
            Server(
                f"data{number}",
                folder,
                common
                | {
                    "DFS_NODE_CLASS": "data_node.DataNode",
                    "DFS_FS_ROOT": str(folder / f"data{number}"),
                    "DFS_PORT": str(port),
                    "DFS_NAMENODE_URL": self.url,
                },
            )
            for number, port in enumerate(ports[1:], 1)
        ]

    @property
    def servers(self) -> list[Server]:
        return [self.namenode, *self.datanodes]

    @property
    def datanode_urls(self) -> list[str]:
        return [datanode.url for datanode in self.datanodes]

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self.wait_alive()

    def alive(self) -> int:
        return alive_datanodes(self.url)

    def wait_alive(self, count: int | None = None) -> None:
        wanted = sum(datanode.running() for datanode in self.datanodes) if count is None else count
        try:
            wait_until(lambda: self.alive() == wanted, f"{wanted} datanodes alive")
        except AssertionError:
            print(self.logs())
            raise

    def logs(self) -> str:
        parts = []
        for server in self.servers:
            if server.log.exists():
                parts.append(f"--- {server.name}\n" + "\n".join(server.log.read_text().splitlines()[-40:]))
        return "\n".join(parts)

    def stop(self) -> None:
        """All of them as an operator does it, the namenode first: a datanode that takes its leave from one waits a
        second for those whom it has sent there."""
        hanging = []
        for server in self.servers:
            try:
                if server.running():
                    server.stop()
            except subprocess.TimeoutExpired:
                server.kill()
                hanging.append(server.name)
        assert not hanging, f"killed, as they did not stop: {hanging}"


class MakeCluster(Protocol):
    """Starts a cluster of a test's own: make_cluster(datanodes, DFS_...=...); the settings are the namenode's."""

    def __call__(self, datanodes: int = 3, **settings: str) -> Cluster: ...
