"""A request that is sent again with its id, because the answer was lost, is done once and answered alike."""

from __future__ import annotations

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster


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
