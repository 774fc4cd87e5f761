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
from tests.mount.real_mount import MakeMount, Mount, run

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


OPEN_FILE_LOCKS = """
import fcntl, os, socket, struct, subprocess, sys, time
OFD_SETLK = 37
def lock(fd, how, kind=fcntl.F_WRLCK):
    if how == "flock":
        fcntl.flock(fd, {fcntl.F_WRLCK: fcntl.LOCK_EX, fcntl.F_UNLCK: fcntl.LOCK_UN}[kind] | fcntl.LOCK_NB)
    else:
        number = OFD_SETLK if how == "ofd" else fcntl.F_SETLK
        fcntl.fcntl(fd, number, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
def free(how, wait=False):
    # Asked by another process, on the other mount; a last close is told behind the close(2) that did it.
    ask = [sys.executable, "-c", ASK, there, how]
    deadline = time.monotonic() + 60
    while (found := subprocess.run(ask, check=True, stdout=subprocess.PIPE).stdout) != b"free":
        if not wait or time.monotonic() > deadline: return False
    return True
here, there, ASK = sys.argv[1:4]
"""

ASK = """
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    if sys.argv[2] == "flock": fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # Given up by a call that has an answer: a last close is told behind the close(2), and holds up who asks next.
    if sys.argv[2] == "flock": fcntl.flock(fd, fcntl.LOCK_UN)
    else: fcntl.lockf(fd, fcntl.LOCK_UN)
    print("free", end="")
except OSError: print("held", end="")
"""

ENDS = {
    "the last close, not the first": """
fd = os.open(here, os.O_RDWR); lock(fd, how); other = os.dup(fd)
os.close(fd); assert free(how) == (how == "posix")
os.close(other); assert free(how, wait=True)
""",
    "another open file of the process is closed": """
fd = os.open(here, os.O_RDWR); lock(fd, how)
os.close(os.open(here, os.O_RDONLY)); assert free(how) == (how == "posix")
os.close(fd); assert free(how, wait=True)
""",
    "a child that inherited it": """
fd = os.open(here, os.O_RDWR); lock(fd, how); r, w = os.pipe()
if not (child := os.fork()):
    os.close(w); os.read(r, 1); os._exit(0)
os.close(r); os.close(fd); assert free(how) == (how == "posix")
os.close(w); os.waitpid(child, 0); assert free(how, wait=True)
""",
    "a child that exits first": """
fd = os.open(here, os.O_RDWR); lock(fd, how)
if not (child := os.fork()): os._exit(0)
os.waitpid(child, 0); assert not free(how)
os.close(fd); assert free(how, wait=True)
""",
    "exec": """
fd = os.open(here, os.O_RDWR); r, w = os.pipe(); r2, w2 = os.pipe()
if not (child := os.fork()):
    lock(fd, how); os.set_inheritable(fd, True); os.dup2(r, 0); os.dup2(w2, 1); os.close(w)
    os.execlp("sh", "sh", "-c", "echo; read x")
os.close(fd); os.read(r2, 1); assert not free(how)
os.close(w); os.close(r); os.waitpid(child, 0); assert free(how, wait=True)
""",
    "a descriptor closed by exec": """
fd = os.open(here, os.O_RDWR); r, w = os.pipe(); r2, w2 = os.pipe()
if not (child := os.fork()):
    lock(fd, how); os.dup2(r, 0); os.dup2(w2, 1); os.close(w); os.execlp("sh", "sh", "-c", "echo; read x")
os.close(fd); os.read(r2, 1); assert free(how, wait=True)
os.close(w); os.close(r); os.waitpid(child, 0)
""",
    "passed to another process": """
a, b = socket.socketpair(); r, w = os.pipe()
if not (child := os.fork()):
    a.close(); os.close(w); _, (got,), _, _ = socket.recv_fds(b, 1, 1); b.send(b"x"); os.read(r, 1); os._exit(0)
os.close(r); b.close(); fd = os.open(here, os.O_RDWR); lock(fd, how)
socket.send_fds(a, [b"x"], [fd]); a.recv(1); os.close(fd); assert free(how) == (how == "posix")
os.close(w); os.waitpid(child, 0); assert free(how, wait=True)
""",
    "killed": """
r, w = os.pipe()
if not (child := os.fork()):
    fd = os.open(here, os.O_RDWR); lock(fd, how); os.write(w, b"x"); time.sleep(600)
os.read(r, 1); assert not free(how)
os.kill(child, 9); os.waitpid(child, 0); assert free(how, wait=True)
""",
    "given up, and taken through another open file": """
one = os.open(here, os.O_RDWR); two = os.open(here, os.O_RDWR)
lock(one, how); lock(one, how, fcntl.F_UNLCK); assert free(how)
lock(two, how); os.close(one); assert free(how) == (how == "posix")
os.close(two); assert free(how, wait=True)
""",
}


@pytest.mark.parametrize("how", ["posix", "ofd", "flock"])
@pytest.mark.parametrize("end", ENDS)
def test_a_lock_ends_with_its_holder(end: str, how: str, folder: Path, there: Path) -> None:
    (folder / "f").touch()
    code = f"{OPEN_FILE_LOCKS}\nhow = {how!r}\n{ENDS[end]}"
    run([sys.executable, "-c", code, str(folder / "f"), str(there / "f"), ASK])
