"""Containers use directories of the tree as volumes: the plugin with the engine that it is made for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.real_cluster import ROOT, wait_until
from tests.deadline import DEADLINE_S
from tests.swarm import compose, documents, engine
from tests.swarm.stack import Filters

FOLDER = Path("/var/lib/dfs-volumes-test")
SOCKET = Path("/run/docker/plugins/dfstest.sock")
"""Where the engine looks; another name than that of a plugin that may run here."""


@pytest.fixture
def project(image: str) -> Iterator[compose.Project]:
    if not Path("/dev/fuse").exists():
        pytest.skip("/dev/fuse is missing: nothing can be mounted here")
    with compose.project("volumes", image) as made:
        made.up()
        yield made


@pytest.fixture
def plugin(project: compose.Project) -> Iterator[None]:
    process = subprocess.Popen(
        [
            sys.executable, str(ROOT / "dfs.py"), "--url", project.url, "volume-plugin",
            "--socket", str(SOCKET), "--folder", str(FOLDER),
        ]
    )  # fmt: skip
    try:
        wait_until(SOCKET.exists, "the plugin's socket")
        yield
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
        subprocess.run(["umount", "-l", str(FOLDER / "mnt")], check=False, capture_output=True)
        (FOLDER / "volumes.json").unlink(missing_ok=True)


_IN_SERVICE = "sh -c 'echo from a service >/data/g && exec sleep 1000'"


def test_containers_share_a_directory_of_the_tree(on_swarm: str, project: compose.Project, plugin: None) -> None:
    create, show, serve = documents.block("cp deploy/dfs-volume-plugin.service")[2:]

    def dfs(*arguments: str) -> str:
        return engine.run([sys.executable, ROOT / "dfs.py", "--url", project.url, *arguments])

    documents.run([create], {"-d dfs": "-d dfstest"})
    try:
        write = "open('/data/f', 'w').write('from a container')"
        engine.command("run", "--rm", "-v", "web:/data", engine.BASE, "python3", "-c", write)
        assert dfs("cat", "/projects/f") == "from a container"
        assert documents.run([show], {"IMAGE": engine.BASE}).split() == ["f"]
        service = f"--detach --no-resolve-image --stop-grace-period 1s --name dfs-web {engine.BASE} {_IN_SERVICE}"
        documents.run([serve], {"volume-driver=dfs": "volume-driver=dfstest", "IMAGE": service})
        wait_until(lambda: "g" in dfs("ls", "/projects").split(), "the service has written", pause_s=0.5)
        assert dfs("cat", "/projects/g") == "from a service\n"
    finally:
        _remove_service("dfs-web")
        engine.client().volumes.get("web").remove()
    assert dfs("ls", "/projects").split() == ["f", "g"]


def _remove_service(name: str) -> None:
    for service in engine.client().services.list(filters={"name": name}):
        service.remove()
    label: Filters = {"label": f"com.docker.swarm.service.name={name}"}
    containers = engine.client().containers
    wait_until(lambda: not containers.list(all=True, filters=label, ignore_removed=True), "it is gone", pause_s=0.3)
