"""From the build before to this one and back, process by process: nothing is lost, nothing fails, and after the end of
the upgrade the build before keeps away."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from dfslib.client.namenode import HttpNameNode
from dfslib.wire.features import NEWEST_LEVEL, VERSION
from tests.cluster.first_level import Mount, Written, cluster_of_folders, differences, load, unpack
from tests.cluster.plain_http import call
from tests.cluster.real_cluster import ROOT, Cluster, MakeCluster, Server, free_ports, wait_until
from tests.cluster.test_restore import healthy, metadata, wait_copied
from tests.deadline import DEADLINE_S


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the build before."""
    folder = tmp_path_factory.mktemp("build")
    unpack("build.tar.xz", folder)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Cluster]:
    """The folders of before, and nobody who has them yet."""
    cluster = cluster_of_folders(tmp_path / "cluster", DFS_CHECKPOINT_EVERY="1", DFS_SESSION_GRACE="20")
    try:
        yield cluster
    finally:
        cluster.stop()


def run(cluster: Cluster, sources: Path) -> None:
    """All of the cluster, by one build."""
    for server in cluster.servers:
        server.sources = sources
    cluster.start()


def replace(cluster: Cluster, server: Server, sources: Path) -> None:
    """One process, by another build."""
    server.stop()
    server.sources = sources
    server.start()
    cluster.wait_alive()


def require_whole(cluster: Cluster, *written: Written, without: str = "\0") -> None:
    """All that was ever written is there, and the cluster is healthy."""
    assert differences(cluster.url, without=without) == []
    for some in written:
        assert some.differences() == []
    wait_until(lambda: healthy(cluster), "every block has its copies, and no invariant is broken")


def lose_metadata(cluster: Cluster) -> None:
    """The datanodes have it all."""
    wait_copied(cluster)
    cluster.namenode.kill()
    shutil.rmtree(cluster.folder / "namenode")


def level(cluster: Cluster) -> int:
    return HttpNameNode(cluster.url).status().level


def volume_levels(cluster: Cluster) -> list[int]:
    return [json.loads((cluster.folder / f"data{n}" / "identity.json").read_text())["format"] for n in (1, 2, 3)]


def command(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(ROOT / "dfs.py"), *arguments, "--url", cluster.url]
    return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def finalize(cluster: Cluster) -> None:
    dfs = HttpNameNode(cluster.url)
    wait_until(lambda: dfs.upgrade_status().possible, "nobody stands in the way")
    done = command(cluster, "upgrade", "finalize", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("raised from level 1\n")
    wait_until(lambda: volume_levels(cluster) == [NEWEST_LEVEL] * 3, "the datanodes keep the level")


def test_a_new_cluster_begins_at_the_newest_level(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3)
    assert (level(cluster), volume_levels(cluster)) == (NEWEST_LEVEL, [NEWEST_LEVEL] * 3)
    status = HttpNameNode(cluster.url).upgrade_status()
    assert (status.possible, [node.version for node in status.nodes]) == (False, [VERSION] * 3)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 2, 3, 0)], ids=["the namenode first", "the namenode last"])
def test_rolled_one_by_one_old_and_new_work_together(made: Cluster, old: Path, order: Iterable[int]) -> None:
    run(made, old)
    with load(made.url) as written, Mount(old, made.url, "old:/mnt") as old_mount:
        assert old_mount.first == "mounted"
        with Mount(ROOT, made.url, "new:/mnt") as new_mount:
            assert new_mount.first == "mounted"
            for number in order:
                replace(made, made.servers[number], ROOT)
                for name, mount in (("old", old_mount), ("new", new_mount)):
                    mount.write(f"{name}-mount-{number}", f"{name}{number}")
                    written.files[f"/{name}-mount-{number}"] = f"{name}{number}".encode()
            new_mount.close()
        old_mount.close()
    require_whole(made, written)
    assert (level(made), volume_levels(made)) == (1, [1, 1, 1])


