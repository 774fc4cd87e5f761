"""Blocks of which every copy is damaged: no wrong byte, no half that looks whole, and the file and block are named."""

from __future__ import annotations

import errno
import http.client
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from http_client import HttpNameNode
from tests.cluster.plain_http import call
from tests.cluster.real_cluster import ROOT, Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S

MIB = 1 << 20
BLOCK_BYTES = 64 * MIB


class Lost(NamedTuple):
    """A file with a block that is damaged on every datanode."""

    path: str
    data: bytes
    block: str


def damage(cluster: Cluster, size: int, at: int) -> str:
    """Flip a bit at `at` of the only block of `size` bytes, on every datanode; its name."""
    names = set()
    for server in cluster.datanodes:
        for path in (Path(server.env["DFS_FS_ROOT"]) / "blocks").rglob("*"):
            if path.is_file() and size <= path.stat().st_size < size + size // 10 + 4096:
                names.add(path.name)
                with path.open("r+b") as file:
                    file.seek(at)
                    byte = file.read(1)
                    file.seek(at)
                    file.write(bytes([byte[0] ^ 4]))
    assert len(names) == 1, names
    return names.pop()


@pytest.fixture
def lost(make_cluster: MakeCluster) -> tuple[Cluster, dict[str, Lost]]:
    """A large file damaged in its second block, one damaged in its first bytes, and a small one."""
    cluster = make_cluster(3)
    numbers = random.Random(7)
    large = b"".join(number.to_bytes(8, "big") * (MIB // 8) for number in range(90))
    files = {
        "middle": (large, len(large) - BLOCK_BYTES, 10 * MIB),
        "start": (numbers.randbytes(2 * MIB), 2 * MIB, 100),
        "small": (numbers.randbytes(50_000), 50_000, 5),
    }
    found = {}
    with HttpNameNode(cluster.url) as dfs:
        for name, (data, size, at) in files.items():
            dfs.tee(f"/{name}", data)
            found[name] = Lost(f"/{name}", data, damage(cluster, size, at))
    return cluster, found


def location(cluster: Cluster, path: str) -> tuple[str, str]:
    parts = urlsplit(call(cluster.url, "GET", f"/fs{path}?redirect=false").json()["location"])
    return f"{parts.scheme}://{parts.netloc}", parts.path


def test_no_answer_looks_whole(lost: tuple[Cluster, dict[str, Lost]]) -> None:
    cluster, files = lost
    for name in ("start", "small"):  # found before the headers are out
        answer = call(*_get(cluster, files[name].path))
        assert (answer.status, answer.error) == (500, "EIO")
        message = json.loads(answer.body)["message"]
        assert name in message
        assert files[name].block in message
    server, path = location(cluster, "/middle")
    connection = http.client.HTTPConnection(urlsplit(server).netloc, timeout=DEADLINE_S)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == 200
    assert int(response.headers["Content-Length"]) == len(files["middle"].data)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)) as caught:
        response.read()
    connection.close()
    if isinstance(caught.value, http.client.IncompleteRead):
        got = caught.value.partial
        assert files["middle"].data.startswith(got)
        assert len(got) < BLOCK_BYTES + 10 * MIB


def _get(cluster: Cluster, path: str) -> tuple[str, str, str]:
    server, target = location(cluster, path)
    return server, "GET", target


def test_the_client_names_the_file_and_the_block(lost: tuple[Cluster, dict[str, Lost]], tmp_path: Path) -> None:
    cluster, files = lost
    for path, data, block in files.values():
        with HttpNameNode(cluster.url) as dfs:
            for read in (
                dfs.cat,
                lambda path: dfs.get(path, tmp_path / "copy"),
                lambda path: dfs.open(path, "rb").read(),
            ):
                with pytest.raises(OSError) as caught:
                    read(path)
                assert caught.value.errno == errno.EIO
                assert block in str(caught.value.strerror)
                assert os.fsdecode(caught.value.filename) == path
        assert not (tmp_path / "copy").exists()
        result = command(cluster, "cat", path)
        assert result.returncode == 1
        assert result.stderr.startswith(f"dfs: {path}: ".encode())
        assert block.encode() in result.stderr
        assert data.startswith(result.stdout)
        assert len(result.stdout) < len(data)


def command(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(ROOT / "dfs.py"), "--url", cluster.url, *arguments], capture_output=True, check=False
    )


def test_fsck_names_each_file_and_block(lost: tuple[Cluster, dict[str, Lost]]) -> None:
    cluster, files = lost
    with HttpNameNode(cluster.url) as dfs:
        for file in files.values():
            with pytest.raises(OSError):
                dfs.cat(file.path)

        def told() -> bool:
            return {(problem.kind, problem.path, problem.block) for problem in dfs.fsck().problems} == {
                ("lost", file.path, file.block) for file in files.values()
            }

        wait_until(told, "the namenode knows of all copies")
    result = command(cluster, "fsck")
    assert result.returncode == 1
    for path, _, block in files.values():
        line = f"lost: {path}: block {block}: no datanode has a good copy; damaged ones are kept in their quarantine"
        assert line in result.stdout.decode().splitlines()


def test_fsck_names_the_datanodes_that_are_away_and_every_file_of_a_block(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/first", b"content")
        dfs.cp("/first", "/second")
        cluster.datanodes[0].kill()
        cluster.wait_alive(0)
        node = dfs.status().nodes[0].id
        problems = dfs.fsck().problems
        assert [(problem.kind, problem.path) for problem in problems] == [("lost", "/first"), ("lost", "/second")]
        assert all(node[:8] in problem.detail for problem in problems)
        cluster.datanodes[0].start()
        cluster.wait_alive(1)
        assert dfs.fsck().healthy
