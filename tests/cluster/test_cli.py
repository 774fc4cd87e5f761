"""The command line as processes, against a real cluster; and `up`, which makes one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import requests

from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import ROOT, Cluster, MakeCluster, alive_datanodes, free_ports, wait_until
from tests.deadline import DEADLINE_S

DFS = [sys.executable, str(ROOT / "dfs.py")]


class Dfs(Protocol):
    """Runs a command in the test's own folder."""

    def __call__(self, *arguments: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]: ...


@pytest.fixture
def dfs(cluster: Cluster, tmp_path: Path) -> Dfs:
    def run(*arguments: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*DFS, *arguments],
            env={**os.environ, "DFS_URL": cluster.url},
            cwd=tmp_path,
            capture_output=True,
            check=False,
            input=input,
        )

    return run


def tree(top: Path) -> dict[str, Path | tuple[str, int, bytes | None]]:
    """Everything below `top`: modes, times, targets, content."""
    found: dict[str, Path | tuple[str, int, bytes | None]] = {}
    for path in sorted(top.rglob("*")):
        info = path.lstat()
        if path.is_symlink():
            found[str(path.relative_to(top))] = path.readlink()
        else:
            content = path.read_bytes() if path.is_file() else None
            found[str(path.relative_to(top))] = (oct(info.st_mode), info.st_mtime_ns, content)
    return found


