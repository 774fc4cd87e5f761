"""The namenode's folder is an older copy of itself, or two of them are in use: nothing newer is lost, and nothing is
acknowledged where it does not stay."""

from __future__ import annotations

import asyncio
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import requests

from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from tests.cluster.plain_http import call, read_file
from tests.cluster.real_cluster import Cluster, MakeCluster, Server, free_ports, wait_until
from tests.cluster.test_restore import detail, healthy, metadata, put, wait_copied, wait_open

Contents = dict[str, bytes]


def folder(cluster: Cluster, name: str = "namenode") -> Path:
    return cluster.folder / name


def write(cluster: Cluster, kind: str, count: int = 5) -> Contents:
    """Files of 3 KB that are on all datanodes, and in the copies of the metadata that these have."""
    written = {f"/{kind}/{number}": f"{kind} {number} ".encode() * 400 for number in range(count)}
    for path, data in written.items():
        put(cluster, path, data)
    wait_copied(cluster)
    return written


def keep(cluster: Cluster, name: str = "kept") -> None:
    """A copy of the folder of a namenode that does not run."""
    shutil.copytree(folder(cluster), folder(cluster, name))


def put_back(cluster: Cluster, name: str = "kept") -> None:
    shutil.rmtree(folder(cluster))
    shutil.copytree(folder(cluster, name), folder(cluster))


def stop_all(cluster: Cluster) -> None:
    """Datanodes last, so that they have all that was changed."""
    for server in cluster.servers:
        assert server.stop() == 0


def start_all(cluster: Cluster) -> None:
    for server in cluster.servers:
        server.start()
    wait_open(cluster)


def require(cluster: Cluster, contents: Contents) -> None:
    assert [path for path, data in contents.items() if read_file(cluster.url, f"/fs{path}").body != data] == []


def commit_more(path: Path, count: int) -> None:
    """As whoever serves an old copy does."""
    engine = LmdbEngine(path)
    for number in range(count):
        asyncio.run(engine.transact(lambda txn, number=number: txn.put(b"zz", b"%d" % number)))  # type: ignore[misc]
    engine.close()


@contextmanager
def asked_all_the_time(cluster: Cluster, *paths: str) -> Iterator[list[tuple[str, int]]]:
    """What a client is answered from the first moment on, other than that it has to wait."""
    answers: list[tuple[str, int]] = []
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.is_set():
            for method, path in (*(("HEAD", path) for path in paths), ("PUT", f"/window/{number}")):
                try:
                    answer = requests.request(
                        method, f"{cluster.url}fs{path}", data=b"x", timeout=10, allow_redirects=False,
                        params={"parents": "true"} if method == "PUT" else {},
                    )  # fmt: skip
                except requests.RequestException:
                    continue
                if answer.status_code != 503:
                    answers.append((path, answer.status_code))
                    number += 1

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        stop.set()
        asking.join()


@pytest.mark.parametrize("ahead", [0, 2000], ids=["its numbers are behind", "its numbers are ahead"])
def test_an_old_folder_is_given_up_before_anything_of_it_is_seen(make_cluster: MakeCluster, ahead: int) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    stop_all(cluster)
    keep(cluster)
    start_all(cluster)
    contents |= write(cluster, "after")
    assert call(cluster.url, "DELETE", "/fs/before/0").status == 204
    del contents["/before/0"]
    stop_all(cluster)
    put_back(cluster)
    if ahead:
        commit_more(folder(cluster), ahead)
    with asked_all_the_time(cluster, "/after/0", "/before/0") as answers:
        start_all(cluster)
        wait_until(lambda: len(answers) > 20, "it answers")
    assert {status for path, status in answers if path == "/after/0"} == {200}
    assert {status for path, status in answers if path == "/before/0"} == {404}
    acknowledged = {path: b"x" for path, status in answers if path.startswith("/window") and status in (200, 201)}
    assert acknowledged
    require(cluster, contents | acknowledged)
    assert list(folder(cluster).glob("outdated-*.checkpoint"))
    wait_until(lambda: healthy(cluster), "every block has its copies")


def test_a_folder_of_two_starts_ago(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "first")
    stop_all(cluster)
    keep(cluster)
    for kind in ("second", "third"):
        start_all(cluster)
        contents |= write(cluster, kind)
        stop_all(cluster)
    put_back(cluster)
    start_all(cluster)
    require(cluster, contents)


