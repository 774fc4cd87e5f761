"""put, get, cp, walk and glob: trees, what is skipped, and what must never happen to the local disk."""
# ruff: noqa: PTH113, PTH114, PTH115, PTH118, PTH123, PTH207, PTH208, PTH211

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from dfslib.client.namenode import HttpNameNode
from dfslib.client.parallel import Stopped, Tally, run_all
from dfslib.client.transfers import TransferOptions
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.fake_server import Reply


def make_tree(top: Path) -> None:
    (top / "sub" / "empty").mkdir(parents=True)
    (top / "a").write_bytes(b"content of a")
    (top / "sub" / "b").write_bytes(b"b" * 300_000)
    os.symlink("a", top / "link")
    os.symlink("nowhere", top / "sub" / "broken")
    (top / "a").chmod(0o640)
    os.utime(top / "a", ns=(1, 1_600_000_000_123_456_789))


def snapshot(top: Path) -> dict[str, str | tuple[bytes, str, int] | None]:
    """Everything below `top`: targets of links, and content, modes and times of files."""
    found: dict[str, str | tuple[bytes, str, int] | None] = {}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            relative = os.path.relpath(path, top)
            found[relative] = os.readlink(path) if os.path.islink(path) else None
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    found[relative] = (file.read(), oct(info.st_mode), info.st_mtime_ns)
    return found


