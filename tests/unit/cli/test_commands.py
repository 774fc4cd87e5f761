"""Each command against a fake cluster: output, errors in one line, exit status."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dfslib.cli.main import COMMANDS
from dfslib.client.namenode import HttpNameNode
from tests.unit.cli.command import Run
from tests.unit.client.fake_cluster import FakeCluster


def test_every_command_has_help_with_examples(run: Run) -> None:
    for command in COMMANDS:
        result = run(command.name, "--help")
        assert result.status == 0
        assert "examples:" in result.out
        assert command.summary.split()[0] in result.out.lower()


@pytest.mark.parametrize(
    "arguments", [[], ["ls", "--bad"], ["cat"], ["put", "x"], ["--url", "nonsense", "ls"], ["up", "--datanodes", "0"],
                  ["up", "--port", "70000"], ["ls", "--timeout", "-1"], ["mkdir", "-m", "9", "/x"], ["tree", "-L", "x"]]
)  # fmt: skip
def test_bad_usage_is_one_line_and_status_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.status == 2
    assert result.err.startswith("dfs: ")
    assert result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/mnt", "localhost", "0"], "port"),
        (["/mnt", "localhost", "x"], "whole number"),
        (["/mnt", "local host"], "no host"),
        (["/mnt", "ftp://localhost"], "no URL"),
        (["-o", "nonsense", "/mnt", "localhost"], "nonsense"),
        (["-o", "cache=1", "/mnt", "localhost"], "cache=1"),
        (["-o", "uid=-1", "/mnt", "localhost"], "uid=-1"),
        (["-o", "timeout=", "/mnt", "localhost"], "timeout="),
        (["--foreground", "/mnt"], "HOST"),
    ],
)
def test_a_mount_is_refused_before_anything_is_done(run: Run, arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert (result.status, result.err.count("\n")) == (2, 1)
    assert said.lower() in result.err.lower()


def test_a_wrong_url_in_the_environment_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFS_URL", "ftp://x")
    result = run("ls")
    assert (result.status, "DFS_URL" in result.err) == (2, True)


def test_url_may_stand_before_and_after_the_command(
    run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DFS_URL", "http://127.0.0.1:1/")
    url = cluster.namenode.url
    assert run("--url", url, "ls", "/").status == 0
    assert run("ls", "--url", url, "/").status == 0


def test_nobody_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
    monkeypatch.setenv("DFS_URL", url)
    result = run("--timeout", "0.05", "cat", "/a", "/b")
    assert (result.status, result.err) == (1, f"dfs: cannot reach {url}: Connection refused\n")


def test_errors_are_one_line_each_and_the_others_are_done(run: Run, cluster: FakeCluster) -> None:
    cluster.put("/b", b"content")
    result = run("cat", "/a", "/b", "/c\nd")
    assert (result.status, result.raw) == (1, b"content")
    assert result.err == ("dfs: /a: No such file or directory\ndfs: '/c'$'\\n''d': No such file or directory\n")


def test_ls(run: Run, cluster: FakeCluster) -> None:
    cluster.mkdir("/d")
    cluster.put("/d/b", b"12345", mtime_ns=10**18, uid=4_000_000, gid=4_000_001)
    cluster.put("/d/\udcff\n", b"")
    cluster.mkdir("/d/sub", mtime_ns=10**18)
    cluster.symlink("b", "/d/l")
    assert run("ls", "/d").raw == b"b\nl\nsub\n\xff\n\n"
    assert run("ls", "-d", "/d").raw == b"/d\n"
    assert run("ls", "/d/b", "/d/sub").out == "/d/b\n\n/d/sub:\n"
    lines = run("ls", "-l", "/d").out.split("\n")
    assert lines[0] == "total 1"
    assert lines[1].startswith("-rw-r--r-- 1 4000000 4000001 5 Sep")
    assert lines[1].endswith(" 2001 b")
    assert "lrwxrwxrwx" in lines[2]
    assert lines[2].endswith(" l -> b")
    assert lines[3].startswith("drwxr-xr-x")
    assert run("ls", "-R", "/").out.startswith("/:\nd\n\n/d:\nb\nl\nsub\n")
    entries = run("ls", "--json", "/d").json
    assert [entry["path"] for entry in entries] == ["/d/b", "/d/l", "/d/sub", "/d/\udcff\n"]
    assert (entries[0]["size"], entries[0]["mode"]) == (5, "0644")
    result = run("ls", "/none", "/d/b")
    assert (result.status, result.out, result.err) == (1, "/d/b\n", "dfs: /none: No such file or directory\n")


def test_stat_tree_du(run: Run, cluster: FakeCluster) -> None:
    cluster.mkdir("/d")
    cluster.put("/d/a", b"x" * 3000)
    cluster.put("/d/e/b", b"x" * 500)
    cluster.mkdir("/d/e")
    cluster.symlink("a", "/d/l")
    assert "  Size: 3000" in run("stat", "/d/a").out
    assert "/d/l -> a" in run("stat", "/d/l").out
    cluster.symlink("/d/a", "/l")
    assert run("stat", "-L", "--json", "/l").json[0]["size"] == 3000
    assert run("stat", "--json", "/d/a", "/none").status == 1
    expected = "/d\n├── a\n├── e\n│   └── b\n└── l -> a\n\n1 directory, 3 files\n"
    assert run("tree", "/d").out == expected
    assert "b" not in run("tree", "-L", "1", "/d").out
    tree = run("tree", "--json", "/").json
    assert tree[0]["entries"][0]["entries"][1]["entries"][0]["path"] == "/d/e/b"
    assert run("du", "/d").out == "1\t/d/e\n4\t/d\n"
    assert run("du", "-sb", "/d").out == "3500\t/d\n"
    assert run("du", "-sh", "/d", "/d/a").out == "3.5K\t/d\n3.0K\t/d/a\n"
    assert run("du", "--json", "/d").json == [{"path": "/d/e", "bytes": 500}, {"path": "/d", "bytes": 3500}]


def test_rm(run: Run, cluster: FakeCluster) -> None:
    cluster.mkdir("/d")
    cluster.put("/d/f", b"")
    cluster.put("/f", b"")
    result = run("rm", "/d", "/f", "/none")
    assert (result.status, b"f" in cluster.attrs) == (1, False)
    assert result.err == "dfs: /d: Is a directory\ndfs: /none: No such file or directory\n"
    assert run("rm", "-f", "/none").status == 0
    assert run("rm", "-rf", "/d").status == 0
    assert list(cluster.attrs) == [b""]


def test_mv_mkdir_ln(run: Run, cluster: FakeCluster) -> None:
    assert run("mkdir", "-m", "700", "/d").status == 0
    assert cluster.attrs[b"d"].mode == 0o700
    assert run("mkdir", "/d").err == "dfs: /d: File exists\n"
    cluster.put("/f", b"x")
    assert run("mv", "/f", "/d/").status == 0
    assert run("mv", "/d/f", "/g").status == 0
    assert run("ln", "-s", "../g", "/d").status == 0
    assert cluster.attrs[b"d/g"].target == b"../g"
    cluster.put("/h", b"x")
    result = run("mv", "/g", "/h", "/none")
    assert (result.status, result.err) == (1, "dfs: /none: No such file or directory\n")


def test_only_a_directory_gets_a_new_name_with_a_slash(
    run: Run, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As cp(1) and mv(1) have it: what is no directory, or is several, does not become one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f").write_bytes(b"f")
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("d")
    cluster.put("/f", b"f")
    cluster.mkdir("/d")
    cluster.symlink("d", "/l")
    before = dict(cluster.attrs)
    for command, new in ((["mv"], "/new/"), (["cp", "-r"], "/new/"), (["put", "-r"], "/new/"), (["get", "-r"], "new/")):
        root = "" if command[0] == "put" else "/"
        for sources in (["f"], ["l"], ["d", "d"]):
            result = run(*command, *(root + source for source in sources), new)
            assert (result.status, result.err) == (1, f"dfs: {new}: No such file or directory\n"), (command, sources)
        assert cluster.attrs == before
        missing = run(*command, f"{root}none", new)
        assert (missing.status, missing.err.startswith(f"dfs: {root}none")) == (1, True), missing
        assert "No such file or directory" in missing.err
    assert run("put", "-r", "d", "/put/").status == 0
    assert run("cp", "-r", "/d", "/copy/").status == 0
    assert run("get", "-r", "/d", "got/").status == 0
    assert run("mv", "/d", "/moved/").status == 0
    assert (tmp_path / "got").is_dir()
    assert {name for name, attr in cluster.attrs.items() if attr.is_dir} == {b"", b"put", b"copy", b"moved"}


def test_put_and_get(run: Run, cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src" / "sub").mkdir(parents=True)
    (tmp_path / "src" / "sub" / "f").write_bytes(b"content")
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    os.mkfifo(tmp_path / "src" / "fifo")
    cluster.mkdir("/d")
    assert run("put", "one", "two", "/d").status == 0
    assert cluster.data[b"d/two"] == b"2"
    result = run("put", "src", "none", "/d")
    assert (result.status, result.err) == (
        1, "dfs: src: Is a directory\ndfs: none: No such file or directory\n",
    )  # fmt: skip
    result = run("put", "-r", "src", "/d")
    assert (result.status, result.err) == (1, "dfs: src/fifo: not copied, it is a fifo\n")
    assert cluster.data[b"d/src/sub/f"] == b"content"
    assert run("put", "-r", "src/sub", "/new").status == 0
    assert cluster.data[b"new/f"] == b"content"
    assert run("put", "one", "two", "/none").err == "dfs: /none: No such file or directory\n"
    assert run("put", "one", "/d/two/").err == "dfs: /d/two/: Not a directory\n"
    sent = len([seen for seen in cluster.namenode.seen if seen.method == "PUT"])
    assert run("put", "one", "/d").status == 0
    assert len([seen for seen in cluster.namenode.seen if seen.method == "PUT"]) == sent
    assert run("put", "--force", "one", "/d").status == 0
    assert len([seen for seen in cluster.namenode.seen if seen.method == "PUT"]) == sent + 1
    assert run("get", "-r", "/d", "back").status == 0
    assert run("get", "-r", "/d", "back").status == 0
    assert (tmp_path / "back" / "src" / "sub" / "f").read_bytes() == b"content"
    assert (tmp_path / "back" / "d" / "two").read_bytes() == b"2"
    result = run("get", "/d", "/d/one", ".")
    assert (result.status, result.err) == (1, "dfs: /d: Is a directory\n")
    assert run("get", "/d/one", "copy").out == ""
    assert (tmp_path / "copy").read_bytes() == b"1"


def test_an_interruption_is_130_and_quiet(run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_dfs: HttpNameNode, _path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HttpNameNode, "touch", interrupt)
    result = run("touch", "/x")
    assert (result.status, result.out, result.err) == (130, "", "")


def test_names_on_a_terminal_are_quoted(run: Run, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.put("/a b", b"")
    cluster.put("/x\n", b"")
    monkeypatch.setattr("dfslib.cli.session.Session.on_terminal", True)
    assert run("ls", "-1").out == "'a b'\n'x'$'\\n'\n"
