"""A compose project of ours on one host, and what its compose files say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster.real_cluster import ROOT, alive_datanodes, free_ports, wait_until
from tests.swarm import engine

OVERLAYS = {name: ROOT / "deploy" / f"{name}.yml" for name in ("host-ports", "replicas")}


def files(overlays: Sequence[str | Path] = ()) -> list[str | Path]:
    """Arguments of docker-compose for our file and these overlays: names below `deploy`, or paths."""
    paths = [OVERLAYS[overlay] if isinstance(overlay, str) else overlay for overlay in overlays]
    return [part for path in [ROOT / "docker-compose.yml", *paths] for part in ("-f", path)]


def settings(image: str, **changes: str) -> dict[str, str]:
    """Variables of the compose file: free ports, so that nothing else on this machine is in the way."""
    name_port, data_port = free_ports(2)
    return {
        "DFS_IMAGE": image,
        "BASE_IMAGE": engine.BASE,
        "DATA_HOST": "localhost",
        "NAME_PORT": str(name_port),
        "DATA_PORT": str(data_port),
    } | changes


class Project:
    """`docker-compose up` and `down` of one project; `url` is its namenode's."""

    def __init__(self, name: str, image: str) -> None:
        self.name = name
        self.env = settings(image)
        self.url = f"http://localhost:{self.env['NAME_PORT']}/"

    def compose(self, *arguments: str) -> str:
        command = ["docker-compose", "--project-name", self.name, *files(), *arguments]
        return engine.run(command, env=self.env)

    def up(self) -> None:
        self.compose("up", "-d", "--no-build")
        self.wait_alive()

    def wait_alive(self) -> None:
        wait_until(lambda: alive_datanodes(self.url) == 1, f"{self.name} has its datanode", pause_s=0.2)

    def down(self, *arguments: str) -> None:
        self.compose("down", "--timeout", "20", *arguments)


@contextlib.contextmanager
def project(name: str, image: str) -> Iterator[Project]:
    """A project that is up; removed with its volumes."""
    made = Project(name, image)
    try:
        made.up()
        yield made
    except BaseException:
        print(made.compose("logs", "--no-color", "--tail", "60"))
        raise
    finally:
        made.down("--volumes")
