"""HttpNameNode and HttpDataNode against a real cluster."""

from __future__ import annotations

import errno
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfslib.model import BlockId
from http_client import HttpDataNode, HttpNameNode
from tests.cluster.real_cluster import Cluster, MakeCluster

NAMES = [bytes([byte]) for byte in range(1, 256) if byte not in (ord("/"), ord("."))] + [
    b"...", b"%2F", b"%41%zz", b"a?b#c&d=e;f+g", b"new\nline", b"\xff\xfe", "😀 ü".encode(), b"trailing.", b"a" * 255,
]  # fmt: skip


@pytest.fixture
def dfs(cluster: Cluster) -> Iterator[HttpNameNode]:
    with HttpNameNode(cluster.url) as client:
        yield client


@pytest.fixture
def here(dfs: HttpNameNode, request: pytest.FixtureRequest) -> bytes:
    """A directory of the test's own, as bytes."""
    path = b"/" + os.fsencode(request.node.originalname)
    dfs.mkdir(path)
    return path


def test_the_five_lines_of_a_script(cluster: Cluster) -> None:
    dfs = HttpNameNode(cluster.url)
    dfs.mkdir("/five/lines", parents=True)
    dfs.tee("/five/lines/hello", b"Hello, world!")
    assert [str(entry) for entry in dfs.ls("/five/lines")] == ["hello"]
    assert dfs.cat("/five/lines/hello") == b"Hello, world!"
    dfs.close()


def test_names_are_any_bytes(dfs: HttpNameNode, here: bytes) -> None:
    for name in NAMES:
        dfs.tee(here + b"/" + name, name)
    assert [os.fsencode(str(entry)) for entry in dfs.ls(here)] == sorted(NAMES)
    wrong = [name for name in NAMES if dfs.cat(here + b"/" + name) != name]
    assert wrong == []
    with pytest.raises(OSError) as caught:
        dfs.tee(here + b"/" + b"a" * 256, b"")
    assert caught.value.errno == errno.ENAMETOOLONG


def test_an_entry_is_the_file_that_was_listed_and_no_namesake(dfs: HttpNameNode, here: bytes) -> None:
    names = [name for name in NAMES if len(name) < 100]
    dfs.mkdir(here + b"/below")
    for name in names:
        dfs.tee(here + b"/" + name, b"kept")
        dfs.tee(here + b"/below/" + name, b"goes")
    dfs.symlink("below", here + b"/link")
    assert dfs.ls(here + b"/./link/../below//.") == dfs.ls(here + b"/link/../below")
    for entry in dfs.ls(here + b"/link/"):
        assert dfs.cat(entry) == b"goes"
        dfs.rm(entry, recursive=True)
    assert dfs.ls(here + b"/below") == []
    assert all(dfs.cat(here + b"/" + name) == b"kept" for name in names)


def test_dot_dot_is_the_servers_to_resolve(dfs: HttpNameNode, here: bytes) -> None:
    dfs.mkdir(here + b"/d")
    dfs.tee(here + b"/f", b"x")
    assert dfs.cat(here + b"/d/../f") == b"x"
    assert dfs.cat(b"/../../.." + here + b"/d/../f") == b"x"


def test_attributes(dfs: HttpNameNode, here: bytes) -> None:
    path = here + b"/f"
    info = dfs.tee(path, b"0123456789", mode=0o600)
    assert (info.size, info.mode, info.replicas) == (10, 0o600, 3)
    dfs.chmod(path, 0o751)
    dfs.chown(path, 5, -1)
    dfs.utime(path, ns=(1_000_000_001, 1_700_000_000_123_456_789))
    info = dfs.stat(path)
    assert (info.mode, info.uid, info.mtime_ns) == (0o751, 5, 1_700_000_000_123_456_789)
    assert dfs.truncate(path, 4).size == 4
    dfs.append(path, io.BytesIO(b"!"))
    assert dfs.cat(path) == b"0123!"
    dfs.setxattr(path, "user.ü %", b"\0value")
    assert dfs.listxattr(path) == ["user.ü %"]
    assert dfs.getxattr(path, "user.ü %") == b"\0value"
    dfs.removexattr(path, "user.ü %")
    with pytest.raises(OSError) as caught:
        dfs.getxattr(path, "user.ü %")
    assert caught.value.errno == errno.ENODATA