def test_a_source_tree_there_and_back(dfs: Dfs, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name in ("json", "email", "asyncio"):
        subprocess.run(["cp", "-a", str(Path(json.__file__).parent.parent / name), str(tmp_path / "src")], check=True)
    odd = tmp_path / "src" / os.fsdecode(b"odd \xff\n%2F ?#")
    odd.write_bytes(b"odd")
    odd.chmod(0o751)
    (tmp_path / "src" / "empty").mkdir()
    (tmp_path / "src" / "link").symlink_to("json/__init__.py")
    (tmp_path / "src" / "broken").symlink_to("nowhere")
    before = tree(tmp_path / "src")
    put = dfs("put", "-r", "src", "/")
    assert (put.returncode, put.stdout, put.stderr) == (0, b"", b"")
    get = dfs("get", "-r", "/src", "back")
    assert (get.returncode, get.stdout, get.stderr) == (0, b"", b"")
    assert tree(tmp_path / "back") == before
    copy = dfs("cp", "-r", "/src", "/src-copy")
    assert (copy.returncode, copy.stderr) == (0, b"")
    listed = [dfs("ls", "-R", "--json", path).stdout for path in ("/src", "/src-copy")]
    kept = [[(e["name"], e["type"], e["mode"], e["size"]) for e in json.loads(text)] for text in listed]
    assert kept[0] == kept[1]
    assert len(kept[0]) == len(before)


def test_a_pipe_in_and_out(dfs: Dfs) -> None:
    assert dfs("put", "-", "/piped", input=b"x" * 3_000_000).returncode == 0
    assert dfs("cat", "/piped").stdout == b"x" * 3_000_000


def test_a_reader_that_goes_away(cluster: Cluster, dfs: Dfs) -> None:
    assert dfs("put", "-", "/long", input=b"x\n" * 3_000_000).returncode == 0
    with subprocess.Popen(
        [*DFS, "--url", cluster.url, "cat", "/long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(2) == b"x\n"
        process.stdout.close()
        assert process.wait() == 141


def test_the_other_commands(dfs: Dfs) -> None:
    assert dfs("mkdir", "-p", "/other/deep").returncode == 0
    assert dfs("touch", "/other/f").returncode == 0
    assert dfs("ln", "-s", "f", "/other/s").returncode == 0
    assert dfs("ln", "/other/f", "/other/h").returncode == 0
    assert dfs("tree", "/other").stdout.decode().splitlines()[-1] == "1 directory, 3 files"
    assert dfs("mv", "/other/h", "/other/deep").returncode == 0
    assert dfs("ls", "/other/deep").stdout == b"h\n"
    assert json.loads(dfs("stat", "--json", "/other/f").stdout)[0]["nlink"] == 2
    assert json.loads(dfs("df", "--json").stdout)["nodes"] == 3
    assert dfs("df", "-h").stdout.startswith(b"Filesystem")
    assert dfs("status").stdout.count(b"alive") == 4
    assert dfs("fsck").returncode == 0
    removed = dfs("rm", "/other")
    assert (removed.returncode, removed.stderr) == (1, b"dfs: /other: Is a directory\n")
    assert dfs("rm", "-r", "/other").returncode == 0
    missing = dfs("ls", "/other")
    assert (missing.returncode, missing.stderr) == (1, b"dfs: /other: No such file or directory\n")


def test_a_datanode_is_drained_stopped_and_forgotten(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_REPLICATION="1", DFS_DEAD_AFTER="6")
    files = {f"/f{number}": os.urandom(20_000 + number) for number in range(12)}
    for path, data in files.items():
        assert call(cluster.url, "PUT", f"/fs{path}", data).status == 201
    leaving = cluster.datanodes[0]
    refused = ask(cluster.url, "forget", leaving.url)
    assert (refused.returncode, b"stop it first" in refused.stderr) == (1, True)
    waited = ask(cluster.url, "drain", "--wait", leaving.url, timeout=DEADLINE_S)
    assert (waited.returncode, waited.stderr) == (0, b"")
    assert b"safe to remove" in waited.stdout
    assert b"draining, safe to remove" in ask(cluster.url, "status").stdout
    again = ask(cluster.url, "drain", leaving.url)
    assert b"safe to remove" in again.stdout
    assert leaving.stop() == 0
    wait_until(lambda: b"draining" not in call(cluster.url, "GET", "/cluster").body, "it is gone")
    assert b"draining" not in ask(cluster.url, "status").stdout
    forgotten = ask(cluster.url, "forget", leaving.url)
    assert (forgotten.returncode, forgotten.stderr) == (0, b"")
    nodes = json.loads(ask(cluster.url, "status", "--json").stdout)["nodes"]
    assert len(nodes) == 2
    assert {path: read_file(cluster.url, f"/fs{path}").body for path in files} == files
    assert ask(cluster.url, "fsck").returncode == 0
    other = nodes[0]["id"]
    assert ask(cluster.url, "drain", other[:8]).returncode == 0
    assert ask(cluster.url, "drain", other[:8], "--cancel").returncode == 0
    assert all(node["to_move"] is None for node in json.loads(ask(cluster.url, "status", "--json").stdout)["nodes"])


class Up:
    """`dfs up` on free ports."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port = free_ports(4)[0]
        self.url = f"http://127.0.0.1:{self.port}/"
        self.log = folder / "up.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*DFS, "up", "--data", str(folder / "data"), "--port", str(self.port), *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        self.output = self.process.stdout

    def lines(self) -> list[str]:
        return [self.output.readline().decode() for _ in range(3)]

    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def end(self) -> None:
        with self.process:
            if self.process.poll() is None:
                self.process.kill()


class StartUp(Protocol):
    """Starts `dfs up` with these arguments."""

    def __call__(self, *arguments: str) -> Up: ...


@pytest.fixture
def up(tmp_path: Path) -> Iterator[StartUp]:
    """What still runs at the end is killed."""
    running: list[Up] = []

    def start(*arguments: str) -> Up:
        running.append(Up(tmp_path, *arguments))
        return running[-1]

    yield start
    for process in running:
        process.end()


def ask(
    url: str, *arguments: str, input: bytes | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [*DFS, "--url", url, *arguments]
    return subprocess.run(command, capture_output=True, check=False, input=input, timeout=timeout)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_up_serves_stops_and_finds_its_files_again(up: StartUp) -> None:
    first = up("--datanodes", "2")
    lines = first.lines()
    assert [word in line for word, line in zip(("curl", "dfs.py", "HttpNameNode"), lines, strict=True)] == [True] * 3
    assert all(first.url in line for line in lines)
    assert alive_datanodes(first.url) == 2
    assert ask(first.url, "put", "-", "/kept", input=b"kept").returncode == 0
    children = first.children()
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(DEADLINE_S) == 0
    assert first.output.read() == b""
    assert not any(alive(pid) for pid in children)
    assert "ERROR" not in first.log.read_text()
    second = up("--datanodes", "2")
    second.lines()
    assert ask(second.url, "cat", "/kept").stdout == b"kept"
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(DEADLINE_S) == 0


def test_up_goes_on_without_a_datanode_and_tells(up: StartUp) -> None:
    cluster = up("--datanodes", "2")
    cluster.lines()
    assert ask(cluster.url, "put", "-", "/f", input=b"content").returncode == 0
    datanode = next(pid for pid in cluster.children() if b"data_node" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(datanode, signal.SIGKILL)
    wait_until(lambda: "was killed by SIGKILL" in cluster.log.read_text(), "the death is told")
    assert ask(cluster.url, "cat", "/f").stdout == b"content"
    cluster.process.send_signal(signal.SIGINT)
    assert cluster.process.wait(DEADLINE_S) == 1


def test_children_die_with_up(up: StartUp) -> None:
    cluster = up("--datanodes", "1")
    cluster.lines()
    children = cluster.children()
    assert len(children) == 2
    cluster.process.kill()
    wait_until(lambda: not any(alive(pid) for pid in children), "the children end")


def test_up_on_a_port_that_is_taken(up: StartUp, cluster: Cluster, tmp_path: Path) -> None:
    result = subprocess.run(
        [*DFS, "up", "--data", str(tmp_path / "other"), "--port", str(cluster.namenode.port)],
        capture_output=True,
        check=False,
    )
    assert result.returncode == 1
    assert (
        result.stderr.decode() == f"dfs: port {cluster.namenode.port} on 127.0.0.1 (for namenode) is already in use\n"
    )


def test_up_when_a_process_cannot_start(up: StartUp, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data1").write_text("a file where a folder belongs")
    cluster = up("--datanodes", "1")
    assert cluster.process.wait(DEADLINE_S) == 1
    assert "data1 ended with exit status" in cluster.log.read_text()


def test_an_interrupted_get_leaves_nothing(cluster: Cluster, dfs: Dfs, tmp_path: Path) -> None:
    assert dfs("put", "-", "/interrupted", input=b"").returncode == 0
    cut = {"op": "truncate", "size": str(8 << 30)}  # zeros for several seconds, whatever the disk does
    requests.post(f"{cluster.url}fs/interrupted", params=cut, timeout=DEADLINE_S).raise_for_status()
    (tmp_path / "out").mkdir()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and all they start
    with subprocess.Popen(
        [*DFS, "--url", cluster.url, "get", "/interrupted", str(tmp_path / "out")], stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: any((tmp_path / "out").iterdir()) or process.poll() is not None, "the part appears")
        process.send_signal(signal.SIGINT)
        status = process.wait()
        assert process.stderr is not None
        assert (status, process.stderr.read()) == (130, b"")
    assert list((tmp_path / "out").iterdir()) == []