def test_a_copy_made_while_it_ran(make_cluster: MakeCluster) -> None:
    """As a virtual machine's disk is copied, and put back after it went on."""
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    cluster.namenode.pause()
    keep(cluster)
    cluster.namenode.resume()
    contents |= write(cluster, "after")
    cluster.namenode.kill()
    put_back(cluster)
    cluster.namenode.start()
    wait_open(cluster)
    require(cluster, contents)
    assert "behind the end of the metadata here" in cluster.namenode.log.read_text()


def test_ended_at_any_moment_it_is_given_up_all_the_same(make_cluster: MakeCluster) -> None:
    seed = time.time_ns()
    print(f"seed {seed}")
    chance = Random(seed)
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    assert cluster.namenode.stop() == 0
    keep(cluster)
    cluster.namenode.start()
    cluster.wait_alive()
    contents |= write(cluster, "after")
    cluster.namenode.kill()
    put_back(cluster)
    for words in ("serving", "waiting for datanodes", "out of date reason", "set aside", "a restore was", "serving"):
        seen = cluster.namenode.log.read_text().count(words)
        cluster.namenode.start()
        wait_until(
            lambda words=words, seen=seen: cluster.namenode.log.read_text().count(words) > seen or cluster.alive() > 0,  # type: ignore[misc]
            words,
            pause_s=0.005,
        )
        time.sleep(chance.uniform(0, 0.02))  # some point after it
        cluster.namenode.kill()
    cluster.namenode.start()
    wait_open(cluster)
    require(cluster, contents)
    assert list(folder(cluster).glob("outdated-*.checkpoint"))