def test_links_copies_and_moves(dfs: HttpNameNode, here: bytes) -> None:
    dfs.tee(here + b"/f", b"x")
    dfs.ln(here + b"/f", here + b"/hard")
    dfs.symlink("f", here + b"/soft")
    assert dfs.stat(here + b"/hard").nlink == 2
    assert dfs.readlink(here + b"/soft") == "f"
    assert dfs.cat(here + b"/soft") == b"x"
    assert (dfs.stat(here + b"/soft").type, dfs.lstat(here + b"/soft").type) == ("file", "symlink")
    dfs.mkdir(here + b"/d/e", parents=True)
    dfs.cp(here + b"/f", here + b"/d")
    dfs.mv(here + b"/hard", here + b"/d/e")
    dfs.cp(here + b"/d", here + b"/copy")
    assert [(d[len(here) :], x, y) for d, x, y in dfs.walk(os.fsdecode(here + b"/copy"))] == [
        ("/copy", ["e"], ["f"]),
        ("/copy/e", [], ["hard"]),
    ]
    dfs.rm(here + b"/soft")
    assert dfs.exists(here + b"/f")
    dfs.rmdir(here + b"/d", force=True)
    assert not dfs.exists(here + b"/d")


def test_conditions(dfs: HttpNameNode, here: bytes) -> None:
    first = dfs.tee(here + b"/f", b"1", exclusive=True)
    with pytest.raises(FileExistsError):
        dfs.tee(here + b"/f", b"2", exclusive=True)
    dfs.tee(here + b"/f", b"3", if_match=first.etag)
    with pytest.raises(FileExistsError):
        dfs.tee(here + b"/f", b"4", if_match=first.etag)
    assert dfs.cat(here + b"/f") == b"3"


def test_file_objects(dfs: HttpNameNode, here: bytes) -> None:
    with dfs.open(here + b"/zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for number in range(50):
            archive.writestr(f"{number}", os.urandom(10_000))
    with dfs.open(here + b"/zip", "rb") as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 50
    with pytest.raises(ZeroDivisionError), dfs.open(here + b"/f", "w") as text:
        text.write("x" * 100_000)
        raise ZeroDivisionError
    assert not dfs.exists(here + b"/f")


def test_a_large_file_of_several_blocks(dfs: HttpNameNode, here: bytes, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 150
    (tmp_path / "big").write_bytes(data)
    steps: list[tuple[int, int, str]] = []
    dfs.put(tmp_path / "big", here + b"/big", progress=lambda *step: steps.append(step))
    assert steps[-1][:2] == (len(data), len(data))
    with dfs.open(here + b"/big", "rb") as file:
        file.seek((64 << 20) - 5)
        assert file.read(10) == data[(64 << 20) - 5 : (64 << 20) + 5]
    dfs.get(here + b"/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "back").stat().st_mtime_ns == (tmp_path / "big").stat().st_mtime_ns


def test_a_refused_upload_is_told_before_all_of_it_is_sent(dfs: HttpNameNode, here: bytes) -> None:
    dfs.tee(here + b"/f", b"")
    for path, kind in ((b"/none/f", FileNotFoundError), (b"/f/x", NotADirectoryError), (b"", IsADirectoryError)):
        with pytest.raises(kind):
            dfs.tee(here + path, bytes(50 << 20))


def test_sixteen_threads_share_one_client(dfs: HttpNameNode, here: bytes) -> None:
    failures: list[BaseException] = []

    def work(worker: int) -> None:
        try:
            for number in range(20):
                dfs.tee(here + b"/%d-%d" % (worker, number), b"%d" % number)
                assert dfs.cat(here + b"/%d-%d" % (worker, number)) == b"%d" % number
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(dfs.ls(here)) == 320


def test_the_cluster(dfs: HttpNameNode, cluster: Cluster) -> None:
    assert dfs.ping_alive()
    assert [node.state for node in dfs.status().nodes] == ["alive"] * 3
    assert dfs.df().nodes == 3
    assert dfs.fsck().healthy


def test_a_datanode(cluster: Cluster) -> None:
    with HttpDataNode(cluster.datanode_urls[0]) as node:
        assert node.ping_alive()
        assert not node.has_block(BlockId(1))
        with pytest.raises(FileNotFoundError):
            node.read_block(BlockId(1))
        assert "dfs_datanode" in node.metrics()


def test_reads_go_on_while_datanodes_die(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    with HttpNameNode(cluster.url) as dfs:
        data = os.urandom(1 << 20) * 40
        dfs.tee("/f", data)
        with dfs.open("/f", "rb") as file:
            head = file.read(1 << 20)
            for datanode in cluster.datanodes[:2]:
                datanode.kill()
            assert head + file.read() == data
        assert dfs.cat("/f") == data


def test_a_namenode_that_restarts_is_waited_for(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/f", b"content")
        cluster.namenode.kill()
        restart = threading.Thread(target=cluster.namenode.start)
        restart.start()
        assert dfs.cat("/f") == b"content"
        restart.join()


def test_mkfs(make_cluster: MakeCluster) -> None:
    with HttpNameNode(make_cluster(1).url) as dfs:
        dfs.mkdir("/a/b", parents=True)
        dfs.tee("/a/b/c", b"x")
        dfs.tee("/f", b"x")
        dfs.mkfs()
        assert dfs.ls() == []
