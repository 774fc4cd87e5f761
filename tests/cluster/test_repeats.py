"""A request that is sent again with its id, because the answer was lost, is done once and answered alike."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S


def test_each_change_is_done_once(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/again/file?parents=true", b"start;")
    for number, (method, path, body) in enumerate(
        [
            ("POST", "/fs/again/dir?op=mkdir", b""),
            ("POST", "/fs/again/file?op=append", b"once;"),
            ("POST", "/fs/again/file?op=link&to=/again/linked", b""),
            ("POST", "/fs/again/link?op=symlink&to=file", b""),
            ("POST", "/fs/again/linked?op=rename&to=/again/renamed", b""),
            ("PUT", "/fs/again/new", b"new"),
            ("DELETE", "/fs/again/new", None),
        ]
    ):
        headers = {"X_DFS_Request_Id": f"request-{number}"}
        if method == "PUT":
            headers["If_None_Match"] = "*"
        first = call(cluster.url, method, path, body, **headers)
        assert first.status in (200, 201, 204), (path, first)
        again = call(cluster.url, method, path, body, **headers)
        assert again.status == first.status, (path, again)
        if first.body:
            assert again.json()["version"] == first.json()["version"]
    assert read_file(cluster.url, "/fs/again/file").body == b"start;once;"
    assert call(cluster.url, "HEAD", "/fs/again/renamed").headers["x-dfs-nlink"] == "2"


def test_a_request_that_failed_is_tried_anew(cluster: Cluster) -> None:
    path = "/fs/later/file"
    assert call(cluster.url, "PUT", path, b"x", X_DFS_Request_Id="patient").error == "ENOENT"
    call(cluster.url, "POST", "/fs/later?op=mkdir")
    assert call(cluster.url, "PUT", path, b"x", X_DFS_Request_Id="patient").status == 201


def test_an_id_that_cannot_be(cluster: Cluster) -> None:
    assert call(cluster.url, "PUT", "/fs/id", b"x", X_DFS_Request_Id="x" * 65).error == "EINVAL"
    assert call(cluster.url, "HEAD", "/fs/id").status == 404


class Upload:
    """A request whose body comes in two parts; the second one when it is told to."""

    def __init__(self, cluster: Cluster, method: str, path: str, body: bytes, request_id: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=DEADLINE_S)
        self._rest = body[len(body) // 2 :]
        self._connection.putrequest(method, path)
        self._connection.putheader("Content-Length", str(len(body)))
        self._connection.putheader("X-DFS-Request-Id", request_id)
        self._connection.endheaders(body[: len(body) // 2])

    def end(self) -> int:
        self._connection.send(self._rest)
        answer = self._connection.getresponse()
        answer.read()
        self._connection.close()
        return answer.status


def stored(cluster: Cluster) -> list[set[str]]:
    return [{path.name for path in Path(node.env["DFS_FS_ROOT"]).glob("blocks/*/*")} for node in cluster.datanodes]


@pytest.mark.parametrize("size", [1000, 300 << 10], ids=["packed", "streamed"])
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_the_bytes_of_a_repetition_are_given_up_and_those_of_the_first_stay(
    make_cluster: MakeCluster, method: str, size: int
) -> None:
    """Several attempts under one id are at work at a time: one is done, and the datanodes keep its blocks alone."""
    cluster = make_cluster()
    call(cluster.url, "PUT", "/fs/file", b"")
    path = "/fs/file" if method == "PUT" else "/fs/file?op=append"
    body = os.urandom(size)
    attempts = [Upload(cluster, method, path, body, "one id") for _ in range(4)]
    assert [attempt.end() for attempt in attempts] == [200] * 4
    assert read_file(cluster.url, "/fs/file").body == body
    wait_until(lambda: all(len(blocks) == 1 for blocks in stored(cluster)), "what was repeated is given up", 60)
    call(cluster.url, "POST", "/fs/file?op=append", b"more")
    assert read_file(cluster.url, "/fs/file").body == body + b"more"
    health = call(cluster.url, "GET", "/cluster/fsck").json()
    assert health["healthy"], health
