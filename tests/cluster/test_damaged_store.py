"""The namenode's store is damaged: it is found before anything of it is served or shipped, and restored."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from dfslib.namenode.verification.marker import Marker, write_marker
from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until
from tests.cluster.test_restore import healthy, metadata, put, wait_copied, wait_open

PAGE = 4096
FILES = {f"/d{number % 5}/f{number}": b"content of %d " % number * (number + 1) for number in range(40)}


def flip(count: int) -> Callable[[bytearray], None]:
    """Bits anywhere but in the meta pages, as many as leave none of the tree's pages out of danger."""

    def harm(data: bytearray) -> None:
        chance = random.Random(count)
        for _ in range(count):
            data[chance.randrange(2 * PAGE, len(data))] ^= 1 << chance.randrange(8)

    return harm


def zero_the_last_half(data: bytearray) -> None:
    half = len(data) // 2 // PAGE * PAGE
    data[half:] = bytes(len(data) - half)


def cut_in_half(data: bytearray) -> None:
    del data[len(data) // 2 // PAGE * PAGE :]


def change_names(data: bytearray) -> None:
    """One letter of each name, wherever it stands: every page and every record can be read."""
    for number in range(40):
        data[:] = data.replace(b"f%d" % number, b"g%d" % number)


def zero_the_metas(data: bytearray) -> None:
    data[: 2 * PAGE] = bytes(2 * PAGE)


def go_back_one_commit(data: bytearray) -> None:
    """The last commit's meta page says that it is an early one's."""
    place = 16 + 128
    numbers = [int.from_bytes(data[page * PAGE + place :][:8], "little") for page in (0, 1)]
    last = numbers.index(max(numbers))
    data[last * PAGE + place : last * PAGE + place + 8] = (max(numbers) % 2 + 2).to_bytes(8, "little")


def empty(data: bytearray) -> None:
    data.clear()


def random_bytes(data: bytearray) -> None:
    data[:] = random.Random(1).randbytes(len(data))


HARMS = [
    flip(2000),
    zero_the_last_half,
    cut_in_half,
    change_names,
    zero_the_metas,
    go_back_one_commit,
    empty,
    random_bytes,
]


def harm_store(cluster: Cluster, harm: Callable[[bytearray], None]) -> bytes:
    """What it is then."""
    path = cluster.folder / "namenode" / "data.mdb"
    data = bytearray(path.read_bytes())
    harm(data)
    path.write_bytes(data)
    return bytes(data)


def copies(cluster: Cluster) -> dict[Path, bytes]:
    found = {}
    for server in cluster.datanodes:
        for path in Path(server.env["DFS_FS_ROOT"]).glob("metadata/*"):
            found[path] = path.read_bytes()
    return found


def aside(cluster: Cluster) -> list[Path]:
    return sorted((cluster.folder / "namenode").glob("damaged-*"))


def require_everything(cluster: Cluster, files: dict[str, bytes]) -> None:
    wrong = {}
    for path, data in files.items():
        answer = read_file(cluster.url, f"/fs{path}")
        if (answer.status, answer.body) != (200, data):
            wrong[path] = answer.status
    assert wrong == {}


def harm_name(harm: Callable[[bytearray], None]) -> str:
    return harm.__qualname__.split(".")[0]


@pytest.mark.parametrize("harm", HARMS, ids=harm_name)
@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_damaged_while_it_was_down(make_cluster: MakeCluster, harm: Callable[[bytearray], None], end: str) -> None:
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1")
    for path, data in FILES.items():
        put(cluster, path, data)
    wait_copied(cluster)
    if end == "stopped":
        assert cluster.namenode.stop() == 0
    else:
        cluster.namenode.kill()
    before = copies(cluster)
    damaged = harm_store(cluster, harm)
    cluster.namenode.start()  # DFS_NEW_CLUSTER is set, as it well may be: this was a cluster
    wait_open(cluster)
    require_everything(cluster, FILES)
    assert [path.name for path in aside(cluster)] != []
    assert (aside(cluster)[0] / "data.mdb").read_bytes() == damaged
    assert "set aside in damaged-" in metadata(cluster).damage
    after = copies(cluster)
    lost = [path.name for path, data in before.items() if after.get(path) != data]
    assert [name for name in lost if name.startswith("checkpoint")] == []
    put(cluster, "/after", b"after")
    wait_copied(cluster)
    for _ in range(2):
        assert cluster.namenode.stop() == 0
        cluster.namenode.start()
        wait_open(cluster)
        require_everything(cluster, FILES | {"/after": b"after"})
    assert len(aside(cluster)) == 1
    assert healthy(cluster)


@pytest.mark.parametrize("harm", [flip(2000), zero_the_metas, empty, go_back_one_commit], ids=harm_name)
@pytest.mark.parametrize("copied", [True, False], ids=["copied before", "never copied"])
def test_what_no_datanode_was_told_yet_is_not_lost(
    make_cluster: MakeCluster, harm: Callable[[bytearray], None], copied: bool
) -> None:
    """Acknowledged in the last seconds before the process was killed, and the store damaged after that."""
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1" if copied else "3600")
    files = dict(FILES)
    for path, data in files.items():
        put(cluster, path, data)
    if copied:
        wait_copied(cluster)
        cluster.namenode.env["DFS_CHECKPOINT_EVERY"] = "3600"
        assert cluster.namenode.stop() == 0
        cluster.namenode.start()
        wait_open(cluster)
    for number in range(10):
        files[f"/new/{number}"] = b"%d" % number * 5000
        put(cluster, f"/new/{number}", files[f"/new/{number}"])
    assert call(cluster.url, "DELETE", "/fs/d0/f0").status == 204
    del files["/d0/f0"]
    assert call(cluster.url, "POST", "/fs/d1/f1?op=rename&to=/renamed").status in (200, 201)
    files["/renamed"] = files.pop("/d1/f1")
    cluster.namenode.kill()
    harm_store(cluster, harm)
    cluster.namenode.env["DFS_CHECKPOINT_EVERY"] = "1"
    cluster.namenode.start()
    wait_open(cluster)
    require_everything(cluster, files)
    assert call(cluster.url, "GET", "/fs/d0/f0").status == 404
    assert call(cluster.url, "GET", "/fs/d1/f1").status == 404
    assert len(aside(cluster)) == 1
    kept = cluster.folder / "namenode" / "recent"
    wait_until(lambda: not list(kept.iterdir()), "what is copied is not kept any longer")


def test_without_a_copy_it_waits_and_says_so(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(0)
    wait_until(lambda: cluster.alive() == 0 and metadata(cluster).state == "open", "a new cluster is begun")
    cluster.namenode.kill()
    harm_store(cluster, empty)
    for _ in range(2):
        cluster.namenode.start()
        wait_until(lambda: cluster.alive() == 0, "the namenode answers")
        found = metadata(cluster)
        assert (found.state, "set aside" in found.damage) == ("waiting", True)
        answer = call(cluster.url, "GET", "/healthz")
        assert (answer.status, answer.error) == (503, "EUNAVAILABLE")
        cluster.namenode.kill()
    assert len(aside(cluster)) == 1


def test_the_store_of_another_cluster(make_cluster: MakeCluster) -> None:
    cluster, other = make_cluster(1, DFS_CHECKPOINT_EVERY="1"), make_cluster(1)
    put(cluster, "/mine", b"mine")
    put(other, "/other", b"other")
    wait_copied(cluster)
    assert cluster.namenode.stop() == 0
    assert other.namenode.stop() == 0
    shutil.copy(other.folder / "namenode" / "data.mdb", cluster.folder / "namenode" / "data.mdb")
    cluster.namenode.start()
    wait_open(cluster)
    require_everything(cluster, {"/mine": b"mine"})
    assert call(cluster.url, "GET", "/fs/other").status == 404


@pytest.mark.parametrize("size", [0, 4096, 8192])
def test_an_interrupted_first_start(make_cluster: MakeCluster, size: int) -> None:
    """A namenode that was killed before anything was acknowledged does not wait for copies that nobody has."""
    cluster = make_cluster(0)
    folder = cluster.folder / "namenode"
    cluster.namenode.kill()
    shutil.rmtree(folder)
    folder.mkdir()
    write_marker(folder, Marker())
    (folder / "data.mdb").write_bytes(bytes(size))
    cluster.namenode.start()
    wait_until(lambda: cluster.alive() == 0 and metadata(cluster).state == "open", "a new cluster is begun")


def test_killed_again_and_again_while_a_damaged_store_is_restored(make_cluster: MakeCluster) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1")
    for path, data in FILES.items():
        put(cluster, path, data)
    wait_copied(cluster)
    cluster.namenode.kill()
    harm_store(cluster, zero_the_metas)
    for _ in range(4):
        cluster.namenode.start()
        wait_until(lambda: aside(cluster) or cluster.alive() == 2, "it is set aside", pause_s=0.001)
        try:
            wait_until(lambda: False, "some moment later", chance.uniform(0, 0.5))
        except AssertionError:
            cluster.namenode.kill()
    cluster.namenode.start()
    wait_open(cluster)
    require_everything(cluster, FILES)
    assert healthy(cluster)


def test_cut_off_while_it_runs(make_cluster: MakeCluster) -> None:
    """The next page that is not there ends the process; the start after that finds out, and does not end as well."""
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1")
    for path, data in FILES.items():
        put(cluster, path, data)
    wait_copied(cluster)
    os.truncate(cluster.folder / "namenode" / "data.mdb", 2 * PAGE)
    for path in FILES:
        try:
            requests.get(f"{cluster.url}fs{path}", timeout=10, allow_redirects=False)
        except requests.RequestException:
            break
    wait_until(lambda: not cluster.namenode.running(), "SIGBUS ends it")
    cluster.namenode.start()
    wait_open(cluster)
    require_everything(cluster, FILES)
    assert "Bus error" in (cluster.folder / "namenode" / "crash-last.txt").read_text()
    assert "Bus error" in cluster.namenode.log.read_text()
    assert len(aside(cluster)) == 1
    put(cluster, "/after", b"after")
    wait_copied(cluster)


def test_an_older_store_is_put_over_the_one_that_is_open(make_cluster: MakeCluster) -> None:
    """The next write finds that it does not go on from what was committed last."""
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1")
    store = cluster.folder / "namenode" / "data.mdb"
    put(cluster, "/old", b"old")
    older = store.read_bytes()
    for path, data in FILES.items():
        put(cluster, path, data)
    wait_copied(cluster)
    with store.open("r+b") as file:
        file.write(older)
    answer = call(cluster.url, "PUT", "/fs/late", b"late")
    assert (answer.status, answer.error) == (503, "EUNAVAILABLE")
    # By what datanodes have, or sooner by what is kept beside the store, if that has a commit that they have not.
    wait_until(
        lambda: any(store.parent.glob("outdated-*")) or any(store.parent.glob("damaged-*")),
        "it is found to be an older one, and set aside",
    )
    wait_open(cluster)
    require_everything(cluster, FILES | {"/old": b"old"})
    assert call(cluster.url, "GET", "/fs/late").status == 404
