"""What reaches the server, what is sent again, and how errors come out."""

from __future__ import annotations

import errno
import io
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dfslib.client.namenode import HttpNameNode
from dfslib.client.operations import format_time
from dfslib.client.remote_paths import target
from dfslib.errors import DfsError, IncompleteBody, NotEnoughDatanodes, NotFound, Unavailable
from dfslib.wire import routes
from dfslib.wire.messages import encode_error
from tests.unit.client.fake_cluster import FakeCluster, Fault
from tests.unit.client.fake_server import FakeServer, Reply, Seen, Serve
from tests.unit.client.fake_time import Connect, FakeTime


def refuse(error: DfsError) -> Reply:
    return Reply(error.http_status, encode_error(error), {"Content-Type": "application/json"})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


NAMES = [bytes([byte]) for byte in range(1, 256) if byte != ord("/")] + [
    b"..", b"...", b"a/../b", b"./x", b"x//y", b"%2F", b"%41%zz", b"a?b#c&d=e;f+g", b"new\nline\r", b"\xff\xfe",
    "😀 ü".encode(), b"trailing.", b" lead", b"a" * 255, b"~user", b"[x]{y}|^`\\\"<>",
]  # fmt: skip


def test_every_name_reaches_the_server_byte_for_byte(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    for name in NAMES:
        dfs.exists(b"/d/" + name)
    sent = [seen.target for seen in cluster.namenode.seen]
    assert sent == [routes.fs(b"/d/" + name) for name in NAMES]


def test_parameters_reach_the_server_byte_for_byte(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    for name in NAMES:
        with pytest.raises(FileNotFoundError):
            dfs.rename("/missing", b"/" + name)
    queries = [seen.target.partition("?")[2] for seen in cluster.namenode.seen]
    assert [query.partition("&to=")[2] for query in queries] == [routes.fs(name).removeprefix("/fs") for name in NAMES]


def test_an_environment_with_a_proxy_is_not_heeded(dfs: HttpNameNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    assert dfs.exists("/")


def test_paths_are_text_bytes_or_path_objects(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    for path in ("/a/ü", os.fsencode("a/ü"), type(tmp_path)("/a/ü")):
        assert not dfs.exists(path)
    assert {seen.target for seen in cluster.namenode.seen} == {"/fs/a/%C3%BC"}
    with pytest.raises(ValueError, match="null"):
        dfs.stat("/a\0b")
    with pytest.raises(FileNotFoundError):
        dfs.stat("")
    assert target("/") == "/fs/"


def test_errors_are_those_of_local_files(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.mkdir("/dir")
    cluster.put("/dir/file", b"x")
    cases: list[tuple[Callable[[], object], type[OSError], int]] = [
        (lambda: dfs.cat("/none"), FileNotFoundError, errno.ENOENT),
        (lambda: dfs.cat("/dir"), IsADirectoryError, errno.EISDIR),
        (lambda: dfs.tee("/dir", b""), IsADirectoryError, errno.EISDIR),
        (lambda: dfs.ls("/dir/file"), NotADirectoryError, errno.ENOTDIR),
        (lambda: dfs.mkdir("/dir"), FileExistsError, errno.EEXIST),
        (lambda: dfs.rmdir("/dir"), OSError, errno.ENOTEMPTY),
        (lambda: dfs.rmdir("/dir/file"), NotADirectoryError, errno.ENOTDIR),
        (lambda: dfs.rm("/dir"), IsADirectoryError, errno.EISDIR),
        (lambda: dfs.readlink("/dir/file"), OSError, errno.EINVAL),
    ]
    for call, kind, number in cases:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.errno == number
        assert caught.value.strerror == os.strerror(number)
        assert caught.value.filename in ("/none", "/dir", "/dir/file")


def test_two_names_of_an_error(dfs: HttpNameNode) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        dfs.mv("/none", "/there")
    assert (caught.value.filename, caught.value.filename2) == ("/none", "/there")


def test_a_server_that_starts_late_is_waited_for(connect: Connect, fake_time: FakeTime, serve: Serve) -> None:
    port = free_port()
    servers: list[FakeServer] = []

    def start() -> None:
        if not servers:
            servers.append(serve(lambda _: Reply(204), port))

    fake_time.on_sleep = start
    connect(f"http://127.0.0.1:{port}/").rm("/x", recursive=True)
    assert [seen.method for seen in servers[0].seen] == ["DELETE"]


def test_nobody_there_is_a_connection_error_after_the_time(connect: Connect, fake_time: FakeTime) -> None:
    url = f"http://127.0.0.1:{free_port()}/"
    with pytest.raises(ConnectionRefusedError, match=url):
        connect(url, timeout_s=30.0).df()
    assert fake_time.now == pytest.approx(30.0)
    assert fake_time.pauses[:3] == [0.05, 0.1, 0.2]
    assert max(fake_time.pauses) == 2.0


def test_a_lost_answer_is_asked_for_again_where_twice_is_once(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    lost = Reply(drop=True)
    cluster.faults = {("namenode", method): [lost, lost] for method in ("HEAD", "PUT", "GET")}
    dfs.tee("/f", b"content")
    assert dfs.exists("/f")
    assert dfs.cat("/f") == b"content"
    assert [seen.method for seen in cluster.namenode.seen] == ["PUT"] * 3 + ["HEAD"] * 3 + ["GET"] * 3
    assert all(seen.body == b"content" for seen in cluster.namenode.seen[:3])


def lose_the_answer(reply: Reply) -> Reply:
    """The request is done, and nobody hears of it."""
    return replace(reply, drop=True)


def request_ids(cluster: FakeCluster) -> list[str | None]:
    return [seen.headers.get("x-dfs-request-id") for seen in cluster.namenode.seen if seen.method != "HEAD"]


@pytest.mark.parametrize(
    "call",
    [
        lambda dfs: dfs.mkdir("/d"),
        lambda dfs: dfs.append("/f", b"x"),
        lambda dfs: dfs.append("/f", io.BytesIO(b"x")),
        lambda dfs: dfs.rename("/f", "/g"),
        lambda dfs: dfs.ln("/f", "/g"),
        lambda dfs: dfs.symlink("f", "/g"),
        lambda dfs: dfs.copy("/f", "/g"),
        lambda dfs: dfs.tee("/g", b"x", exclusive=True),
        lambda dfs: dfs.rm("/f"),
        lambda dfs: dfs.chmod("/f", 0o600),
    ],
)
def test_a_lost_answer_is_asked_for_again_with_the_same_id(
    dfs: HttpNameNode, cluster: FakeCluster, call: Callable[[HttpNameNode], object]
) -> None:
    cluster.put("/f", b"x")
    lost: list[Fault] = [lose_the_answer, Reply(drop=True), Reply(502, b"<html>", {"Content-Type": "text/html"})]
    cluster.faults = {("namenode", method): list(lost) for method in ("POST", "PUT", "DELETE")}
    call(dfs)
    ids = request_ids(cluster)
    assert len(ids) == 4
    assert len(set(ids)) == 1
    assert ids[0]
    if b"f" in cluster.data:
        assert cluster.data[b"f"] in (b"x", b"xx")


def test_each_call_has_an_id_of_its_own_and_reading_has_none(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    dfs.append("/f", b"x")
    dfs.append("/f", b"x")
    assert dfs.cat("/f") == b"xx"
    ids = request_ids(cluster)
    assert len(set(ids[:-1])) == len(ids) - 1
    assert ids[-1] is None


def test_a_change_is_not_repeated_when_the_namenode_may_have_forgotten_it(
    connect: Connect, cluster: FakeCluster, fake_time: FakeTime
) -> None:
    cluster.faults[("namenode", "POST")] = [lose_the_answer, *[Reply(drop=True)] * 10_000]
    with pytest.raises(ConnectionError, match="no answer from"):
        connect(cluster.namenode.url, timeout_s=36_000.0).mkdir("/d")
    assert fake_time.now < 600
    assert b"d" in cluster.attrs


@pytest.mark.parametrize("error", [NotEnoughDatanodes("none"), Unavailable("starting"), IncompleteBody("stalled")])
def test_an_answer_that_says_nothing_has_changed_allows_everything_again(
    dfs: HttpNameNode, cluster: FakeCluster, error: DfsError
) -> None:
    cluster.faults[("namenode", "POST")] = [refuse(error)]
    dfs.mkdir("/d")
    assert [seen.method for seen in cluster.namenode.seen] == ["POST", "POST"]


def test_a_proxys_error_page_says_nothing_about_the_request(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    page = Reply(502, b"<html>", {"Content-Type": "text/html"})
    cluster.faults[("namenode", "POST")] = [page] * 1000
    with pytest.raises(ConnectionError, match="502"):
        dfs.mkdir("/d")
    cluster.faults[("namenode", "HEAD")] = [page]
    assert dfs.exists("/")


def test_a_file_is_sent_again_from_where_it_was(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.faults[("namenode", "PUT")] = [Reply(drop=True)]
    file = io.BytesIO(b"skipped" + b"content" * 100_000)
    file.seek(7)
    dfs.tee("/f", file)
    assert [seen.body for seen in cluster.namenode.seen] == [b"content" * 100_000] * 2


def test_a_pipe_is_sent_in_chunks_and_once_only(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    dfs.tee("/f", Pipe(b"x" * 1_000_000))
    assert cluster.namenode.seen[0].headers["transfer-encoding"] == "chunked"
    assert cluster.data[b"f"] == b"x" * 1_000_000
    cluster.faults[("namenode", "PUT")] = [Reply(drop=True)]
    with pytest.raises(ConnectionError):
        dfs.tee("/f", Pipe(b"x"))
    assert len(cluster.namenode.seen) == 2


def test_a_source_that_fails_ends_the_upload_with_its_own_error(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise BrokenPipeError(errno.EPIPE, "the source's own")

    with pytest.raises(BrokenPipeError, match="the source's own"):
        dfs.tee("/f", io.BufferedReader(Broken()))
    assert not dfs.exists("/f")


def test_text_is_no_content(dfs: HttpNameNode) -> None:
    with pytest.raises(TypeError):
        dfs.tee("/f", "text")  # type: ignore[arg-type]  # it is refused
    with pytest.raises(TypeError):
        dfs.tee("/f", io.StringIO("text"))  # type: ignore[arg-type]  # it is refused


def test_many_threads_share_one_client(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", b"content")
    failures: list[BaseException] = []

    def work() -> None:
        try:
            assert all(dfs.cat("/f") == b"content" for _ in range(20))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_an_answer_of_something_else_is_told(connect: Connect, serve: Serve) -> None:
    with pytest.raises(OSError, match="did not answer as a namenode does"):
        connect(serve(lambda _: Reply(body=b"<html>hello")).url).df()
    with pytest.raises(OSError, match="no attributes"):
        connect(serve(lambda _: Reply()).url).stat("/")


def test_urls_are_checked() -> None:
    for url in ("localhost:8180", "ftp://host/", "http://", "http://host/?x"):
        with pytest.raises(ValueError, match="URL"):
            HttpNameNode(url)


def test_ping_asks_once(connect: Connect, serve: Serve, fake_time: FakeTime) -> None:
    assert not connect(f"http://127.0.0.1:{free_port()}/").ping_alive()
    assert not connect(serve(lambda _: refuse(Unavailable("starting"))).url).ping_alive()
    assert connect(serve(lambda _: Reply(body=b"{}")).url).ping_alive()
    assert not fake_time.pauses


def test_times_are_exact() -> None:
    assert format_time(1_700_000_000_123_456_789) == "1700000000.123456789"
    assert format_time(0) == "0.000000000"
    assert format_time(-1) == "-0.000000001"


def test_head_errors_come_from_the_header(connect: Connect, serve: Serve) -> None:
    error = NotFound()
    client = connect(serve(lambda _: Reply(404, b"", {"X-DFS-Error": error.code})).url)
    assert not client.exists("/x")


def test_half_a_head_is_no_answer(connect: Connect, cluster: FakeCluster) -> None:
    """Of `X-DFS-Size: 12345` only `X-DFS-Size: 12` may arrive."""
    cluster.put("/f", b"x" * 12345)
    with socket.create_connection(cluster.namenode.address) as upstream:
        upstream.sendall(b"HEAD /fs/f HTTP/1.1\r\n\r\n")
        answer = upstream.recv(65536)
    halves = [answer[:10], answer[: answer.index(b"12345") + 2], answer]

    def serve() -> None:
        for part in halves:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(part)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        assert connect(f"http://127.0.0.1:{listener.getsockname()[1]}/").stat("/f").size == 12345
        thread.join()


def test_a_namenode_that_is_silent_is_asked_again(connect: Connect, cluster: FakeCluster) -> None:
    """A small change is not waited for as long as a large upload's last block."""
    silent = threading.Event()
    answer = cluster.namenode.handler

    def handler(seen: Seen) -> Reply:
        if len(cluster.namenode.seen) == 1:
            silent.wait()
        return answer(seen)

    cluster.namenode.handler = handler
    try:
        connect(cluster.namenode.url, timeout_s=1.0).append("/f", b"x")
    finally:
        silent.set()
    assert cluster.data[b"f"] == b"x"
