"""fcntl(2) and flock(2) locks hold among all mounts, and go with whoever held them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.cluster.real_cluster import MakeCluster, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import MakeMount, Mount

HOLDER = """
import fcntl, os, sys
path, how, kind, wait = sys.argv[1:5]
start, length = map(int, sys.argv[5:7])
f = os.open(path, os.O_RDWR | os.O_CREAT)
flags = {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH}[kind] | (0 if wait == "wait" else fcntl.LOCK_NB)
try:
    if how == "flock": fcntl.flock(f, flags)
    else: fcntl.lockf(f, flags, length, start)
except OSError as error:
    print(f"errno {error.errno}", flush=True)
    raise SystemExit
print("locked", flush=True)
sys.stdin.readline()
"""


class Holder:
    """A process that takes a lock, says so, and holds it until told to go."""

    def __init__(
        self, path: Path, how: str = "fcntl", kind: str = "ex", *, wait: bool = False, start: int = 0, length: int = 0
    ) -> None:
        words = [str(path), how, kind, "wait" if wait else "try", str(start), str(length)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def said(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> None:
        self.process.communicate("\n", timeout=DEADLINE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


class Hold(Protocol):
    def __call__(
        self, path: Path, how: str = "fcntl", kind: str = "ex", *, wait: bool = False, start: int = 0, length: int = 0
    ) -> Holder: ...


@pytest.fixture
def hold() -> Iterator[Hold]:
    made: list[Holder] = []

    def make(
        path: Path, how: str = "fcntl", kind: str = "ex", *, wait: bool = False, start: int = 0, length: int = 0
    ) -> Holder:
        made.append(Holder(path, how, kind, wait=wait, start=start, length=length))
        return made[-1]

    yield make
    for holder in made:
        holder.kill()


@pytest.fixture
def there(folder: Path, mount: Mount, other_mount: Mount) -> Path:
    return other_mount.path / folder.relative_to(mount.path)


@pytest.mark.parametrize("how", ["fcntl", "flock"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_lock_is_held_against_others(how: str, apart: bool, folder: Path, there: Path, hold: Hold) -> None:
    second = there if apart else folder
    first = hold(folder / "f", how)
    assert first.said() == "locked"
    assert hold(second / "f", how).said() == "errno 11"
    assert hold(second / "f", how, "sh").said() == "errno 11"
    waiting = hold(second / "f", how, wait=True)
    first.go()
    assert waiting.said() == "locked"
    waiting.kill()
    after = hold(folder / "f", how, wait=True)
    assert after.said() == "locked"


def test_readers_share_and_ranges_are_apart(folder: Path, there: Path, hold: Hold) -> None:
    assert hold(folder / "f", kind="sh", start=0, length=10).said() == "locked"
    assert hold(there / "f", kind="sh", start=5, length=10).said() == "locked"
    assert hold(there / "f", start=9, length=1).said() == "errno 11"
    assert hold(there / "f", start=20, length=10).said() == "locked"
    assert hold(folder / "f", start=29, length=5).said() == "errno 11"
    assert hold(folder / "f", start=30).said() == "locked"


def test_a_waiter_that_is_killed_leaves_nothing(folder: Path, there: Path, hold: Hold) -> None:
    first = hold(folder / "f")
    assert first.said() == "locked"
    waiter = hold(there / "f", wait=True)
    wait_until(lambda: _blocked(waiter.process.pid), "the waiter waits")
    waiter.kill()
    first.go()
    last = hold(folder / "f", wait=True)
    assert last.said() == "locked"


def _blocked(pid: int) -> bool:
    return "fuse" in Path(f"/proc/{pid}/wchan").read_text() or "wait" in Path(f"/proc/{pid}/wchan").read_text()


DEADLOCK = """
import fcntl, os, sys
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
own, other = map(int, sys.argv[2:])
fcntl.lockf(f, fcntl.LOCK_EX, 1, own)
print("first", flush=True)
sys.stdin.readline()
try:
    fcntl.lockf(f, fcntl.LOCK_EX, 1, other)
    print("both", flush=True)
except OSError as error:
    print(f"errno {error.errno}", flush=True)
"""


def test_two_that_wait_for_one_another_are_told(folder: Path, there: Path) -> None:
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", DEADLOCK, str(place / "f"), *numbers],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for place, numbers in ((folder, ("0", "1")), (there, ("1", "0")))
    ]  # fmt: skip
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "first\n"
    assert sorted(_finish(pair)) == ["both", "errno 35"]


def _finish(pair: list[subprocess.Popen[str]]) -> list[str]:
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate(timeout=DEADLINE_S)[0].strip() for process in pair]


def test_the_locks_of_a_mount_that_died_are_given_up(
    make_cluster: MakeCluster, make_mount: MakeMount, hold: Hold
) -> None:
    cluster = make_cluster(1, DFS_SESSION_GRACE="2")
    first, second = make_mount(cluster.url), make_mount(cluster.url)
    assert hold(first.path / "f").said() == "locked"
    waiting = hold(second.path / "f", wait=True)
    first.kill()
    assert waiting.said() == "locked"


@pytest.mark.parametrize("how", ["fcntl", "flock"])
def test_locks_outlive_a_restart_of_the_namenode(
    how: str, make_cluster: MakeCluster, make_mount: MakeMount, hold: Hold
) -> None:
    cluster = make_cluster(1)
    first, second = make_mount(cluster.url), make_mount(cluster.url)
    holder = hold(first.path / "f", how)
    assert holder.said() == "locked"
    waiting = hold(second.path / "f", how, wait=True)
    cluster.namenode.kill()
    cluster.namenode.start()
    assert hold(second.path / "f", how).said() == "errno 11"
    assert waiting.process.poll() is None
    holder.go()
    assert waiting.said() == "locked"