@pytest.mark.parametrize("lost", [False, True], ids=["whole", "without the metadata"])
def test_given_back_to_the_build_before_and_forward_again(made: Cluster, old: Path, lost: bool) -> None:
    """`lost`: the build before has only the copies that this one made."""
    made.namenode.env["DFS_SESSION_GRACE"] = "2"
    written = Written(made.url)
    run(made, ROOT)
    require_whole(made)
    written.some("/by-the-new")
    with Mount(ROOT, made.url, "new:/mnt") as mount:
        mount.write("mounted", "by-the-new")
        written.files["/mounted"] = b"by-the-new"
        replace(made, made.datanodes[0], ROOT)
        replace(made, made.namenode, ROOT)
        mount.write("mounted-later", "by-the-new")
        written.files["/mounted-later"] = b"by-the-new"
        mount.close()
    require_whole(made, written)
    assert (level(made), volume_levels(made)) == (1, [1, 1, 1])
    if lost:
        lose_metadata(made)
    made.stop()

    run(made, old)
    assert (metadata(made).restored_until is not None) == lost
    require_whole(made, written)
    written.some("/by-the-old-again")
    lose_metadata(made)
    made.namenode.start()
    made.wait_alive()
    assert metadata(made).restored_until is not None
    require_whole(made, written)
    made.stop()

    run(made, ROOT)
    require_whole(made, written)
    written.some("/by-the-new-again")
    finalize(made)
    assert level(made) == NEWEST_LEVEL
    written.some("/after-the-end")
    require_whole(made, written)


def test_copies_of_before_are_restored_and_stay_of_before(made: Cluster) -> None:
    shutil.rmtree(made.folder / "namenode")
    run(made, ROOT)
    require_whole(made, without="/deferred-")  # the last of it, which no copy had yet
    assert (level(made), volume_levels(made)) == (1, [1, 1, 1])


def test_who_is_in_the_way_is_named_and_nothing_is_changed(made: Cluster, old: Path) -> None:
    run(made, old)
    assert command(made, "upgrade", "status").stderr.endswith("is of a version without levels: update it first\n")
    replace(made, made.namenode, ROOT)
    replace(made, made.datanodes[0], ROOT)
    replace(made, made.datanodes[1], ROOT)
    made.datanodes[2].stop()
    dfs = HttpNameNode(made.url)
    away = next(node for node in dfs.status().nodes if node.url.rstrip("/") == made.datanodes[2].url)
    with Mount(old, made.url, "old:/mnt"):
        refused = call(made.url, "POST", "/cluster/upgrade")
        assert (refused.status, refused.error) == (400, "EINVAL")
        assert f"datanode {away.id[:8]} ({away.url}) does not know levels" in refused.json()["message"]
        assert "mount old:/mnt does not know levels, lock-generations: update it" in refused.json()["message"]
        done = command(made, "upgrade", "finalize", "--yes")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert "mount old:/mnt" in done.stderr
        shown = command(made, "upgrade", "status").stdout
        assert "not possible yet:" in shown
        assert VERSION in shown
        assert command(made, "upgrade", "finalize").returncode == 2, "nobody can be asked"
    assert (level(made), volume_levels(made)) == (1, [1, 1, 1])
    assert "to be finalized: level 1 of 2" in command(made, "status").stdout

    replace(made, made.namenode, ROOT)
    assert "has not joined since the namenode started" in call(made.url, "POST", "/cluster/upgrade").json()["message"]
    made.datanodes[2].sources = ROOT
    made.datanodes[2].start()
    made.wait_alive()
    assert not dfs.upgrade_status().possible, "the mount of before may still come back"
    made.namenode.env["DFS_SESSION_GRACE"] = "1"
    replace(made, made.namenode, ROOT)
    finalize(made)
    again = command(made, "upgrade", "finalize", "--yes", "--json")
    assert json.loads(again.stdout)["level"] == NEWEST_LEVEL
    assert call(made.url, "POST", "/cluster/upgrade").json()["possible"] is False
    assert "finalize" not in command(made, "status").stdout
    require_whole(made)


