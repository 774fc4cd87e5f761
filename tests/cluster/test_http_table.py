"""Every row of the HTTP interface, on a real cluster."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest

from dfslib.model import NAME_MAX
from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster


def test_put_makes_and_replaces_a_file(cluster: Cluster) -> None:
    made = call(cluster.url, "PUT", "/fs/put.txt", b"one")
    assert (made.status, made.json()["size"], made.json()["replicas"]) == (201, 3, 3)
    assert made.json()["etag"] == made.headers["etag"]
    replaced = call(cluster.url, "PUT", "/fs/put.txt", b"two two")
    assert (replaced.status, replaced.json()["size"]) == (200, 7)
    assert replaced.json()["ino"] == made.json()["ino"]
    assert replaced.json()["version"] > made.json()["version"]
    assert read_file(cluster.url, "/fs/put.txt").body == b"two two"


def test_put_of_nothing_is_an_empty_file(cluster: Cluster) -> None:
    assert call(cluster.url, "PUT", "/fs/empty", b"").status == 201
    answer = read_file(cluster.url, "/fs/empty")
    assert (answer.status, answer.body) == (200, b"")


def test_put_options(cluster: Cluster) -> None:
    answer = call(cluster.url, "PUT", "/fs/opt/a/b?parents=true&replication=2&mode=600&mtime=1.5&uid=7&gid=8", b"x")
    attr = answer.json()
    assert answer.status == 201
    assert (attr["mode"], attr["mtime_ns"], attr["uid"], attr["gid"]) == ("0600", 1_500_000_000, 7, 8)
    assert (attr["replication"], attr["replicas"]) == ("2", 2)
    assert call(cluster.url, "PUT", "/fs/none/b", b"x").error == "ENOENT"


def test_put_conditions(cluster: Cluster) -> None:
    first = call(cluster.url, "PUT", "/fs/cond", b"1", If_None_Match="*")
    assert first.status == 201
    refused = call(cluster.url, "PUT", "/fs/cond", b"2", If_None_Match="*")
    assert (refused.status, refused.error) == (412, "ECONDITION")
    assert call(cluster.url, "PUT", "/fs/cond", b"3", If_Match=first.headers["etag"]).status == 200
    assert call(cluster.url, "PUT", "/fs/cond", b"4", If_Match=first.headers["etag"]).status == 412
    assert call(cluster.url, "PUT", "/fs/cond-none", b"4", If_Match="*").status == 412
    assert read_file(cluster.url, "/fs/cond").body == b"3"


def test_get_redirects_or_tells_where(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/where.txt", b"here")
    answer = call(cluster.url, "GET", "/fs/where.txt")
    assert answer.status == 307
    assert any(answer.headers["location"].startswith(url) for url in cluster.datanode_urls)
    told = call(cluster.url, "GET", "/fs/where.txt?redirect=false")
    assert told.status == 200
    assert told.json()["location"].endswith("/where.txt")


def test_head_gives_attributes_as_headers(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/head.txt?mode=640", b"12345")
    headers = call(cluster.url, "HEAD", "/fs/head.txt").headers
    assert headers["content-length"] == "5"
    assert headers["x-dfs-type"] == "file"
    assert headers["x-dfs-mode"] == "0640"
    assert (headers["x-dfs-uid"], headers["x-dfs-gid"]) == ("0", "0")
    assert headers["x-dfs-replication"] == "default"
    assert headers["last-modified"].endswith("GMT")
    assert headers["etag"].startswith('"')
    missing = call(cluster.url, "HEAD", "/fs/no-such-file")
    assert (missing.status, missing.error) == (404, "ENOENT")


def test_listing_is_sorted_and_paged(cluster: Cluster) -> None:
    names = sorted(f"n{number}" for number in range(25))
    for name in reversed(names):
        call(cluster.url, "PUT", f"/fs/list/{name}?parents=true", b"x")
    whole = call(cluster.url, "GET", "/fs/list").json()
    assert [entry["name"] for entry in whole["entries"]] == names
    assert whole["more"] is False
    found: list[str] = []
    after, more = "", True
    while more:
        page = call(cluster.url, "GET", f"/fs/list?limit=10&after={after}").json()
        found += [entry["name"] for entry in page["entries"]]
        after, more = found[-1], page["more"]
    assert found == names
    assert whole["entries"][0]["size"] == 1


def test_delete(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/del/a/b?parents=true", b"x")
    assert call(cluster.url, "DELETE", "/fs/del").error == "ENOTEMPTY"
    assert call(cluster.url, "DELETE", "/fs/del/a/b").status == 204
    assert call(cluster.url, "DELETE", "/fs/del/a/b").error == "ENOENT"
    call(cluster.url, "PUT", "/fs/del/a/b", b"x")
    assert call(cluster.url, "DELETE", "/fs/del?recursive=true").status == 204
    assert call(cluster.url, "GET", "/fs/del").error == "ENOENT"
    assert call(cluster.url, "DELETE", "/fs/").error == "EINVAL"
    assert call(cluster.url, "DELETE", "/fs/?recursive=true").error == "EINVAL"
    assert call(cluster.url, "GET", "/fs/").status == 200


def post(cluster: Cluster, path: str, op: str, body: bytes = b"", **params: str) -> tuple[int, dict[str, Any]]:
    query = "&".join([f"op={op}", *(f"{name}={value}" for name, value in params.items())])
    answer = call(cluster.url, "POST", f"/fs{path}?{query}", body)
    return answer.status, answer.json()


def test_mkdir(cluster: Cluster) -> None:
    assert post(cluster, "/m", "mkdir")[0] == 201
    assert post(cluster, "/m", "mkdir")[1]["error"] == "EEXIST"
    assert post(cluster, "/m/x/y", "mkdir")[1]["error"] == "ENOENT"
    assert post(cluster, "/m/x/y", "mkdir", parents="true", mode="700")[1]["mode"] == "0700"
    assert post(cluster, "/m/x/y", "mkdir", parents="true")[0] == 200


def test_rename(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/r/a?parents=true", b"a")
    call(cluster.url, "PUT", "/fs/r/b", b"b")
    assert post(cluster, "/r/a", "rename", to="/r/b", noreplace="true")[1]["error"] == "EEXIST"
    assert post(cluster, "/r/a", "rename", to="/r/b")[0] == 200
    assert read_file(cluster.url, "/fs/r/b").body == b"a"
    assert call(cluster.url, "HEAD", "/fs/r/a").status == 404
    status, body = post(cluster, "/r", "rename", to="/r/below")
    assert (status, body["error"]) == (400, "EINVAL")


def test_copy_shares_blocks(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/c1", b"x" * 300_000)
    blocks = sum(node["blocks"] for node in call(cluster.url, "GET", "/cluster").json()["nodes"])
    assert post(cluster, "/c1", "copy", to="/c2")[0] == 201
    assert read_file(cluster.url, "/fs/c2").body == b"x" * 300_000
    assert call(cluster.url, "DELETE", "/fs/c1").status == 204
    assert read_file(cluster.url, "/fs/c2").body == b"x" * 300_000
    assert blocks <= sum(node["blocks"] for node in call(cluster.url, "GET", "/cluster").json()["nodes"])


def test_link_and_symlink(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/l1", b"linked")
    assert post(cluster, "/l1", "link", to="/l2")[1]["nlink"] == 2
    assert post(cluster, "/sym", "symlink", to="l1")[1]["target"] == "l1"
    assert read_file(cluster.url, "/fs/sym").body == b"linked"
    assert call(cluster.url, "GET", "/fs/sym?follow=false").json()["type"] == "symlink"
    assert call(cluster.url, "HEAD", "/fs/sym?follow=false").headers["x-dfs-target"] == "l1"
    assert call(cluster.url, "DELETE", "/fs/sym").status == 204
    assert call(cluster.url, "DELETE", "/fs/l1").status == 204
    assert read_file(cluster.url, "/fs/l2").body == b"linked"


def test_truncate_and_append(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/t", b"0123456789")
    assert post(cluster, "/t", "truncate", size="4")[1]["size"] == 4
    assert post(cluster, "/t", "truncate", size="6")[1]["size"] == 6
    assert post(cluster, "/t", "append", b"end")[1]["size"] == 9
    assert read_file(cluster.url, "/fs/t").body == b"0123\0\0end"
    big = os.urandom(400_000)
    assert post(cluster, "/t", "append", big)[1]["size"] == 400_009
    assert read_file(cluster.url, "/fs/t").body == b"0123\0\0end" + big


def test_setattr_touch_and_xattrs(cluster: Cluster) -> None:
    assert post(cluster, "/new", "touch")[0] == 201
    body = post(cluster, "/new", "setattr", mode="4755", uid="1", gid="2", atime="3.25", mtime="-4")[1]
    assert (body["mode"], body["uid"], body["gid"]) == ("4755", 1, 2)
    assert (body["atime_ns"], body["mtime_ns"]) == (3_250_000_000, -4_000_000_000)
    assert post(cluster, "/new", "touch")[1]["mtime_ns"] > 0
    assert post(cluster, "/new", "setxattr", b"\0\xff", name="user.x")[0] == 200
    found = call(cluster.url, "GET", "/fs/new?op=xattrs").json()["xattrs"]
    assert base64.b64decode(found["user.x"]) == b"\0\xff"
    assert post(cluster, "/new", "setxattr", b"1", name="user.x", create="true")[1]["error"] == "EEXIST"
    assert post(cluster, "/new", "removexattr", name="user.x")[0] == 200
    assert post(cluster, "/new", "removexattr", name="user.x")[1]["error"] == "ENODATA"
    assert post(cluster, "/new", "setxattr", b"2", name="user.dfs.replication")[1]["replication"] == "2"


def test_replication_is_inherited_by_what_is_made_in_a_directory(cluster: Cluster) -> None:
    post(cluster, "/two", "mkdir")
    post(cluster, "/two", "setxattr", b"1", name="user.dfs.replication")
    attr = call(cluster.url, "PUT", "/fs/two/deep/f?parents=true", b"x" * 1000).json()
    assert (attr["replication"], attr["replicas"]) == ("1", 1)


def test_cluster_routes(cluster: Cluster) -> None:
    status = call(cluster.url, "GET", "/cluster").json()
    assert [node["state"] for node in status["nodes"]] == ["alive"] * 3
    fields = {"id", "state", "url", "public_url", "capacity", "used", "blocks", "last_seen"}
    assert all(fields <= node.keys() for node in status["nodes"])
    df = call(cluster.url, "GET", "/cluster/df").json()
    assert 0 < df["available"] <= df["capacity"]
    assert call(cluster.url, "GET", "/cluster/fsck").json()["healthy"] is True
    for url in [cluster.url, *cluster.datanode_urls]:
        assert call(url, "GET", "/healthz").status == 200
        assert b"\ndfs_" in call(url, "GET", "/metrics").body


def test_datanode_routes(cluster: Cluster) -> None:
    url = cluster.datanode_urls[0]
    block = "00000000000000ff"
    assert call(url, "PUT", f"/blocks/{block}", b"data", X_DFS_CRC32C="00000000").error == "EBADMSG"
    assert call(url, "HEAD", f"/blocks/{block}?local=true").status == 404
    assert call(url, "PUT", f"/blocks/{block}", b"data").status == 201
    assert call(url, "GET", f"/blocks/{block}", Range="bytes=1-2").body == b"at"
    assert call(url, "GET", f"/blocks?reads={block}:1-3,{block}:0-9").body == b"\2\0\0\0\4\0\0\0atdata"
    assert call(url, "GET", f"/blocks?reads={block}:1-3,{block}:4-9").status == 404
    assert call(url, "GET", f"/blocks?reads={block}:3-1").error == "EINVAL"
    assert call(url, "GET", f"/blocks?reads={block}:0-300000").error == "EINVAL"
    assert call(url, "GET", "/blocks").error == "EINVAL"
    assert call(url, "HEAD", f"/blocks/{block}").headers["content-length"] == "4"
    assert call(url, "DELETE", f"/blocks/{block}").status in (200, 204)
    assert call(url, "GET", f"/blocks/{block}").status == 404


def test_file_routes_of_a_datanode(cluster: Cluster) -> None:
    data = bytes(range(256)) * 2000
    etag = call(cluster.url, "PUT", "/fs/range.txt", data).headers["etag"]
    whole = read_file(cluster.url, "/fs/range.txt")
    assert whole.body == data
    assert whole.headers["etag"] == etag
    assert whole.headers["content-type"] == "text/plain"
    assert "range.txt" in whole.headers["content-disposition"]
    for text, want in (("0-0", data[:1]), ("5-", data[5:]), ("-7", data[-7:]), ("100-300000", data[100:300001])):
        part = read_file(cluster.url, "/fs/range.txt", Range=f"bytes={text}")
        assert (part.status, part.body == want) == (206, True), text
    for text in ("-0", "512000-", "9-3", "--5", "a-b", "-"):
        part = read_file(cluster.url, "/fs/range.txt", Range=f"bytes={text}")
        assert (part.status, part.headers["content-range"]) == (416, f"bytes */{len(data)}"), text
    assert read_file(cluster.url, "/fs/range.txt", Range="bytes=0-3", If_Range='"other"').status == 200
    assert read_file(cluster.url, "/fs/range.txt", If_None_Match=etag).status == 304


def test_a_file_of_several_blocks_spans_them(cluster: Cluster) -> None:
    data = os.urandom(1 << 20) * 130  # two blocks and a piece
    assert call(cluster.url, "PUT", "/fs/three-blocks", data).json()["replicas"] == 3
    border = 64 << 20
    part = read_file(cluster.url, "/fs/three-blocks", Range=f"bytes={border - 10}-{border + 9}")
    assert part.body == data[border - 10 : border + 10]
    assert read_file(cluster.url, "/fs/three-blocks").body == data


NAMES = [
    b"plain",
    b"with space",
    b"new\nline",
    b"tab\t",
    b"%2F",
    b"%",
    b"#",
    b"?",
    b"a&b=c+d;e",
    "smile-\N{GRINNING FACE}".encode(),
    b"\xff\xfe invalid utf-8",
    b"\x01\x7f",
    b"'\"\\",
    b"...",
    b"~",
    b"[::1]",
    b"n" * NAME_MAX,
]


def quoted(name: bytes) -> str:
    return "".join(f"%{byte:02X}" for byte in name)


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[2:18])
def test_any_name(cluster: Cluster, name: bytes) -> None:
    call(cluster.url, "POST", "/fs/names?op=mkdir")
    path = f"/fs/names/{quoted(name)}"
    assert call(cluster.url, "PUT", path, name).status == 201
    assert read_file(cluster.url, path).body == name
    entries = call(cluster.url, "GET", "/fs/names").json()["entries"]
    exact = [entry.get("name_bytes") or quoted(entry["name"].encode()) for entry in entries]
    assert len(exact) == len(entries)
    renamed = call(cluster.url, "POST", f"{path}?op=rename&to=/names/{quoted(name[:-1] + b'!')}")
    assert renamed.status == 200
    assert call(cluster.url, "DELETE", f"/fs/names/{quoted(name[:-1] + b'!')}").status == 204


def test_names_that_cannot_be(cluster: Cluster) -> None:
    for path, code in (
        ("/fs/" + "n" * (NAME_MAX + 1), "ENAMETOOLONG"),
        ("/fs/a%2Fb", "EINVAL"),
        ("/fs/a%00b", "EINVAL"),
        ("/fs/a%zz", "EINVAL"),
        ("/fs/" + "d/" * 10_000, "ENAMETOOLONG"),
    ):
        for method, body in (("PUT", b"x"), ("HEAD", None), ("GET", None), ("DELETE", None)):
            assert call(cluster.url, method, path, body).error == code, (method, path[:40])


def test_dots_never_leave_the_root(cluster: Cluster) -> None:
    call(cluster.url, "PUT", "/fs/inside", b"in")
    for path in ("/fs/../inside", "/fs/../../../inside", "/fs/%2e%2e/inside", "/fs/./x/../inside", "/fs/..//inside"):
        answer = call(cluster.url, "HEAD", path)
        assert answer.status == (404 if "x" in path else 200), path
    link = call(cluster.url, "POST", "/fs/escape?op=symlink&to=../../../../etc")
    assert link.status == 201
    assert call(cluster.url, "HEAD", "/fs/escape/passwd").error == "ENOENT"
