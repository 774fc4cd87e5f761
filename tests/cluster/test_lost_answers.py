"""Answers that are lost on their way: each change is done once, whatever point its connection is cut at."""

from __future__ import annotations

import io
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dfslib.client.retrying import Timing
from http_client import HttpNameNode
from tests.cluster.cutting_proxy import Cut, CuttingProxy
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until

Change = Callable[[HttpNameNode, str], object]


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[CuttingProxy]:
    made = CuttingProxy(cluster.url)
    yield made
    made.close()


@pytest.fixture
def dfs(proxy: CuttingProxy) -> Iterator[HttpNameNode]:
    """A client behind the proxy."""
    with HttpNameNode(proxy.url) as client:
        yield client
    assert not proxy.cuts, "more was to be cut"


def append_by_file_object(dfs: HttpNameNode, here: str) -> None:
    with dfs.open(f"{here}/f", "a") as file:
        file.write("more")


def write_by_file_object(dfs: HttpNameNode, here: str) -> None:
    with dfs.open(f"{here}/new", "x") as file:
        file.write("new")


CHANGES: dict[str, tuple[Change, dict[str, bytes | None]]] = {
    "append": (lambda dfs, here: dfs.append(f"{here}/f", b"more"), {"f": b"start;more"}),
    "append of a file": (lambda dfs, here: dfs.append(f"{here}/f", io.BytesIO(b"more")), {"f": b"start;more"}),
    "open a": (append_by_file_object, {"f": b"start;more"}),
    "open x": (write_by_file_object, {"new": b"new"}),
    "mkdir": (lambda dfs, here: dfs.mkdir(f"{here}/d"), {"d": None}),
    "mkdir -p": (lambda dfs, here: dfs.mkdir(f"{here}/d", parents=True), {"d": None}),
    "rm": (lambda dfs, here: dfs.rm(f"{here}/g"), {"g": b""}),
    "rmdir": (lambda dfs, here: dfs.rmdir(f"{here}/empty"), {"empty": b""}),
    "rm -r": (lambda dfs, here: dfs.rm(f"{here}/full", recursive=True), {"full": b""}),
    "mv": (lambda dfs, here: dfs.mv(f"{here}/g", f"{here}/full"), {"g": b"", "full/g": b"other"}),
    "cp": (lambda dfs, here: dfs.cp(f"{here}/f", f"{here}/copy"), {"copy": b"start;"}),
    "ln": (lambda dfs, here: dfs.ln(f"{here}/f", f"{here}/hard"), {"hard": b"start;"}),
    "symlink": (lambda dfs, here: dfs.symlink("f", f"{here}/soft"), {"soft": b"start;"}),
    "touch": (lambda dfs, here: dfs.touch(f"{here}/touched"), {"touched": b""}),
    "truncate": (lambda dfs, here: dfs.truncate(f"{here}/f", 3), {"f": b"sta"}),
    "chmod": (lambda dfs, here: dfs.chmod(f"{here}/f", 0o600), {"f": b"start;"}),
    "setxattr": (lambda dfs, here: dfs.setxattr(f"{here}/f", "user.x", b"1", create=True), {"f": b"start;"}),
    "tee": (lambda dfs, here: dfs.tee(f"{here}/f", b"anew" * 200_000), {"f": b"anew" * 200_000}),
    "tee exclusive": (lambda dfs, here: dfs.tee(f"{here}/new", b"new", exclusive=True), {"new": b"new"}),
}
"""What each change comes to when it is done once: contents, None for a directory, b"" for gone (or empty)."""

GONE = {"rm": ["g"], "rmdir": ["empty"], "rm -r": ["full"], "mv": ["g"]}

PLANS = [(Cut.ANSWERED,), (Cut.AT_ONCE,), (Cut.HALF_ANSWER, Cut.UNHEARD, Cut.ANSWERED, Cut.HALF)]


def prepare(cluster: Cluster, here: str) -> None:
    with HttpNameNode(cluster.url) as direct:
        direct.mkdir(f"{here}/empty", parents=True)
        direct.tee(f"{here}/f", b"start;")
        direct.tee(f"{here}/g", b"other")
        direct.tee(f"{here}/full/below", b"x", parents=True)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: "+".join(cut.name for cut in plan))
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_whose_answer_is_lost_is_done_once(
    cluster: Cluster, proxy: CuttingProxy, dfs: HttpNameNode, name: str, plan: tuple[Cut, ...]
) -> None:
    here = f"/{name}-{PLANS.index(plan)}"
    prepare(cluster, here)
    change, expected = CHANGES[name]
    proxy.cuts.extend(plan)
    change(dfs, here)
    for entry, content in expected.items():
        if entry in GONE.get(name, []):
            assert not dfs.exists(f"{here}/{entry}")
        elif content is None:
            assert dfs.stat(f"{here}/{entry}").is_dir
        else:
            assert dfs.cat(f"{here}/{entry}") == content
    assert dfs.stat(f"{here}/f").nlink == (2 if name == "ln" else 1)