def test_after_the_end_the_build_before_is_refused_and_changes_nothing(made: Cluster, old: Path) -> None:
    made.namenode.env["DFS_SESSION_GRACE"] = "1"
    run(made, ROOT)
    finalize(made)
    written = Written(made.url)
    written.some("/after-the-end")

    with one_more_datanode(made, old) as stranger:
        wait_until(lambda: "update the datanode" in stranger.log.read_text(), "it is refused")
        assert len(HttpNameNode(made.url).status().nodes) == 3
    with Mount(old, made.url, "old:/mnt") as mount:
        assert mount.first.startswith("refused:")
        assert mount.first.endswith("update the mount")

    made.datanodes[0].stop()
    assert ended(made.datanodes[0], old) == (1, "the volume has format 2, this datanode knows 1")
    made.datanodes[0].sources = ROOT
    made.datanodes[0].start()
    made.wait_alive()
    wait_copied(made)
    made.namenode.stop()
    assert ended(made.namenode, old) == (1, "the metadata has format 2, this version knows 1")

    copies = {path.name for path in made.folder.glob("data*/metadata/*")}
    (made.folder / "namenode").rename(made.folder / "kept")
    made.namenode.start()
    wait_until(lambda: all("speaks protocol 2" in one.log.read_text() for one in made.datanodes), "all are refused")
    assert metadata(made).state == "waiting"
    assert "no datanode has come" in metadata(made).detail
    made.namenode.kill()
    shutil.rmtree(made.folder / "namenode")
    assert {path.name for path in made.folder.glob("data*/metadata/*")} == copies

    made.namenode.sources = ROOT
    made.namenode.start()
    made.wait_alive()
    assert metadata(made).restored_until is not None
    assert (level(made), volume_levels(made)) == (NEWEST_LEVEL, [NEWEST_LEVEL] * 3)
    require_whole(made, written)


def test_metadata_from_before_the_end_is_out_of_date(made: Cluster) -> None:
    """A folder that somebody kept and puts back: the datanodes have met the level since."""
    made.namenode.env["DFS_SESSION_GRACE"] = "1"
    run(made, ROOT)
    made.namenode.stop()
    shutil.copytree(made.folder / "namenode", made.folder / "kept")
    made.namenode.start()
    made.wait_alive()
    finalize(made)
    written = Written(made.url)
    written.some("/after-the-end")
    wait_copied(made)
    made.namenode.stop()
    shutil.rmtree(made.folder / "namenode")
    (made.folder / "kept").rename(made.folder / "namenode")
    made.namenode.start()
    wait_until(lambda: restored(made), "the newer metadata is restored")
    made.wait_alive()
    assert level(made) == NEWEST_LEVEL
    require_whole(made, written)


def restored(cluster: Cluster) -> bool:
    try:
        return metadata(cluster).restored_until is not None
    except OSError:
        return False


@contextlib.contextmanager
def one_more_datanode(cluster: Cluster, sources: Path) -> Iterator[Server]:
    """With an empty volume."""
    env = cluster.datanodes[0].env | {"DFS_FS_ROOT": str(cluster.folder / "extra"), "DFS_PORT": str(free_ports(1)[0])}
    server = Server("extra", cluster.folder, env)
    server.sources = sources
    server.start()
    try:
        yield server
    finally:
        server.stop()


def ended(server: Server, sources: Path) -> tuple[int, str]:
    """The exit status of a process that is to end by itself, and the end of its last line."""
    server.sources = sources
    server.start()
    assert server.process is not None
    status = server.process.wait(DEADLINE_S)
    return status, server.log.read_text().splitlines()[-1].rpartition(": ")[2]
