"""Times through a mount: those that no inode can have, and what reading and mapped memory do to them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from http_client import HttpNameNode
from tests.cluster.real_cluster import Cluster
from tests.mount.real_mount import Mount, run, run_python

LEAST, MOST = -(1 << 63), (1 << 63) - 1


@pytest.fixture
def there(folder: Path, mount: Mount, other_mount: Mount) -> Path:
    return other_mount.path / folder.relative_to(mount.path)


@pytest.mark.parametrize("seconds", [-(1 << 60), -9_223_372_037, -1, 9_223_372_036, 9_223_372_037, 1 << 40, 1 << 60])
def test_a_time_that_no_inode_can_have_is_the_nearest_one(
    seconds: int, folder: Path, there: Path, cluster: Cluster, mount: Mount
) -> None:
    wanted = seconds * 10**9 + 999_999_999
    expected = max(LEAST, min(wanted, MOST))
    code = (
        "import os, sys\nopen('f', 'w').close()\n"
        f"os.utime('f', ns=({wanted}, {wanted}))\n"
        f"for path in ('f', {str(there / 'f')!r}):\n"
        " found = os.stat(path)\n print(found.st_atime_ns, found.st_mtime_ns)\n"
    )
    assert run([sys.executable, "-c", code], folder) == 2 * f"{expected} {expected}\n"
    with HttpNameNode(cluster.url) as dfs:
        path = f"/{folder.relative_to(mount.path)}/g"
        dfs.utime(path)
        dfs.utime(path, ns=(wanted, wanted))
        assert (dfs.stat(path).atime_ns, dfs.stat(path).mtime_ns) == (expected, expected)


def test_a_time_that_is_set_stays_whatever_was_written_to_mapped_memory_before(folder: Path) -> None:
    run_python(
        "import mmap, os\n"
        "fd = os.open('f', os.O_RDWR | os.O_CREAT)\nos.ftruncate(fd, 100_000)\n"
        "memory = mmap.mmap(fd, 100_000)\n"
        "for n in range(10):\n"
        " memory[:5] = b'%05d' % n\n"
        " memory[90_000:90_005] = b'%05d' % n\n"
        " os.utime('f', (1, 1000 + n))\n"
        " assert os.stat('f').st_mtime == 1000 + n\n"
        " memory.flush()\n"
        " os.fsync(fd)\n"
        " assert os.stat('f').st_mtime == 1000 + n, n\n"
        " assert os.pread(fd, 5, 90_000) == memory[:5] == b'%05d' % n\n"
        "memory[:1] = b'x'\nmemory.flush()\n"
        "assert os.stat('f').st_mtime > 10**9\n",
        folder,
    )


def test_a_read_is_seen_in_the_time_of_access_at_once_and_stays(folder: Path, there: Path) -> None:
    run_python(
        "import os, time\n"
        "open('f', 'wb').write(b'x' * 200_000)\nopen('e', 'wb').write(b'x')\n"
        f"for path in ({str(there)!r} + '/f', {str(there)!r} + '/e'):\n"
        " os.utime(path, (1000, 1000))\n"
        " with open(path, 'rb', buffering=0) as file:\n"
        "  assert os.stat(path).st_atime == 1000\n"
        "  assert file.read(10)\n"
        "  seen = os.stat(path).st_atime\n"
        "  assert seen > 10**9\n"
        "  file.read()\n"
        " end = time.monotonic() + 8\n"
        " while time.monotonic() < end:\n"
        "  assert os.stat(path).st_atime == seen\n"
        "  time.sleep(0.05)\n",
        folder,
    )
