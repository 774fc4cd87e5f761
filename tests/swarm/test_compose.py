"""The image and the compose files: what they are made of, one host, and two projects on it side by side."""

from __future__ import annotations

import os
from itertools import combinations

import pytest

from http_client import HttpNameNode
from tests.cluster.real_cluster import ROOT
from tests.swarm import documents, engine
from tests.swarm.compose import OVERLAYS, Project, files, project, settings

_ADDED_BYTES_MAX = 80 << 20
"""What the image may be larger than its base: the locked packages and the project."""


def test_the_image_is_small_and_runs_as_nobody_special(image: str) -> None:
    size, base = (engine.client().images.get(name).attrs["Size"] for name in (image, engine.BASE))
    config = engine.client().images.get(image).attrs["Config"]
    print(f"image {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} MB more than its base, user {config['User']!r}")
    assert size - base < _ADDED_BYTES_MAX
    assert config["User"] == "dfs"
    assert "/data" in config["Volumes"]
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert engine.command("run", "--rm", "--entrypoint", "id", image, "-u") == "8180"
    compilers = "command -v cc gcc g++ make pip pip3 || true"
    assert engine.command("run", "--rm", "--entrypoint", "sh", image, "-c", compilers) == ""


def test_every_part_is_in_the_image(image: str) -> None:
    for arguments in (["server.py", "--help"], ["dfs.py", "--help"]):
        assert "usage" in engine.command("run", "--rm", image, f"/opt/dfs/app/{arguments[0]}", *arguments[1:]).lower()


@pytest.mark.parametrize("overlays", [names for n in range(3) for names in combinations(sorted(OVERLAYS), n)])
def test_every_combination_of_compose_files_is_valid(overlays: tuple[str, ...]) -> None:
    if reason := engine.missing():
        pytest.skip(f"docker-compose cannot run here: {reason}")
    config = engine.run(["docker-compose", *files(overlays), "config"], env=settings("dfs:latest"))
    assert "stop-first" in config
    assert ("mode: host" in config) == ("host-ports" in overlays)
    assert ("replicas: 3" in config) == ("replicas" in overlays)


def test_without_an_address_for_clients_nothing_is_started() -> None:
    if reason := engine.missing():
        pytest.skip(f"docker-compose cannot run here: {reason}")
    with pytest.raises(AssertionError, match="set DATA_HOST"):
        engine.run(["docker-compose", *files(), "config"], env={"DATA_HOST": ""})


def test_down_and_up_again_keeps_the_data(image: str) -> None:
    content = os.urandom(3 << 20)
    up, down = ([command] for command in documents.block("DATA_HOST=localhost docker-compose up"))
    with project("dfs-one-host", image) as one:
        variables = {"COMPOSE_PROJECT_NAME": one.name} | one.env
        with HttpNameNode(one.url) as dfs:
            dfs.mkdir("/docs")
            dfs.tee("/docs/report", content)
        documents.run(down, {}, ROOT, **variables)
        documents.run(up, {}, ROOT, **variables)
        one.wait_alive()
        with HttpNameNode(one.url) as dfs:
            assert dfs.cat("/docs/report") == content
            dfs.tee("/docs/report", b"second")
            assert dfs.cat("/docs/report") == b"second"


def test_two_projects_side_by_side(image: str) -> None:
    def write_and_read(mine: Project, text: bytes) -> None:
        with HttpNameNode(mine.url) as dfs:
            if not dfs.exists("/same"):
                dfs.mkdir("/same")
            dfs.tee("/same/name", text)
            assert dfs.cat("/same/name") == text

    with project("dfs-left", image) as left, project("dfs-right", image) as right:
        write_and_read(left, b"left")
        write_and_read(right, b"right")
        write_and_read(left, b"left again")
        with HttpNameNode(right.url) as dfs:
            assert dfs.cat("/same/name") == b"right"
