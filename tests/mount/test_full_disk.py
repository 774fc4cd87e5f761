"""Disks that fill up under a mount: what is left of a file is a beginning, who wrote is told, space returns."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.cluster.real_cluster import Cluster, wait_until
from tests.mount.real_mount import Mount, attempt, run, run_python

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
MIB = 1 << 20
DISK_MIB = 120
RESERVED_MIB = 1


class Small(Cluster):
    """Two datanodes with disks of 120 MiB, each block on both."""

    def room(self) -> int:
        """Bytes that files may still take."""
        return int(requests.get(f"{self.url}cluster/df", timeout=30).json()["available"])

    def used(self, number: int = 0) -> int:
        """Bytes of blocks on a disk, of whatever file or of none."""
        blocks = Path(self.datanodes[number].env["DFS_FS_ROOT"], "blocks")
        total = 0
        for path in blocks.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # deleted since it was listed
                found = path.stat()
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
        return total

    def is_empty(self) -> bool:
        """What was deleted is gone from the disks, and the namenode has heard so."""
        return all(self.used(number) < MIB for number in range(2)) and self.room() > 110 * MIB

    def free(self) -> int:
        """As `room`, of the disks themselves: what the namenode has heard is some time old."""
        disks = [os.statvfs(server.env["DFS_FS_ROOT"]) for server in self.datanodes]
        return min(disk.f_bavail * disk.f_frsize for disk in disks) - RESERVED_MIB * MIB


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    folder = tmp_path_factory.mktemp("small")
    cluster = Small(folder, 2, DFS_GARBAGE_DELAY="0.1")
    mounted: list[str] = []
    try:
        for server in cluster.datanodes:
            server.env["DFS_RESERVED_SPACE"] = f"{RESERVED_MIB}MiB"
            root = server.env["DFS_FS_ROOT"]
            Path(root).mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", root], check=True)
            mounted.append(root)
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        for root in mounted:
            subprocess.run(["umount", root], check=True)


@pytest.fixture(scope="module")
def mounts(shared: Small, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Mount]]:
    folder = tmp_path_factory.mktemp("mounts")
    made = [Mount(shared.url, folder / name) for name in ("m1", "m2")]
    try:
        for mount in made:
            mount.start()
        yield made
    finally:
        for mount in made:
            mount.clean_up()


@pytest.fixture
def mount(mounts: list[Mount]) -> Mount:
    return mounts[0]


@pytest.fixture
def other(mounts: list[Mount]) -> Mount:
    return mounts[1]


@pytest.fixture
def small(shared: Small, mount: Mount) -> Iterator[Small]:
    """With empty disks."""
    wait_until(shared.is_empty, "the disks are empty")
    yield shared
    for datanode in shared.datanodes:
        datanode.resume()
    run("rm -rf -- *", mount.path)


@contextlib.contextmanager
def program(folder: Path, code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python program that does not outlive the test: what it has open would stay."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def leave(cluster: Small, mount: Mount, mib: int) -> None:
    """Have that much room left. A block that was sent twice to a slow datanode takes its space twice for a while."""

    def fill() -> bool:
        ballast = cluster.free() - mib * MIB
        if attempt(f"head -c {ballast} /dev/zero | tr '\\0' b > ballast", mount.path).returncode == 0:
            return True
        run("rm ballast", mount.path)
        wait_until(cluster.is_empty, "the disks are empty")
        return False

    wait_until(fill, "the ballast fits")
    wait_until(lambda: cluster.room() < (mib + 2) * MIB, "the namenode has heard that the disks are full")


def make_room(cluster: Small, mount: Mount) -> None:
    run("rm ballast", mount.path)
    wait_until(lambda: cluster.room() > 70 * MIB, "space has returned")


def is_beginning(left: Path, whole: bytes) -> int:
    """How long it is."""
    data = run_python(f"import sys; sys.stdout.buffer.write(open({str(left)!r}, 'rb').read())", left.parent)
    assert data == whole[: len(data)].decode(), "what is left is no beginning"
    return len(data)


def text(mib: int) -> bytes:
    """No part of it is like another, nor zeros."""
    return b"".join(b"%015d\n" % number for number in range(mib * MIB // 16))


def test_a_file_that_does_not_fit_is_left_as_a_beginning_and_rsync_appends_the_rest(
    small: Small, mount: Mount, other: Mount, tmp_path: Path
) -> None:
    leave(small, mount, 20)
    source = tmp_path / "source"
    whole = text(48)
    source.write_bytes(whole)
    copied = attempt(["cp", str(source), str(mount.path / "x")])
    assert copied.returncode == 1
    assert "No space left on device" in copied.stderr
    length = is_beginning(other.path / "x", whole)
    assert length < len(whole)
    assert (mount.path / "x").stat().st_size == length
    wait_until(lambda: small.used() < (DISK_MIB - 20) * MIB + length + 2 * MIB, "blocks that no file has are deleted")
    make_room(small, mount)
    run(["rsync", "-a", "--append", str(source), str(mount.path / "x")])
    run(["cmp", str(source), str(other.path / "x")])
    assert requests.get(f"{small.url}cluster/fsck", timeout=30).json()["healthy"]


LOGGER = """
import errno, os, sys
f = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
failures = 0
for number in range(0, 48 << 20, 64 << 10):
    line = b"".join(b"%015d\\n" % n for n in range(number // 16, (number + (64 << 10)) // 16))
    try: os.write(f, line)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        failures += 1
        break
try: os.fsync(f)
except OSError as error: failures += 1
assert failures
before = os.fstat(f).st_size
print(before, flush=True)
sys.stdin.readline()
os.write(f, b"after" * 3)
os.fsync(f)
os.close(f)
"""


def test_nothing_vanishes_from_the_middle_of_a_log_and_what_is_appended_afterwards_goes_to_its_end(
    small: Small, mount: Mount, other: Mount
) -> None:
    leave(small, mount, 12)
    whole = text(48)
    with program(mount.path, LOGGER) as logger:
        assert logger.stdout is not None
        size = int(logger.stdout.readline())
        assert is_beginning(other.path / "log", whole) == size < len(whole)
        make_room(small, mount)
        logger.communicate("\n", timeout=60)
        assert logger.returncode == 0
    assert run(f"tail -c +{size + 1} log", other.path) == "after" * 3


OVERWRITER = """
import errno, os
f = os.open("x", os.O_RDWR)
told = 0
for at in range(0, 32 << 20, 1 << 20):
    try: os.pwrite(f, b"n" * (1 << 20), at)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        told += 1
        break
try: os.close(f)
except OSError as error: told += 1
assert told
"""


def test_where_new_bytes_do_not_fit_the_old_ones_stay(small: Small, mount: Mount, other: Mount) -> None:
    run("head -c 32M /dev/zero | tr '\\0' o > x", mount.path)
    wait_until(lambda: small.room() < 90 * MIB, "the namenode has heard of it")
    run(f"head -c {small.room() - 10 * MIB} /dev/zero | tr '\\0' b > ballast", mount.path)
    wait_until(lambda: small.room() < 12 * MIB, "the namenode has heard that the disks are full")
    run_python(OVERWRITER, mount.path)
    assert run("tr -s no < x", other.path) in ("no", "o"), "first new ones, then old ones"
    assert (mount.path / "x").stat().st_size == 32 * MIB


STEPS = """
import errno, mmap, os, sys
what = sys.argv[1]
f, g = os.open("x", os.O_RDWR | os.O_CREAT), os.open("x", os.O_RDWR)
data = b"".join(b"%015d\\n" % n for n in range((40 << 20) // 16))
def follows():
    if what == "truncate": os.ftruncate(f, 60 << 20)
    elif what == "truncate another": os.ftruncate(g, 60 << 20)
    elif what == "truncate by name": os.truncate("x", 60 << 20)
    elif what == "fallocate": os.posix_fallocate(g, 0, 60 << 20)
    elif what == "copy": os.copy_file_range(f, g, 1 << 20, 0, 60 << 20)
    elif what == "utime": os.utime("x", (1, 1))
    elif what == "rename": os.rename("x", "old")
    elif what == "write": os.pwrite(g, b"x", 60 << 20)
    elif what == "mmap":
        m = mmap.mmap(g, 4096)
        m[:4] = b"mmap"
        m.flush()
open("old", "w").write("old")
for at in range(0, len(data), 1 << 20): os.pwrite(f, data[at : at + (1 << 20)], at)
print("written", flush=True)
try: follows()
except OSError as error:
    # an error of a page that is mapped is the kernel's EIO
    assert error.errno in ((errno.EIO, errno.ENOSPC) if what == "mmap" else (errno.ENOSPC,)), error
    print("told", end=" ")
for one in (f, g):
    try: os.close(one)
    except OSError as error: print("told at close", end=" ")
"""


@pytest.mark.parametrize(
    "what",
    ["truncate", "truncate another", "truncate by name", "fallocate", "copy", "utime", "rename", "write", "mmap"],
)
def test_what_follows_what_does_not_fit_does_not_happen(what: str, small: Small, mount: Mount, other: Mount) -> None:
    leave(small, mount, 6)
    for datanode in small.datanodes:  # all of it is taken before anything fails
        datanode.pause()
    with program(mount.path, STEPS, what) as steps:
        assert steps.stdout is not None
        assert steps.stdout.readline() == "written\n"
        for datanode in small.datanodes:
            datanode.resume()
        out, _ = steps.communicate(timeout=120)
        assert steps.returncode == 0
    assert "told" in out
    length = is_beginning(other.path / "x", text(40))
    assert length < 40 * MIB
    assert (mount.path / "x").stat().st_size == length
    assert run("cat old", other.path) == "old"
    assert "utime" not in what or (other.path / "x").stat().st_mtime > 1