def test_too_few_datanodes_are_waited_for_and_named(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1", DFS_DEAD_AFTER="3", DFS_SUSPECT_AFTER="1")
    contents = write(cluster, "file")
    for server in (cluster.namenode, *cluster.datanodes[1:]):
        server.kill()
    cluster.namenode.start()
    wait_until(lambda: "(1 so far)" in detail(cluster), "one has come")
    time.sleep(5)  # longer than DFS_DEAD_AFTER: a silence since the start is no death
    state = metadata(cluster)
    assert state.state == "waiting"
    assert "served when 2 of its 3 datanodes have shown" in state.detail
    for datanode in cluster.datanodes[1:]:
        assert f"at {datanode.url}" in state.detail
    assert f"start {cluster.datanodes[0].url}" not in state.detail
    assert (call(cluster.url, "GET", "/fs/").status, call(cluster.url, "PUT", "/fs/x", b"x").status) == (503, 503)
    assert call(cluster.url, "POST", "/cluster/open").status == 503
    assert call(cluster.url, "POST", "/cluster/restore").status == 400
    cluster.datanodes[2].start()
    cluster.wait_alive()
    require(cluster, contents)


def test_the_dead_are_not_waited_for(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1", DFS_DEAD_AFTER="3", DFS_SUSPECT_AFTER="1")
    contents = write(cluster, "file")
    for number in (2, 1):
        cluster.datanodes[number].kill()
        wait_until(
            lambda: cluster.namenode.log.read_text().count("datanodes are dead") == 3 - number,  # noqa: B023
            "it is written down",
        )
    cluster.namenode.kill()
    cluster.namenode.start()
    cluster.wait_alive()
    require(cluster, contents)
    for number in (1, 2):
        cluster.datanodes[number].start()
    cluster.wait_alive()
    cluster.namenode.kill()
    for datanode in cluster.datanodes[:2]:
        datanode.kill()
    cluster.namenode.start()
    wait_until(lambda: "(1 so far)" in detail(cluster), "they count again")
    cluster.datanodes[0].start()
    cluster.wait_alive()
    require(cluster, contents)


def test_opened_by_force_what_others_have_is_older(make_cluster: MakeCluster) -> None:
    """An old folder with a datanode that was away as long as it was; the others come when it has gone on."""
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1", DFS_MIN_REPLICAS="1")
    contents = write(cluster, "before")
    stop_all(cluster)
    keep(cluster)
    for server in (cluster.namenode, *cluster.datanodes[1:]):
        server.start()
    cluster.wait_alive()
    lost = write(cluster, "after")
    stop_all_but_the_first(cluster)
    put_back(cluster)
    cluster.namenode.start()
    cluster.datanodes[0].start()
    wait_until(lambda: "(1 so far)" in detail(cluster), "one has come")
    opened = call(cluster.url, "POST", "/cluster/open?force=true")
    assert (opened.status, opened.json()["metadata"]["state"], opened.json()["metadata"]["held"]) == (200, "open", True)
    assert call(cluster.url, "POST", "/cluster/open?force=true").status == 200
    cluster.wait_alive()
    put(cluster, "/since", b"since")
    for datanode in cluster.datanodes[1:]:
        datanode.start()
    cluster.wait_alive()
    require(cluster, contents | {"/since": b"since"})
    wait_until(lambda: not missing(cluster, lost), "what others were told of is in lost+found")
    wait_copied(cluster)
    cluster.namenode.kill()
    cluster.namenode.start()
    cluster.wait_alive()
    require(cluster, contents | {"/since": b"since"})


def stop_all_but_the_first(cluster: Cluster) -> None:
    for server in (cluster.namenode, *cluster.datanodes[1:]):
        assert server.stop() == 0


def missing(cluster: Cluster, contents: Contents) -> list[str]:
    """Of what is to be in lost+found."""
    return [path for path, data in contents.items() if not found(cluster, path, data)]


def found(cluster: Cluster, path: str, data: bytes) -> bool:
    name = f"/fs/lost+found{path}"
    return call(cluster.url, "HEAD", name).status == 200 and read_file(cluster.url, name).body == data


@contextmanager
def second_namenode(cluster: Cluster, name: str) -> Iterator[Server]:
    """On another machine, as it were, with a folder of its own."""
    environment = cluster.namenode.env | {"DFS_DB_PATH": str(folder(cluster, name)), "DFS_PORT": str(free_ports(1)[0])}
    environment.pop("DFS_NEW_CLUSTER", None)
    server = Server(name, cluster.folder, environment)
    try:
        yield server
    finally:
        if server.running():
            server.kill()


def move(datanode: Server, url: str) -> None:
    """As when a name leads to another namenode."""
    if datanode.running():
        datanode.kill()
    datanode.env["DFS_NAMENODE_URL"] = url
    datanode.start()


def test_of_two_copies_on_two_machines_the_one_with_most_datanodes_serves(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    stop_all(cluster)
    keep(cluster, "copy")
    with second_namenode(cluster, "copy") as copy:
        cluster.namenode.start()
        copy.start()
        for datanode in cluster.datanodes[:2]:
            datanode.start()
        move(cluster.datanodes[2], f"{copy.url}/")
        cluster.wait_alive(2)
        wait_until(lambda: "(1 so far)" in copy.log.read_text(), "the copy has heard one")
        contents |= {f"/after/{number}": b"after" for number in range(3)}
        for path in list(contents)[-3:]:
            put(cluster, path, b"after")
        assert call(f"{copy.url}/", "PUT", "/fs/there", b"x").status == 503
        assert call(f"{copy.url}/", "GET", "/fs/").status == 503
        assert "state=" not in copy.log.read_text()
        move(cluster.datanodes[2], cluster.url)
        cluster.wait_alive(3)
        require(cluster, contents)
        wait_copied(cluster)
        for datanode in cluster.datanodes[:2]:  # now the copy meets those who know better
            move(datanode, f"{copy.url}/")
        wait_until(lambda: "behind the end of" in copy.log.read_text(), "it finds that it is old")


def test_two_that_have_parted_are_a_case_for_a_person(make_cluster: MakeCluster) -> None:
    """Each of two copies had one of two datanodes, and both have acknowledged what the other has not."""
    cluster = make_cluster(2, DFS_CHECKPOINT_EVERY="1", DFS_MIN_REPLICAS="1")
    contents = write(cluster, "before")
    stop_all(cluster)
    keep(cluster, "copy")
    with second_namenode(cluster, "copy") as copy:
        cluster.namenode.start()
        copy.start()
        cluster.datanodes[0].start()
        move(cluster.datanodes[1], f"{copy.url}/")
        cluster.wait_alive(1)
        contents |= write(cluster, "here")
        wait_until(lambda: call(f"{copy.url}/", "PUT", "/fs/there", b"there").status == 201, "the copy serves, too")
        here, cluster.url = cluster.url, f"{copy.url}/"
        wait_copied(cluster)
        cluster.url = here
        copy.kill()
        move(cluster.datanodes[1], cluster.url)
        wait_until(lambda: refuses_one(cluster), "it is refused")
        assert cluster.alive() == 1
        require(cluster, contents)  # nothing has changed, and everything goes on
        put(cluster, "/here/later", b"later")
        cluster.namenode.kill()
        cluster.namenode.start()
        wait_until(lambda: refuses_one(cluster), "and again after a restart")
        cluster.wait_alive(1)
        require(cluster, contents | {"/here/later": b"later"})
        assert len(re.findall("datanode refused", cluster.namenode.log.read_text())) == 2, "said once a start"
        assert call(cluster.url, "POST", "/cluster/open?force=true").status == 200
        cluster.wait_alive(2)
        assert metadata(cluster).detail == ""
        require(cluster, contents | {"/here/later": b"later"})
        wait_until(lambda: found(cluster, "/there", b"there"), "the other's is found")


def refuses_one(cluster: Cluster) -> bool:
    return "which is not in the past of" in detail(cluster) and metadata(cluster).state == "open"


def test_what_another_namenode_brought_is_noticed_while_it_runs(make_cluster: MakeCluster) -> None:
    """A name that led to another namenode for a while: the datanode never noticed, nor had to join anew."""
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    names = [path.name for path in folder(cluster, "data1").glob("position-*")]
    epoch, number, run, chain = names[0].removeprefix("position-").split("-")
    later = f"{int(number) + 1000:020}"

    def bring(position: str) -> None:
        answer = call(
            cluster.datanodes[0].url, "PUT", "/metadata/x", b"", X_DFS_CRC32C="00000000", X_DFS_Position=position
        )
        assert answer.status in (200, 201)

    bring(f"{epoch}-{later}-{'f' * len(run)}-{chain}")
    wait_until(lambda: refuses_one(cluster), "it is refused")
    cluster.wait_alive(2)
    require(cluster, contents)
    assert call(cluster.url, "POST", "/cluster/open?force=true").status == 200
    cluster.wait_alive(3)
    bring(f"{epoch}-{later}-{run}-{chain}")  # of an epoch before by now
    contents |= write(cluster, "since")
    require(cluster, contents)
    assert cluster.alive() == 3


def test_an_empty_namenode_does_not_take_over_with_one_of_three(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    with second_namenode(cluster, "empty") as empty:
        empty.start()
        move(cluster.datanodes[2], f"{empty.url}/")
        wait_until(lambda: "names 3 datanodes" in empty.log.read_text(), "it says whom it waits for")
        contents |= {"/meanwhile": b"meanwhile"}
        put(cluster, "/meanwhile", b"meanwhile")
        assert call(f"{empty.url}/", "PUT", "/fs/there", b"x").status == 503
        wait_copied(cluster)
        cluster.namenode.kill()
        move(cluster.datanodes[1], f"{empty.url}/")
        wait_until(lambda: "metadata restored" in empty.log.read_text(), "two are most of three")
        cluster.url = f"{empty.url}/"
        cluster.wait_alive(2)
        require(cluster, contents)


def test_a_datanode_that_comes_late_opens_it(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    for server in cluster.servers:
        server.kill()
    shutil.rmtree(folder(cluster))
    del cluster.namenode.env["DFS_NEW_CLUSTER"]
    cluster.namenode.start()
    wait_until(lambda: "no datanode has come yet" in detail(cluster), "it waits for the first")
    assert "DFS_NEW_CLUSTER=true" in detail(cluster)
    cluster.datanodes[0].start()
    wait_until(lambda: "names 3 datanodes" in detail(cluster), "it waits for one more")
    cluster.datanodes[1].start()
    wait_open(cluster)
    require(cluster, contents)


def test_an_old_volume_of_a_datanode_changes_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(3, DFS_CHECKPOINT_EVERY="1")
    contents = write(cluster, "before")
    cluster.datanodes[0].kill()
    shutil.copytree(folder(cluster, "data1"), folder(cluster, "kept"))
    cluster.datanodes[0].start()
    cluster.wait_alive()
    contents |= write(cluster, "after")
    cluster.datanodes[0].kill()
    cluster.datanodes[0].start()  # a copy that has been started as often as the original is taken for a clone of it
    cluster.wait_alive()
    cluster.datanodes[0].kill()
    shutil.rmtree(folder(cluster, "data1"))
    (folder(cluster, "kept")).rename(folder(cluster, "data1"))
    cluster.datanodes[0].start()
    cluster.wait_alive()
    require(cluster, contents)
    wait_until(lambda: healthy(cluster), "it is filled")
    cluster.namenode.kill()
    cluster.namenode.start()
    cluster.wait_alive()
    require(cluster, contents)
    assert not list(folder(cluster).glob("outdated-*"))
