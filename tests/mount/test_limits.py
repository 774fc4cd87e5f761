"""What is large stays bounded: memory of a mount, long listings, huge sparse files."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from dfslib.model import ROOT, FileType
from dfslib.namenode.metadata.engine import Txn
from dfslib.namenode.metadata.lmdb_engine import LmdbEngine
from dfslib.namenode.namespace.create import NewInode, create
from tests.cluster.real_cluster import MakeCluster, wait_until
from tests.mount.real_mount import MakeMount, Mount, run, run_python

ENTRIES = 100_000
MIB = 1 << 20
BESIDE_CACHE = 150 * MIB
"""Python, its libraries, and requests under way."""
PER_NAME = 2048
"""What a mount may keep of a name that the kernel knows, twice over: listed again, the inodes are new ones."""


def peak_rss(mount: Mount) -> int:
    for line in Path(f"/proc/{mount.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_memory_is_bounded_while_much_is_written_and_read(make_cluster: MakeCluster, make_mount: MakeMount) -> None:
    cluster = make_cluster(1)
    mount = make_mount(cluster.url, "-o", "cache=64")
    run("head -c 600000000 /dev/zero | tr '\\0' x > big", mount.path)
    assert peak_rss(mount) < 64 * MIB + BESIDE_CACHE
    run("echo 3 > /proc/sys/vm/drop_caches")
    run("cmp big <(head -c 600000000 /dev/zero | tr '\\0' x)", mount.path)
    assert peak_rss(mount) < 64 * MIB + BESIDE_CACHE
    run_python(
        "import os, random\nf = os.open('scattered', os.O_RDWR | os.O_CREAT)\n"
        "for n in range(20_000): os.pwrite(f, b'x' * 4096, random.randrange(1 << 20) * 4096)\n"
        "os.fsync(f)",
        mount.path,
    )
    assert peak_rss(mount) < 64 * MIB + BESIDE_CACHE


def test_a_directory_of_100000_entries(make_cluster: MakeCluster, make_mount: MakeMount) -> None:
    cluster = make_cluster(1)
    cluster.namenode.stop()
    engine = LmdbEngine(Path(cluster.namenode.env["DFS_DB_PATH"]))

    def fill(txn: Txn) -> None:
        now = time.time_ns()
        folder = create(txn, ROOT, b"many", NewInode(type=FileType.DIRECTORY, mode=0o755), now)
        for number in range(ENTRIES):
            create(txn, folder.ino, b"entry%06d" % number, NewInode(type=FileType.FILE, mode=0o644), now)

    asyncio.run(engine.transact(fill))
    engine.close()
    cluster.namenode.start()
    cluster.wait_alive()
    mount = make_mount(cluster.url, "-o", "cache=32")
    before = peak_rss(mount)
    assert run("ls -f many | wc -l", mount.path) == f"{ENTRIES + 2}\n"
    assert run("find many -size 0 -type f | sort | uniq | wc -l", mount.path) == f"{ENTRIES}\n"
    assert peak_rss(mount) - before < ENTRIES * PER_NAME
    run_python(
        "import os\nseen = set()\n"
        "for number, entry in enumerate(os.scandir('many')):\n"
        " assert entry.name not in seen\n seen.add(entry.name)\n"
        " if number % 1000 == 0:\n"
        "  os.unlink(f'many/{entry.name}')\n  open(f'many/aa{number}', 'w').close()\n"
        f"assert len([name for name in seen if name.startswith('entry')]) == {ENTRIES}",
        mount.path,
    )


def test_a_hole_of_100_gigabytes(mount: Mount, folder: Path) -> None:
    run_python(
        "import os\nf = os.open('f', os.O_RDWR | os.O_CREAT)\nos.ftruncate(f, 100 << 30)\n"
        "os.pwrite(f, b'here', 77 << 30)\nos.fsync(f)\n"
        "assert os.lseek(f, 0, os.SEEK_DATA) == 77 << 30\n"
        "assert os.pread(f, 6, (77 << 30) - 1) == b'\\0here\\0'\n"
        "assert os.fstat(f).st_blocks < 100",
        folder,
    )
    wait_until(lambda: run("du -sk f", folder).split()[0] in ("0", "1", "4"), "it takes no room")
