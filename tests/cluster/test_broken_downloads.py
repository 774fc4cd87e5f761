"""Downloads go on at the byte where they broke: a datanode that dies or hangs, its own URL or one for all."""

from __future__ import annotations

import errno
import io
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from http_client import HttpNameNode
from tests.cluster.balancer import Balancer
from tests.cluster.real_cluster import ROOT, Cluster, MakeCluster, Server, wait_until

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SEED = random.randrange(1 << 32)
MIB = 1 << 20
SIZE_MIB = 72


def content(seed: int = 1) -> bytes:
    """More than any buffers between a datanode and a reader hold, and no part like another."""
    block = random.Random(seed).randbytes(MIB - 8)
    return b"".join(number.to_bytes(8, "big") + block for number in range(SIZE_MIB))


DATA = content()


class Breaking(io.BytesIO):
    """A sink that breaks something once it has got so many bytes."""

    def __init__(self, after: int, act: Callable[[], object]) -> None:
        super().__init__()
        self._after, self._act = after, act
        self.broken = False

    def write(self, data: ReadableBuffer) -> int:
        count = super().write(data)
        if not self.broken and self.tell() >= self._after:
            self.broken = True
            self._act()
        return count


def put_data(cluster: Cluster) -> None:
    """By a client that is as patient as usual: a slow disk is not what the tests of impatient ones are about."""
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/f", DATA)


def sender(cluster: Cluster, path: str = "/fs/f") -> Server:
    """The datanode that a reader of the file is sent to."""
    with HttpNameNode(cluster.url) as dfs:
        location = dfs._operations.transport.stream("GET", cluster.url[:-1] + path, {}).headers["Location"]
    return next(server for server in cluster.datanodes if location.startswith(server.url + "/"))


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[tuple[Cluster, Balancer]]:
    """Three datanodes of which clients know one URL for all."""
    print(f"seed {SEED}")
    cluster = Cluster(tmp_path, 3)
    balancer = Balancer([server.port for server in cluster.datanodes], random.Random(SEED))
    for server in cluster.datanodes:
        server.env["DFS_PUBLIC_URL"] = balancer.url
    try:
        cluster.start()
        yield cluster, balancer
    finally:
        balancer.close()
        cluster.stop()


def kill_the_sender(cluster: Cluster, balancer: Balancer) -> Server:
    """Whoever has answered last: the client may hold several connections, and the newest may lead to another one, or
    to one that is gone."""
    victim = next(server for server in cluster.datanodes if server.port == balancer.sender)
    assert victim.running(), f"{victim.name} is sending, and does not run"
    print(f"killed {victim.name} on port {victim.port}; connections went to {balancer.chosen}")
    victim.kill()
    return victim


