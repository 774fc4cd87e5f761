"""A request that is sent again with its id, because the answer was lost, is done once and answered alike."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import NamedTuple
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


class Change(NamedTuple):
    """A request that changes something, and what differs in another one under its id."""

    method: str
    path: str
    body: bytes = b""
    other_path: str = ""
    other_body: bytes = b""
    condition: str = ""


LARGE = bytes(300 << 10)
CHANGES = {
    "put, other bytes": Change("PUT", "/fs/kind/new", b"one", other_body=b"two"),
    "put, other length": Change("PUT", "/fs/kind/new", b"one", other_body=b"three"),
    "put, large": Change("PUT", "/fs/kind/new", LARGE + b"1", other_body=LARGE + b"2"),
    "put, other path": Change("PUT", "/fs/kind/new", b"one", "/fs/kind/other"),
    "put, other parameters": Change("PUT", "/fs/kind/new", b"one", "/fs/kind/new?mode=600"),
    "put, other condition": Change("PUT", "/fs/kind/new", b"one", condition="*"),
    "append, other bytes": Change("POST", "/fs/kind/file?op=append", b"one", other_body=b"two"),
    "append, large": Change("POST", "/fs/kind/file?op=append", LARGE + b"1", other_body=LARGE + b"2"),
    "append, other file": Change("POST", "/fs/kind/file?op=append", b"one", "/fs/kind/gone?op=append"),
    "delete": Change("DELETE", "/fs/kind/gone", other_path="/fs/kind/file"),
    "mkdir": Change("POST", "/fs/kind/new?op=mkdir", other_path="/fs/kind/other?op=mkdir"),
    "rename": Change("POST", "/fs/kind/gone?op=rename&to=/kind/a", other_path="/fs/kind/file?op=rename&to=/kind/a"),
    "copy": Change("POST", "/fs/kind/file?op=copy&to=/kind/a", other_path="/fs/kind/file?op=copy&to=/kind/b"),
    "link": Change("POST", "/fs/kind/file?op=link&to=/kind/a", other_path="/fs/kind/file?op=link&to=/kind/b"),
    "symlink": Change("POST", "/fs/kind/new?op=symlink&to=a", other_path="/fs/kind/new?op=symlink&to=b"),
    "truncate": Change("POST", "/fs/kind/file?op=truncate&size=2", other_path="/fs/kind/file?op=truncate&size=1"),
    "setattr": Change("POST", "/fs/kind/file?op=setattr&mode=600", other_path="/fs/kind/file?op=setattr&mode=640"),
    "setxattr": Change("POST", "/fs/kind/file?op=setxattr&name=user.a", b"1", other_body=b"2"),
    "removexattr": Change(
        "POST", "/fs/kind/file?op=removexattr&name=user.x", other_path="/fs/kind/file?op=removexattr&name=user.y"
    ),
    "touch": Change("POST", "/fs/kind/new?op=touch", other_path="/fs/kind/other?op=touch"),
    "another method": Change("POST", "/fs/kind/new?op=touch", other_path="/fs/kind/other?op=mkdir"),
}


def test_another_request_under_the_same_id_is_refused_and_changes_nothing(cluster: Cluster) -> None:
    def tree() -> tuple[object, object, bytes]:
        listing = call(cluster.url, "GET", "/fs/kind").json()
        return listing, call(cluster.url, "GET", "/fs/kind/file?op=xattrs").json(), content()

    def content() -> bytes:
        return read_file(cluster.url, "/fs/kind/file").body

    for number, (name, change) in enumerate(CHANGES.items()):
        call(cluster.url, "DELETE", "/fs/kind?recursive=true")
        for path in ("/fs/kind/file?parents=true", "/fs/kind/gone"):
            assert call(cluster.url, "PUT", path, b"what there was").status == 201
        for xattr in ("user.x", "user.y"):
            assert call(cluster.url, "POST", f"/fs/kind/file?op=setxattr&name={xattr}", b"x").status == 200
        headers = {"X_DFS_Request_Id": f"kind-{number}"}
        first = call(cluster.url, change.method, change.path, change.body, **headers)
        assert first.status in (200, 201, 204), (name, first)
        before = tree()
        others = {"If_None_Match": change.condition} if change.condition else {}
        refused = call(
            cluster.url,
            change.method,
            change.other_path or change.path,
            change.other_body or change.body,
            **headers,
            **others,
        )
        assert (refused.status, refused.error) == (422, "EREQUESTID"), (name, refused)
        assert f"kind-{number}" in refused.json()["message"], name
        assert tree() == before, name
        again = call(cluster.url, change.method, change.path, change.body, **headers)
        assert again.status == first.status, name
        assert tree() == before, name


def test_the_order_of_parameters_and_a_body_of_unknown_length_are_no_other_request(cluster: Cluster) -> None:
    headers = {"X_DFS_Request_Id": "in another order"}
    assert call(cluster.url, "PUT", "/fs/order?mode=600&uid=7", b"bytes", **headers).status == 201
    assert call(cluster.url, "PUT", "/fs/order?uid=7&mode=600", b"bytes", **headers).status == 201
    assert call_chunked(cluster, "/fs/order?mode=600&uid=7", b"bytes", "in another order") == 201
    assert call_chunked(cluster, "/fs/order?mode=600&uid=7", b"other", "in another order") == 422
    assert read_file(cluster.url, "/fs/order").body == b"bytes"


def call_chunked(cluster: Cluster, path: str, body: bytes, request_id: str) -> int:
    connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=DEADLINE_S)
    try:
        connection.request("PUT", path, iter([body]), {"X-DFS-Request-Id": request_id}, encode_chunked=True)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_repetition_that_breaks_off_is_no_other_request(cluster: Cluster) -> None:
    """Its sender hears nothing of it, and tries again."""
    headers = {"X_DFS_Request_Id": "broken"}
    assert call(cluster.url, "PUT", "/fs/broken", b"all of it", **headers).status == 201
    Upload(cluster, "PUT", "/fs/broken", b"all of it", "broken").break_off()
    assert call(cluster.url, "PUT", "/fs/broken", b"all of it", **headers).status == 201
    assert read_file(cluster.url, "/fs/broken").body == b"all of it"


def test_what_was_asked_for_is_known_after_a_restart(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    headers = {"X_DFS_Request_Id": "kept"}
    assert call(cluster.url, "PUT", "/fs/kept", b"one", **headers).status == 201
    cluster.namenode.kill()
    cluster.namenode.start()
    cluster.wait_alive()
    assert call(cluster.url, "PUT", "/fs/kept", b"two", **headers).status == 422
    assert call(cluster.url, "PUT", "/fs/kept", b"one", **headers).status == 201
    assert read_file(cluster.url, "/fs/kept").body == b"one"


class Upload:
    """A request whose body comes in two parts; the second one when it is told to."""

    def __init__(self, cluster: Cluster, method: str, path: str, body: bytes, request_id: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(cluster.url).netloc, timeout=DEADLINE_S)
        self._rest = body[len(body) // 2 :]
        self._connection.putrequest(method, path)
        self._connection.putheader("Content-Length", str(len(body)))
        self._connection.putheader("X-DFS-Request-Id", request_id)
        self._connection.endheaders(body[: len(body) // 2])

    def break_off(self) -> None:
        self._connection.close()

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
