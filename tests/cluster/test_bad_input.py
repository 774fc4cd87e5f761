"""Bad input gets a clear error and changes nothing: each case looks at the tree before and after."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cluster.plain_http import Answer, call, read_file
from tests.cluster.real_cluster import Cluster, wait_until
from tests.deadline import DEADLINE_S


def tree(cluster: Cluster) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """All there is in /bad, and the totals."""
    df = call(cluster.url, "GET", "/cluster/df").json()
    totals = {name: df[name] for name in ("bytes", "files", "directories")}
    return call(cluster.url, "GET", "/fs/bad").json()["entries"], totals


@pytest.fixture(scope="module", autouse=True)
def something_to_lose(cluster: Cluster) -> None:
    assert call(cluster.url, "PUT", "/fs/bad/file?parents=true", b"precious").status == 201
    assert call(cluster.url, "PUT", "/fs/bad/dir/inner?parents=true", b"inner").status == 201


@pytest.fixture
def unchanged(cluster: Cluster) -> Iterator[None]:
    before = tree(cluster)
    yield
    assert tree(cluster) == before
    assert read_file(cluster.url, "/fs/bad/file").body == b"precious"


REFUSED = [
    ("POST", "/fs/bad/file?op=explode", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=mkdir&op=mkdir", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/x?op=mkdir&color=red", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/x?op=mkdir&mode=9", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/x?op=mkdir&parents=maybe", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=truncate", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=truncate&size=-1", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=truncate&size=1e9", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=truncate&size=99999999999999999999", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=setattr", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=setattr&uid=-1", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=setattr&mtime=yesterday", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=setattr&mtime=1e3", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=rename", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=rename&to=relative", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=rename&to=/bad/dir", b"", 409, "EISDIR"),
    ("POST", "/fs/bad/dir?op=rename&to=/bad/file", b"", 409, "ENOTDIR"),
    ("POST", "/fs/bad/dir?op=rename&to=/bad/dir/sub/dir", b"", 404, "ENOENT"),
    ("POST", "/fs/bad/dir?op=rename&to=/bad/dir/sub", b"", 400, "EINVAL"),
    ("POST", "/fs/?op=rename&to=/bad/root", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/none?op=rename&to=/bad/x", b"", 404, "ENOENT"),
    ("POST", "/fs/bad/file?op=link&to=/bad/dir", b"", 409, "EEXIST"),
    ("POST", "/fs/bad/dir?op=link&to=/bad/x", b"", 403, "EPERM"),
    ("POST", "/fs/bad/x?op=symlink", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/x/?op=symlink&to=file", b"", 404, "ENOENT"),
    ("POST", "/fs/bad/file?op=link&to=/bad/x/", b"", 404, "ENOENT"),
    ("POST", "/fs/bad/dir?op=copy&to=/bad/x", b"", 409, "EISDIR"),
    ("POST", "/fs/bad/file?op=copy&to=/bad/file", b"", 400, "EINVAL"),
    ("POST", "/fs/bad/dir?op=append", b"x", 409, "EISDIR"),
    ("POST", "/fs/bad/none?op=append", b"x", 404, "ENOENT"),
    ("POST", "/fs/bad/file?op=setxattr&name=nonsense", b"x", 400, "EINVAL"),
    ("POST", "/fs/bad/file?op=setxattr&name=user.dfs.replication", b"many", 400, "EINVAL"),
    ("PUT", "/fs/bad/dir", b"x", 409, "EISDIR"),
    ("PUT", "/fs/bad/x/", b"x", 409, "EISDIR"),
    ("PUT", "/fs/", b"x", 409, "EISDIR"),
    ("PUT", "/fs/bad/file/below", b"x", 409, "ENOTDIR"),
    ("PUT", "/fs/bad/file/below?parents=true", b"x", 409, "ENOTDIR"),
    ("PUT", "/fs/bad/x?replication=0", b"x", 400, "EINVAL"),
    ("PUT", "/fs/bad/x?replication=lots", b"x", 400, "EINVAL"),
    ("GET", "/fs/bad/file/", None, 409, "ENOTDIR"),
    ("GET", "/fs/bad/file/below", None, 409, "ENOTDIR"),
    ("GET", "/fs/bad/dir?limit=0", None, 400, "EINVAL"),
    ("GET", "/fs/bad/dir?limit=ten", None, 400, "EINVAL"),
    ("GET", "/fs/bad/file?limit=3", None, 409, "ENOTDIR"),
    ("DELETE", "/fs/bad/dir", None, 409, "ENOTEMPTY"),
    ("DELETE", "/fs/bad/file/", None, 409, "ENOTDIR"),
    ("DELETE", "/fs/", None, 400, "EINVAL"),
    ("PATCH", "/fs/bad/file", b"x", 405, "EINVAL"),
    ("GET", "/nowhere", None, 404, "ENOENT"),
    ("POST", "/cluster/join", b"{}", 400, "EINVAL"),
    ("POST", "/cluster/heartbeat", b"nonsense", 400, "EINVAL"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(
    cluster: Cluster, unchanged: None, method: str, path: str, body: bytes | None, status: int, code: str
) -> None:
    answer = call(cluster.url, method, path, body)
    assert (answer.status, answer.error) == (status, code), answer
    assert answer.json()["message"]


def send_raw(cluster: Cluster, head: str, body: bytes, *, cut_off: bool = True) -> bytes:
    """A request as it never should be, its end cut off or awaited; what came back."""
    parts = urlsplit(cluster.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=DEADLINE_S) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + body)
        if cut_off:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


@pytest.mark.parametrize("sent", [0, 1, 100_000, 3_000_000], ids=str)
@pytest.mark.parametrize("name", ["file", "new-file"])
def test_a_body_that_is_cut_off_changes_nothing(cluster: Cluster, unchanged: None, sent: int, name: str) -> None:
    head = f"PUT /fs/bad/{name} HTTP/1.1\nHost: x\nContent-Length: 5000000\n\n"
    answer = send_raw(cluster, head, b"x" * sent)
    assert b" 20" not in answer.split(b"\r\n")[0]


def test_a_chunked_body_that_is_cut_off_changes_nothing(cluster: Cluster, unchanged: None) -> None:
    head = "PUT /fs/bad/file HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n"
    answer = send_raw(cluster, head, b"5\r\nhello\r\n400000\r\nhalf")
    assert b" 20" not in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("length", ["-1", "abc", "5, 6", "99999999999999999999999"])
def test_a_wrong_content_length_is_refused(cluster: Cluster, unchanged: None, length: str) -> None:
    head = f"PUT /fs/bad/file HTTP/1.1\nHost: x\nContent-Length: {length}\n\n"
    answer = send_raw(cluster, head, b"hello", cut_off=False)
    assert answer.split(b"\r\n")[0].split()[1] == b"400"


def test_what_a_cut_off_upload_left_is_deleted(cluster: Cluster, unchanged: None) -> None:
    def blocks() -> int:
        return sum(node["blocks"] for node in call(cluster.url, "GET", "/cluster").json()["nodes"])

    wait_until(lambda: blocks() > 0, "the datanodes have told their blocks")
    before = blocks()
    send_raw(cluster, "PUT /fs/bad/file HTTP/1.1\nHost: x\nContent-Length: 150000000\n\n", b"x" * 140_000_000)
    wait_until(lambda: blocks() <= before, "the blocks of the upload are gone")


def test_one_of_many_clients_creates_a_name(cluster: Cluster) -> None:
    makers: list[tuple[Callable[[int], Answer], str]] = [
        (lambda n: call(cluster.url, "PUT", "/fs/race-of-files", b"%d" % n, If_None_Match="*"), "ECONDITION"),
        (lambda _: call(cluster.url, "POST", "/fs/race-of-directories?op=mkdir"), "EEXIST"),
    ]
    for make, code in makers:
        answers = in_parallel(8, make)
        assert sorted(answer.status for answer in answers)[0] == 201
        assert [answer.error for answer in answers if answer.status != 201] == [code] * 7


def in_parallel(count: int, fn: Callable[[int], Answer]) -> list[Answer]:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda n: answers.append(fn(n)), args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
