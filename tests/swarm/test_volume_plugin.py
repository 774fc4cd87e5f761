"""Containers use directories of the tree as volumes: the plugin with the engine that it is made for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import compose
import engine
import pytest
from engine import docker
from real_cluster import ROOT, wait_until

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
        process.wait(30)
        subprocess.run(["umount", "-l", str(FOLDER / "mnt")], check=False, capture_output=True)
        (FOLDER / "volumes.json").unlink(missing_ok=True)


def in_container(image: str, script: str) -> str:
    return docker("run", "--rm", "--user", "0", "-v", "web:/data", "--entrypoint", "python3", image, "-c", script)


def test_containers_share_a_directory_of_the_tree(image: str, project: compose.Project, plugin: None) -> None:
    docker("volume", "create", "-d", "dfstest", "-o", "subdir=/projects", "web")
    try:
        in_container(image, "open('/data/f', 'w').write('from a container')")
        assert in_container(image, "print(open('/data/f').read())").strip() == "from a container"
        outside = engine.run([sys.executable, ROOT / "dfs.py", "--url", project.url, "cat", "/projects/f"])
        assert outside == "from a container"
    finally:
        docker("volume", "rm", "web")
    assert engine.run([sys.executable, ROOT / "dfs.py", "--url", project.url, "ls", "/projects"]).split() == ["f"]
