"""Downloads that break off, datanodes that are away, content that changes meanwhile."""
# ruff: noqa: PTH208

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dfslib.client.content import Content, ContentChanged
from dfslib.client.namenode import HttpNameNode
from dfslib.client.part_files import RESUME_FROM_BYTES, PartFile, part_name
from dfslib.wire.messages import ClusterBody, NodeBody, encode
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.fake_server import Reply, Serve
from tests.unit.client.fake_time import FakeTime

DATA = bytes(range(256)) * 40_000  # 10 MB


def cut(count: int) -> Callable[[Reply], Reply]:
    """Break the answer's body off after `count` bytes."""

    def fault(reply: Reply) -> Reply:
        reply.cut = count
        return reply

    return fault


def ranges(cluster: FakeCluster) -> list[str | None]:
    """As they were asked for, None for all of it."""
    return [seen.headers.get("range") for seen in cluster.datanode.seen]


def test_a_body_that_breaks_off_goes_on_where_it_broke(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    attr = cluster.put("/f", DATA)
    cluster.faults[("datanode", "GET")] = [cut(3_000_000), cut(1_000_000)]
    assert dfs.cat("/f") == DATA
    first, second, third = ranges(cluster)
    assert first is None
    assert second is not None
    assert third is not None
    assert 0 < int(second[6:-1]) <= 3_000_000 < int(third[6:-1]) <= 4_000_000
    etags = [seen.headers.get("if-range") for seen in cluster.datanode.seen]
    assert etags == [None, *[f'"{attr.ino:x}-{attr.version:x}"'] * 2]
    assert [seen.target for seen in cluster.namenode.seen].count("/fs/f") == 3


def test_a_datanode_that_is_away_is_replaced_by_another(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", DATA)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/files/1/1/x"
    cluster.faults[("namenode", "GET")] = [Reply(307, headers={"Location": nobody})] * 3
    assert dfs.cat("/f") == DATA


def test_an_error_of_a_datanode_is_asked_about_at_the_namenode(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", DATA)
    gone = Reply(404, b'{"error": "ENOENT", "message": "gone"}', {"Content-Type": "application/json"})
    cluster.faults[("datanode", "GET")] = [gone, Reply(500, b"oops")]
    assert dfs.cat("/f") == DATA


def test_a_datanode_that_always_refuses_is_an_error_soon(
    dfs: HttpNameNode, cluster: FakeCluster, fake_time: FakeTime
) -> None:
    cluster.put("/f", DATA)
    cluster.faults[("datanode", "GET")] = [Reply(500, b"oops")] * 100
    with pytest.raises(OSError) as caught:
        dfs.cat("/f")
    assert caught.value.errno == errno.EIO
    assert fake_time.now < 1


def test_content_that_changes_in_the_middle(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.put("/f", DATA)

    def replaced(reply: Reply) -> Reply:
        cluster.put("/f", b"new" * 1_000_000)
        return cut(2_000_000)(reply)

    cluster.faults[("datanode", "GET")] = [replaced]
    with pytest.raises(ContentChanged) as caught:
        dfs.cat("/f", io.BytesIO())
    assert caught.value.errno == errno.ESTALE
    cluster.put("/f", DATA)
    cluster.faults[("datanode", "GET")] = [replaced]
    assert dfs.cat("/f") == b"new" * 1_000_000
    cluster.put("/f", DATA)
    cluster.faults[("datanode", "GET")] = [replaced]
    seen: list[tuple[int, int]] = []
    dfs.get("/f", tmp_path / "f", progress=lambda done, total, path: seen.append((done, total)))
    assert (tmp_path / "f").read_bytes() == b"new" * 1_000_000
    assert os.listdir(tmp_path) == ["f"]
    assert seen[-1] == (3_000_000, 3_000_000)


def test_other_content_that_is_shorter_is_no_end(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", DATA)
    shorter = Reply(416, b"", {"ETag": '"other"', "Content-Range": "bytes */5"})
    cluster.faults[("datanode", "GET")] = [cut(3_000_000), shorter]
    with pytest.raises(ContentChanged):
        dfs.cat("/f", io.BytesIO())


def test_a_datanode_that_the_namenode_keeps_naming_is_passed_by(
    dfs: HttpNameNode, cluster: FakeCluster, serve: Serve
) -> None:
    cluster.put("/f", DATA)
    nodes = [
        NodeBody(str(number), "alive", url, url, 1, 0, 1, 0, 0.0, True)
        for number, url in enumerate((cluster.datanode_url, serve(cluster.datanode.handler).url))
    ]
    status = Reply(body=encode(ClusterBody("c", "1", 1, "all", 1, 1.0, 0, nodes)))
    named = cluster.namenode.handler
    cluster.namenode.handler = lambda seen: status if seen.target == "/cluster" else named(seen)
    broken = cluster.datanode.handler
    cluster.datanode.handler = lambda seen: Reply(500) if len(cluster.datanode.seen) < 100 else broken(seen)
    assert dfs.cat("/f") == DATA
    assert len(cluster.datanode.seen) == 1


def test_an_empty_file(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.put("/f", b"")
    assert dfs.cat("/f") == b""
    with dfs.open("/f", "rb") as file:
        assert file.read() == b""
        assert file.seek(0, io.SEEK_END) == 0
    dfs.get("/f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b""


def test_a_part_of_the_content(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", b"0123456789")
    content = Content(dfs._operations.transport, "/f")
    assert b"".join(content.pieces(2, 5)) == b"234"
    assert (content.size, b"".join(content.pieces(10))) == (10, b"")
    assert b"".join(content.pieces(8, 100)) == b"89"


def test_a_file_object_reads_seeks_and_goes_on_after_a_failure(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", DATA)
    cluster.faults[("datanode", "GET")] = [cut(100_000), cut(0)]
    with dfs.open("/f", "rb") as file:
        assert file.read(1000) == DATA[:1000]
        assert file.seek(-7, io.SEEK_END) == len(DATA) - 7
        assert file.read() == DATA[-7:]
        assert file.read(1) == b""
        assert file.seek(5_000_000) == 5_000_000
        assert file.read(10) == DATA[5_000_000:5_000_010]
        file.seek(0)
        assert file.read() == DATA
        assert file.seek(1, io.SEEK_END) == len(DATA) + 1
        assert file.read() == b""
        with pytest.raises((OSError, ValueError)):
            file.seek(-1)
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_reading_on_asks_for_ever_larger_ranges(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", DATA)
    with dfs.open("/f", "rb") as file:
        while file.read(65536):
            pass
    lengths = []
    for asked in ranges(cluster):
        assert asked is not None
        first, last = asked.removeprefix("bytes=").split("-")
        lengths.append(int(last) - int(first) + 1)
    assert lengths[0] == 256 << 10
    assert lengths == sorted(lengths)
    assert len(lengths) < 6
    assert len(cluster.namenode.seen) == 1


def test_a_file_object_stays_with_its_version(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", DATA)
    with dfs.open("/f", "rb") as file:
        file.read(10)
        cluster.put("/f", b"other" * 2_000_000)
        file.seek(5_000_000)
        with pytest.raises(OSError) as caught:
            file.read(10)
    assert caught.value.errno == errno.ESTALE


def test_text_is_read_line_by_line(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.put("/f", "grüße\nzwei\n".encode())
    with dfs.open("/f") as file:
        assert list(file) == ["grüße\n", "zwei\n"]


def test_opening_raises_what_open_raises(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.mkdir("/d")
    cluster.put("/f", b"")
    for path, mode, kind in (
        ("/none", "r", FileNotFoundError),
        ("/none/f", "w", FileNotFoundError),
        ("/f/x", "w", NotADirectoryError),
        ("/d", "r", IsADirectoryError),
        ("/d", "w", IsADirectoryError),
        ("/f", "x", FileExistsError),
        ("/f", "r+", io.UnsupportedOperation),
        ("/f", "rw", ValueError),
        ("/f", "", ValueError),
        ("/f", "rbt", ValueError),
    ):
        with pytest.raises(kind):
            dfs.open(path, mode)
    with pytest.raises(ValueError, match="encoding"):
        dfs.open("/f", "rb", encoding="utf-8")


def test_what_is_written_appears_at_close(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    with dfs.open("/f", "w", encoding="utf-16-le") as file:
        file.write("text")
        assert b"f" not in cluster.data
    assert cluster.data[b"f"] == "text".encode("utf-16-le")
    binary = dfs.open("/f", "wb")
    binary.write(b"x" * 10)
    binary.seek(2)
    binary.write(b"yy")
    binary.close()
    binary.close()
    assert cluster.data[b"f"] == b"xxyyxxxxxx"
    with dfs.open("/f", "ab") as binary:
        binary.write(b"!")
    with dfs.open("/new", "a") as file:
        file.write("made")
    assert (cluster.data[b"f"], cluster.data[b"new"]) == (b"xxyyxxxxxx!", b"made")


@pytest.mark.parametrize("mode", ["w", "wb", "x", "a"])
def test_an_exception_writes_nothing(dfs: HttpNameNode, cluster: FakeCluster, mode: str) -> None:
    with pytest.raises(ZeroDivisionError), dfs.open("/f", mode) as file:
        file.write(b"x" if "b" in mode else "x")
        raise ZeroDivisionError
    assert b"f" not in cluster.data


@pytest.mark.parametrize("mode", ["w", "wb"])
def test_an_object_that_is_dropped_writes_nothing_and_says_so(
    dfs: HttpNameNode, cluster: FakeCluster, mode: str
) -> None:
    file = dfs.open("/f", mode)
    file.write(b"x" if mode == "wb" else "x")
    with pytest.warns(ResourceWarning, match="nothing was written"):
        del file
    assert b"f" not in cluster.data


def test_append_makes_what_is_missing(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    dfs.append("/log", b"1")
    dfs.append("/log", io.BytesIO(b"2"))
    assert cluster.data[b"log"] == b"12"


def part_of(path: Path) -> Path:
    return path.with_name(os.fsdecode(part_name(os.fsencode(path.name))))


def test_a_large_download_is_resumed_by_the_next_one(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.put("/f", DATA)
    cluster.faults[("datanode", "GET")] = [cut(6_000_000)] + [Reply(500, b"")] * 4
    with pytest.raises(OSError):
        dfs.get("/f", tmp_path / "f")
    held = part_of(tmp_path / "f").stat().st_size
    assert RESUME_FROM_BYTES < held <= 6_000_000
    cluster.datanode.seen.clear()
    dfs.get("/f", tmp_path / "f")
    assert ranges(cluster) == [f"bytes={held}-"]
    assert (tmp_path / "f").read_bytes() == DATA
    assert os.listdir(tmp_path) == ["f"]


def test_a_part_of_other_content_is_not_resumed(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.put("/f", DATA)
    cluster.faults[("datanode", "GET")] = [cut(6_000_000)] + [Reply(500, b"")] * 4
    with pytest.raises(OSError):
        dfs.get("/f", tmp_path / "f")
    cluster.put("/f", DATA[::-1])
    cluster.datanode.seen.clear()
    dfs.get("/f", tmp_path / "f")
    assert ranges(cluster) == [None]
    assert (tmp_path / "f").read_bytes() == DATA[::-1]


def test_two_processes_that_fetch_the_same_file_do_not_mix(tmp_path: Path) -> None:
    first = PartFile(str(tmp_path / "f"), len(DATA), '"1"')
    second = PartFile(str(tmp_path / "f"), len(DATA), '"1"')
    assert first.resumable
    assert not second.resumable
    second.write(b"second")
    first.write(b"first")
    first.finish(0o4755, 1)
    assert (tmp_path / "f").read_bytes() == b"first"
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755
    second.remove()
    assert os.listdir(tmp_path) == ["f"]


def test_names_of_parts_fit() -> None:
    assert part_name(b"x") == b".x.dfs-part"
    assert len(part_name(b"x" * 255)) <= 255
    assert part_name(b"x" * 254 + b"y") != part_name(b"x" * 255)
