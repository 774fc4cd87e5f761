"""Every command of docs/swarm.md, from a bare swarm on. Those for datanodes by number, one host and volumes are run by
`test_scale`, `test_compose` and `test_volume_plugin`, where there is what they are for.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from http_client import HttpNameNode
from tests.cluster.real_cluster import ROOT
from tests.swarm import documents, engine
from tests.swarm.compose import OVERLAYS
from tests.swarm.registry import registry
from tests.swarm.stack import Stack

_NOT_RUN = {
    "cp deploy/dfs-volume-plugin.service /etc/systemd/system/": "systemd does not run where these tests do",
    "systemctl enable --now dfs-volume-plugin": "systemd does not run where these tests do",
    "docker node update --availability drain node7": "the swarm of these tests has one host",
}
_BUILD = f"docker build --network host --build-arg BASE_IMAGE={engine.BASE}"
"""What `docker build` is where no image can be pulled."""
_NAME = "dfs-documents"


def test_every_command_is_run_by_a_test() -> None:
    sources = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    cited = re.findall(r"documents\.block\(\"([^\"]+)\"\)", sources)
    run = {command for beginning in cited for command in documents.block(beginning)}
    assert run | _NOT_RUN.keys() == {command for block in documents.blocks() for command in block}


def test_an_image_is_brought_to_another_host_as_a_file(image: str) -> None:
    saved = "dfs-test:saved"
    commands = documents.block("docker build -t dfs:1 .")
    out = documents.run(commands, {"docker build": _BUILD, "dfs:1": saved, "ssh node2 ": ""})
    assert f"Loaded image: {saved}" in out
    engine.client().images.remove(saved)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[str]:
    with registry(tmp_path) as address:
        yield address
        for image in engine.client().images.list(f"{address}/dfs"):
            for tag in image.tags:
                if tag.startswith(address):
                    engine.client().images.remove(tag, force=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What a user has who has copied this project to a manager; settings go into `.env` there."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("dfs.py", "dfslib", "deploy", "docker-compose.yml"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def set_up(checkout: Path, **changes: str) -> None:
    """`.env.example` with these changes is `.env`. Ingress ports need a kernel with IPVS; `mesh_vm` has one."""
    text = (ROOT / ".env.example").read_text()
    for name, value in changes.items():
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1, name
    (checkout / ".env").write_text(f"{text}\nCOMPOSE_FILE=docker-compose.yml:{OVERLAYS['host-ports']}\n")


def test_from_a_bare_swarm_to_a_file_and_to_the_next_image(
    on_swarm: str, images: str, checkout: Path, tmp_path: Path
) -> None:
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError:
        pytest.skip("this machine's own name does not resolve: clients cannot be redirected to it")
    documents.run(
        documents.block("docker build -t registry.example:5000/dfs:1 ."),
        {"docker build": _BUILD, "registry.example:5000": images},
    )
    stack = Stack(_NAME, f"{images}/dfs:1", ["host-ports"])
    set_up(checkout, **{name: stack.env[name] for name in ("DFS_IMAGE", "NAME_PORT", "DATA_PORT")})
    try:
        _deploy(stack, checkout)
        content = _put_and_get(stack, checkout)
        _update(stack, images, checkout)
        backup = documents.block("./dfs.py --url http://10.0.0.1:8180/ get -r / /backup/dfs")
        documents.run(backup, {"http://10.0.0.1:8180/": stack.url, "/backup/dfs": f"{tmp_path}/backup"}, checkout)
        assert [path.read_bytes() for path in (tmp_path / "backup").rglob("report.pdf")] == [content]
    except BaseException:
        print(stack.logs())
        raise
    finally:
        stack.remove(volumes=True)


def _deploy(stack: Stack, checkout: Path) -> None:
    here = {" dfs$": f" {_NAME}"}
    assert f"{_NAME}_data" in documents.run(
        documents.block("docker stack deploy -c <(DATA_HOST=10.0.0.1"), here, checkout
    )
    documents.run(documents.block("docker stack deploy -c <(DATA_HOST=unused"), here, checkout)
    stack.wait_alive(1)
    stack.wait_settled()


def _put_and_get(stack: Stack, checkout: Path) -> bytes:
    """On ports of the host, under whose name the datanode is reached."""
    content = os.urandom(3 << 20)
    (checkout / "report.pdf").write_bytes(content)
    commands = documents.block("./dfs.py --url http://10.0.0.1:8180/ status")
    status, *puts, get = commands
    here = {"http://10.0.0.[12]:8180/": stack.url}
    assert "alive" in documents.run([status], here, checkout)
    documents.run(puts, here, checkout)
    (checkout / "report.pdf").unlink()
    documents.run([get], here, checkout)
    assert (checkout / "report.pdf").read_bytes() == content
    with HttpNameNode(stack.url) as dfs:
        (node,) = dfs.status().nodes
        assert node.public_url == f"http://{socket.gethostname()}:{stack.env['DATA_PORT']}/"
    return content


def _update(stack: Stack, images: str, checkout: Path) -> None:
    before = {container for service in ("name", "data") for container in stack.containers(service)}
    built = engine.derive("next", "LABEL version=next")
    assert engine.client().images.get(built).tag(f"{images}/dfs", "2")
    engine.client().images.push(f"{images}/dfs", "2")
    documents.run(
        documents.block("docker service update --image"),
        {"registry.example:5000": images, "dfs_(name|data)$": rf"{_NAME}_\1"},
    )
    stack.wait_alive(1)
    after = {container for service in ("name", "data") for container in stack.containers(service)}
    assert before.isdisjoint(after)
    assert {container.labels["version"] for container in after} == {"next"}
    here = {"^./dfs.py": f"./dfs.py --url {stack.url}", "finalize$": "finalize --yes"}
    assert "level" in documents.run(documents.block("./dfs.py upgrade status"), here, checkout)