def test_a_tree_there_and_back(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    done: list[tuple[int, int, str]] = []
    dfs.put(source, "/t", progress=lambda *step: done.append(step))
    assert done[-1][:2] == (300_012, 300_012)
    assert cluster.attrs[b"t/a"].mode == 0o640
    assert cluster.attrs[b"t/a"].mtime_ns == 1_600_000_000_123_456_789
    assert cluster.attrs[b"t/link"].target == b"a"
    dfs.get("/t", tmp_path / "back")
    assert snapshot(tmp_path / "back") == snapshot(source)


def test_a_small_file_is_one_request_beside_the_look_at_its_place(
    dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(b"x")
    dfs.put(tmp_path / "f", "/f")
    assert [seen.method for seen in cluster.namenode.seen] == ["HEAD", "PUT"]


def test_a_file_goes_into_a_directory(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.mkdir("/d")
    (tmp_path / "f").write_bytes(b"x")
    dfs.put(tmp_path / "f", "/d")
    (tmp_path / "here").mkdir()
    dfs.get("/d/f", tmp_path / "here")
    assert (tmp_path / "here" / "f").read_bytes() == b"x"


def test_what_is_equal_is_skipped(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    dfs.put(source, "/t")
    dfs.get("/t", tmp_path / "back")
    cluster.namenode.seen.clear()
    dfs.put(source, "/t", skip_equal=True)
    dfs.get("/t", tmp_path / "back", skip_equal=True)
    assert not [seen for seen in cluster.namenode.seen if seen.method == "PUT"]
    assert len(cluster.datanode.seen) == 2
    (source / "a").write_bytes(b"CONTENT OF A")
    dfs.put(source, "/t", skip_equal=True)
    assert cluster.data[b"t/a"] == b"CONTENT OF A"


def test_one_failure_does_not_end_the_others(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make_tree(source)
    os.mkfifo(source / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
    (source / "sub" / "b").chmod(0)
    errors: list[OSError] = []
    dfs.upload([(str(source), b"/t")], TransferOptions(on_error=errors.append))
    kinds = {error.filename.rpartition("/")[2]: error.errno for error in errors}
    expected = {"fifo": errno.EOPNOTSUPP, "socket": errno.EOPNOTSUPP}
    if os.geteuid() != 0:
        expected["b"] = errno.EACCES
    assert kinds == expected
    assert cluster.data[b"t/a"] == b"content of a"


def test_a_missing_source_and_a_directory_without_recursion(dfs: HttpNameNode, tmp_path: Path) -> None:
    errors: list[OSError] = []
    options = TransferOptions(recursive=False, on_error=errors.append)
    dfs.upload([(str(tmp_path / "none"), b"/x"), (str(tmp_path), b"/y")], options)
    dfs.download([(b"/none", str(tmp_path / "x")), (b"/", str(tmp_path / "y"))], options)
    assert [error.errno for error in errors] == [errno.ENOENT, errno.EISDIR] * 2
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"../up", b"/etc/x", b""])
def test_a_name_from_a_server_never_leads_out_of_the_destination(
    dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path, name: bytes
) -> None:
    cluster.put("/t/ok", b"fine")
    cluster.mkdir("/t")

    def listing(reply: Reply) -> Reply:
        plain = b'"name":"ok"'
        assert plain in reply.body
        entry = reply.body.replace(plain, b'"name":"' + name + b'"', 1)
        reply.body = entry
        reply.headers["Content-Length"] = str(len(entry))
        return reply

    cluster.faults[("namenode", "GET")] = [listing]
    with pytest.raises(OSError) as caught:
        dfs.get("/t", tmp_path / "in")
    assert caught.value.errno == errno.EINVAL
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(tmp_path / "in") == []


def test_a_symbolic_link_in_the_destination_is_not_followed(
    dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    cluster.mkdir("/t")
    cluster.symlink(str(outside), "/t/way")
    cluster.symlink(str(outside / "file"), "/t/file")
    dfs.get("/t", tmp_path / "in")
    del cluster.attrs[b"t/way"], cluster.attrs[b"t/file"]
    cluster.mkdir("/t/way")
    cluster.put("/t/way/x", b"x")
    cluster.put("/t/file", b"content")
    errors: list[OSError] = []
    dfs.download([(b"/t", str(tmp_path / "in"))], TransferOptions(on_error=errors.append))
    assert [error.errno for error in errors] == [errno.EEXIST]
    assert os.listdir(outside) == []
    assert (tmp_path / "in" / "file").read_bytes() == b"content"
    assert not (tmp_path / "in" / "file").is_symlink()


def test_a_part_that_is_a_symbolic_link_is_not_followed(
    dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.put("/f", b"content")
    os.symlink(tmp_path / "elsewhere", tmp_path / ".f.dfs-part")
    with pytest.raises(OSError) as caught:
        dfs.get("/f", tmp_path / "f")
    assert caught.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()


def test_a_device_that_the_user_names_is_written_to_and_not_replaced(
    dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.put("/f", b"content")
    os.symlink("/dev/null", tmp_path / "null")
    dfs.get("/f", tmp_path / "null")
    assert not os.path.isfile("/dev/null")


def test_a_link_that_the_user_names_is_followed(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.put("/f", b"content")
    os.symlink(tmp_path / "real", tmp_path / "link")
    dfs.get("/f", tmp_path / "link")
    assert (tmp_path / "real").read_bytes() == b"content"
    assert (tmp_path / "link").is_symlink()


def test_an_interruption_leaves_no_parts(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    for number in range(20):
        cluster.put(f"/t/{number}", b"x" * 5_000_000)
    cluster.mkdir("/t")

    def interrupt(done: int, _total: int, _path: str) -> None:
        if done > 20_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dfs.get("/t", tmp_path / "in", progress=interrupt)
    assert not [name for name in os.listdir(tmp_path / "in") if name.startswith(".")]


def test_a_tree_is_copied_into_itself_only_with_an_error(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.mkdir("/t")
    for place in ("/t", "/t/x", "/t/x/y"):
        with pytest.raises(OSError) as caught:
            dfs.copy_tree("/t", place)
        assert caught.value.errno == errno.EINVAL


def test_mv_goes_into_a_directory_and_rename_does_not(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.mkdir("/d")
    cluster.put("/f", b"x")
    dfs.mv("/f", "/d")
    assert b"d/f" in cluster.attrs
    dfs.rename("/d/f", "/g")
    assert b"g" in cluster.attrs


def test_mkfs_deletes_everything(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    cluster.mkdir("/d")
    cluster.put("/d/f", b"")
    cluster.put("/" + "\udcff", b"")
    dfs.mkfs()
    assert list(cluster.attrs) == [b""]


def test_long_listings_come_in_pages(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    for number in range(2500):
        cluster.put(f"/{number:04}", b"")
    entries = dfs.ls("/")
    assert [str(entry) for entry in entries] == [f"{number:04}" for number in range(2500)]
    assert len(cluster.namenode.seen) == 3


def test_walk_is_os_walk(dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "sub" / "deeper").mkdir()
    (tmp_path / "sub" / "deeper" / "c").touch()
    os.symlink("sub", tmp_path / "tosub")
    dfs.put(tmp_path, "/")
    here = str(tmp_path)
    for topdown in (True, False):
        local = [(d[len(here) :] or "/", sorted(x), sorted(y)) for d, x, y in os.walk(here, topdown)]
        remote = [(d, sorted(x), sorted(y)) for d, x, y in dfs.walk("/", topdown)]
        assert sorted(local) == sorted(remote)
        assert remote.index(next(r for r in remote if r[0] == "/")) == (0 if topdown else len(remote) - 1)
    visited = []
    for directory, folders, _ in dfs.walk("/"):
        visited.append(directory)
        folders[:] = []
    assert visited == ["/"]
    seen: list[OSError] = []
    assert list(dfs.walk("/none", onerror=seen.append)) == []
    assert seen[0].errno == errno.ENOENT


@pytest.mark.parametrize(
    "pattern",
    ["*", "a*", "*/b", "s*/*", "**", "**/*", "**/c", "sub/**/c", "*/", "**/", "[a-l]*", ".*", "a", "none", "?"],
)
def test_glob_is_glob_glob(
    dfs: HttpNameNode, cluster: FakeCluster, tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import glob

    make_tree(tmp_path)
    (tmp_path / ".hidden").touch()
    (tmp_path / "sub" / "deeper").mkdir()
    (tmp_path / "sub" / "deeper" / "c").touch()
    dfs.put(tmp_path, "/")
    monkeypatch.chdir(tmp_path)
    for recursive in (True, False):
        assert sorted(dfs.glob(pattern, recursive=recursive)) == sorted(glob.glob(pattern, recursive=recursive))
    assert sorted(dfs.glob("/" + pattern)) == sorted("/" + path for path in glob.glob(pattern))


def test_the_first_failure_stops_the_others() -> None:
    tally = Tally(None)
    ran: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all([fail] + [lambda: ran.append(1)] * 100, 1, tally)
    assert not ran
    with pytest.raises(Stopped):
        tally.check()