def test_what_fails_fails_the_same_after_a_lost_answer(
    cluster: Cluster, proxy: CuttingProxy, dfs: HttpNameNode
) -> None:
    prepare(cluster, "/fails")
    for change, error in (
        (lambda: dfs.mkdir("/fails/f"), FileExistsError),
        (lambda: dfs.rename("/fails/none", "/fails/x"), FileNotFoundError),
        (lambda: dfs.tee("/fails/f", b"", exclusive=True), FileExistsError),
        (lambda: dfs.ln("/fails/f", "/fails/g"), FileExistsError),
    ):
        proxy.cuts.append(Cut.ANSWERED)
        with pytest.raises(error):
            change()
    assert dfs.cat("/fails/f") == b"start;"


def some_cuts(chance: random.Random, count: int) -> list[Cut | None]:
    """One in three requests is cut, so that the pauses between repetitions stay short."""
    return [chance.choice(list(Cut)) if chance.randrange(3) == 0 else None for _ in range(count)]


def test_a_tree_is_put_and_copied_through_cuts(proxy: CuttingProxy, dfs: HttpNameNode, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    files = {f"{number % 3}/{number}": chance.randbytes(chance.choice([0, 10, 200_000])) for number in range(12)}
    for name, data in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    proxy.cuts.extend(some_cuts(chance, 15))
    dfs.put(tmp_path / "tree", "/tree")
    proxy.cuts.clear()
    proxy.cuts.extend(some_cuts(chance, 15))
    dfs.cp("/tree", "/tree-copy")
    proxy.cuts.clear()
    for top in ("/tree", "/tree-copy"):
        assert {name: dfs.cat(f"{top}/{name}") for name in files} == files
        assert sum(len(names) for _, _, names in dfs.walk(top)) == len(files)


def test_clients_that_append_through_cuts_lose_and_double_nothing(cluster: Cluster, proxy: CuttingProxy) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    failures: list[BaseException] = []
    proxy.cuts.extend(some_cuts(chance, 100))

    def work(worker: int) -> None:
        try:
            with HttpNameNode(proxy.url) as dfs:
                for number in range(25):
                    dfs.append("/log", b"%d:%d\n" % (worker, number))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert not proxy.cuts
    with HttpNameNode(cluster.url) as dfs:
        lines = dfs.cat("/log").splitlines()
    for worker in range(4):
        own = [line for line in lines if line.startswith(b"%d:" % worker)]
        assert own == [b"%d:%d" % (worker, number) for number in range(25)]


def test_a_body_that_cannot_be_sent_again_is_an_error(proxy: CuttingProxy, dfs: HttpNameNode) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    proxy.cuts.append(Cut.UNHEARD)
    with pytest.raises(ConnectionError):
        dfs.tee("/from-a-pipe", Pipe(b"x" * 100_000))
    assert not dfs.exists("/from-a-pipe")


def test_changes_go_on_when_the_namenode_is_killed_and_restarted(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    failures: list[BaseException] = []
    done: list[int] = []

    def work() -> None:
        try:
            with HttpNameNode(cluster.url) as dfs:
                while len(done) < 100:
                    dfs.append("/log", b"%d\n" % len(done))
                    dfs.mkdir(f"/d{len(done)}")
                    done.append(1)
        except BaseException as error:
            failures.append(error)
            raise

    def has_come_to(goal: int) -> bool:
        return len(done) > goal or bool(failures)

    thread = threading.Thread(target=work)
    thread.start()
    for goal in (20, 60):
        wait_until(partial(has_come_to, goal), f"{goal} changes are done")
        cluster.namenode.kill()
        cluster.namenode.start()
    thread.join()
    assert not failures
    with HttpNameNode(cluster.url) as dfs:
        assert dfs.cat("/log").split() == [b"%d" % number for number in range(100)]
        assert len(dfs.ls("/")) == 101


def test_a_namenode_that_was_stopped_does_once_what_it_was_sent_twice(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(2)
    waits: list[str] = []

    def go_on(reason: str, _left_s: float) -> None:
        waits.append(reason)
        os.kill(cluster.namenode.pid, signal.SIGCONT)

    with HttpNameNode(cluster.url, timeout_s=6, timing=Timing(on_wait=go_on)) as dfs:
        dfs.tee("/log", b"start;")
        for number in range(2):
            os.kill(cluster.namenode.pid, signal.SIGSTOP)
            dfs.append("/log", b"%d;" % number)
        assert dfs.cat("/log") == b"start;0;1;"
    assert len(waits) >= 2
    assert "timed out" in waits[0]