def test_a_datanode_dies_in_the_middle_of_each_kind_of_download(
    make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(3)
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/f", DATA)
        killed = sender(cluster)
        sink = Breaking(20 * MIB, killed.kill)
        assert dfs.cat("/f", sink) == len(DATA)
        assert sink.broken
        assert sink.getvalue() == DATA
        killed.start()
        cluster.wait_alive(3)

        killed = sender(cluster)
        with dfs.open("/f", "rb") as file:
            head = file.read(40 * MIB)
            killed.kill()
            assert head + file.read() == DATA
        killed.start()
        cluster.wait_alive(3)

        killed = sender(cluster)
        done: list[int] = []

        def progress(count: int, _total: int, _path: object) -> None:
            if count >= 30 * MIB and not done:
                done.append(count)
                killed.kill()

        dfs.get("/f", tmp_path / "f", progress)
        assert done
        assert (tmp_path / "f").read_bytes() == DATA


def test_the_command_line_goes_on_too(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/f", DATA)
    command = [sys.executable, str(ROOT / "dfs.py"), "--url", cluster.url, "cat", "/f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        head = process.stdout.read(10 * MIB)
        sender(cluster).kill()
        assert head + process.stdout.read() == DATA
        assert process.wait() == 0


def test_a_datanode_that_hangs_is_left(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    put_data(cluster)
    with HttpNameNode(cluster.url, timeout_s=4) as dfs:
        hanging = sender(cluster)
        sink = Breaking(20 * MIB, hanging.pause)
        try:
            dfs.cat("/f", sink)
        finally:
            hanging.resume()
        assert sink.broken
        assert sink.getvalue() == DATA


def test_a_datanode_that_only_the_namenode_reaches_is_left(tmp_path: Path) -> None:
    """It is alive for the namenode, which names it again and again."""
    cluster = Cluster(tmp_path, 3)
    gates = [Balancer([server.port], random.Random(1), hold_after=25 * MIB) for server in cluster.datanodes]
    for server, gate in zip(cluster.datanodes[:2], gates, strict=False):
        server.env["DFS_PUBLIC_URL"] = gate.url
    try:
        cluster.start()
        put_data(cluster)
        with HttpNameNode(cluster.url, timeout_s=4) as dfs:
            assert dfs.cat("/f") == DATA
    finally:
        for gate in gates:
            gate.close()
        cluster.stop()


def test_behind_one_url_a_download_goes_on(balanced: tuple[Cluster, Balancer], tmp_path: Path) -> None:
    cluster, balancer = balanced
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/f", DATA)
        sink = Breaking(20 * MIB, lambda: kill_the_sender(cluster, balancer))
        dfs.cat("/f", sink)
        assert sink.broken
        assert sink.getvalue() == DATA
        for _ in range(5):
            assert dfs.cat("/f") == DATA
        dfs.get("/f", tmp_path / "f")
        assert (tmp_path / "f").read_bytes() == DATA
        assert len(set(balancer.chosen)) > 1


def test_behind_one_url_a_tree_is_got_while_a_datanode_dies(
    balanced: tuple[Cluster, Balancer], tmp_path: Path
) -> None:
    cluster, balancer = balanced
    numbers = random.Random(SEED)
    files = {f"{number % 5}/{number}": numbers.randbytes(numbers.choice([0, 3000, 700_000])) for number in range(60)}
    for name, data in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    done: list[int] = []

    def progress(count: int, total: int, _path: object) -> None:
        if count > total // 3 and not done:
            done.append(count)
            kill_the_sender(cluster, balancer)

    with HttpNameNode(cluster.url) as dfs:
        dfs.put(tmp_path / "tree", "/tree")
        dfs.get("/tree", tmp_path / "back", progress)
    assert done
    assert {name: (tmp_path / "back" / name).read_bytes() for name in files} == files


def test_behind_one_url_a_replaced_file_is_noticed(balanced: tuple[Cluster, Balancer], tmp_path: Path) -> None:
    cluster, balancer = balanced
    other = content(2)
    with HttpNameNode(cluster.url) as dfs:
        dfs.tee("/f", DATA)
        killed: list[Server] = []

        def replace() -> None:
            with HttpNameNode(cluster.url) as writer:
                writer.tee("/f", other)
            killed.append(kill_the_sender(cluster, balancer))

        sink = Breaking(20 * MIB, replace)
        with pytest.raises(OSError) as caught:
            dfs.cat("/f", sink)
        assert caught.value.errno == errno.ESTALE
        assert DATA.startswith(sink.getvalue())
        killed[0].start()
        cluster.wait_alive(3)
        done: list[int] = []

        def progress(count: int, _total: int, _path: object) -> None:
            if count >= 20 * MIB and not done:
                done.append(count)
                with HttpNameNode(cluster.url) as writer:
                    writer.tee("/f", DATA)
                kill_the_sender(cluster, balancer)
                cluster.wait_alive(2)

        dfs.get("/f", tmp_path / "f", progress)
        assert done
        assert (tmp_path / "f").read_bytes() == DATA


def test_an_upload_goes_on_when_a_datanode_dies(balanced: tuple[Cluster, Balancer]) -> None:
    cluster, _ = balanced
    victim = cluster.datanodes[1]

    class Source(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 30 * MIB and victim.running():
                victim.kill()
            return super().read(size)

    with HttpNameNode(cluster.url) as dfs:
        assert dfs.tee("/f", Source(DATA)).replicas == 2
        assert not victim.running()
        assert dfs.cat("/f") == DATA
        victim.start()
        cluster.wait_alive(3)
        wait_until(lambda: dfs.fsck().healthy, "the third copy is made")
        assert dfs.cat("/f") == DATA


def test_an_upload_waits_for_a_datanode_that_hangs_and_goes_on(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_STALL_TIMEOUT="7")
    hanging = cluster.datanodes[0]

    class Source(io.BytesIO):
        begun = 0

        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 0:
                Source.begun += 1
            if self.tell() > 30 * MIB:
                hanging.pause()
            return super().read(size)

    with HttpNameNode(cluster.url) as dfs:
        try:
            assert dfs.tee("/f", Source(DATA)).replicas == 2
        finally:
            hanging.resume()
        assert Source.begun == 1, "it was sent once"
        assert dfs.cat("/f") == DATA
