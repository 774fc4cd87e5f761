"""What programs on a mount see when something of the cluster is away, and what is there in the end."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import requests

from tests.cluster.real_cluster import MakeCluster, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import MakeMount, attempt, run

WORK = """
import os, select, sys
top = sys.argv[1]
count = 0
log = os.open(f"{top}/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
while not select.select([sys.stdin], [], [], 0)[0]:
    name = f"{top}/f{count}"
    with open(name + ".tmp", "wb") as f:
        f.write(b"%d " % count * 2000)
        if count % 3 == 0: os.fsync(f.fileno())
    os.rename(name + ".tmp", name)
    os.write(log, b"%06d\\n" % count)
    if count % 5 == 0: os.fsync(log)
    with open(f"{top}/f{count // 2}", "rb") as f: assert f.read() == b"%d " % (count // 2) * 2000
    assert f"f{count}" in os.listdir(top)
    count += 1
os.close(log)
print(count)
"""


PATIENT = ("-o", "timeout=3600")
"""Whoever stops waiting before the test ends does so because he was killed."""
COPY_STDIN = """
import sys
with open("big", "wb") as f:
    while data := sys.stdin.buffer.read(1 << 20): f.write(data)
"""
WRITE_AND_HOLD = """
import sys
f = open("f", "wb", buffering=0)
f.write(b"x" * 9_000_000)
print("written")
sys.stdin.readline()
"""
HOLD_OPEN = """
import sys
f = open("open", "wb", buffering=0)
print("ready")
sys.stdin.readline()
f.write(b"written meanwhile")
print("written")
sys.stdin.readline()
f.close()
"""


def worker(top: Path) -> subprocess.Popen[str]:
    """Writes, syncs, renames, appends and lists until `finish` closes its input."""
    return subprocess.Popen(
        [sys.executable, "-c", WORK, str(top)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> int:
    """How many turns it made."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return int(out)


def check_all(top: Path, count: int) -> None:
    """Nothing is missing, nothing was done twice."""
    assert run("cat log", top).split() == [f"{number:06}" for number in range(count)]
    assert sorted(run("ls", top).split()) == sorted(["log", *(f"f{number}" for number in range(count))])
    for number in range(count):
        assert (top / f"f{number}").stat().st_size == len(b"%d " % number) * 2000


def test_nothing_fails_while_the_namenode_is_killed_and_started(
    make_cluster: MakeCluster, make_mount: MakeMount
) -> None:
    cluster = make_cluster(2)
    mount, other = make_mount(cluster.url), make_mount(cluster.url)
    top = mount.path / "top"
    top.mkdir()
    work = worker(top)
    for _ in range(3):
        wait_for_progress(other.path / "top")
        cluster.namenode.kill()
        cluster.namenode.start()
    wait_for_progress(other.path / "top")
    count = finish(work)
    check_all(other.path / "top", count)
    mount.stop()
    assert requests.get(f"{cluster.url}cluster/fsck", timeout=DEADLINE_S).json()["healthy"]


def wait_for_progress(top: Path) -> None:
    before = len(run("ls", top).split())
    wait_until(lambda: len(run("ls", top).split()) > before + 3, "the program goes on")


def test_nothing_fails_while_datanodes_are_killed_and_started(make_cluster: MakeCluster, make_mount: MakeMount) -> None:
    cluster = make_cluster(3)
    mount = make_mount(cluster.url)
    top = mount.path / "top"
    top.mkdir()
    data = os.urandom(1 << 20)
    work = worker(top)
    big = subprocess.Popen(
        [sys.executable, "-c", COPY_STDIN],
        stdin=subprocess.PIPE, cwd=mount.path,
    )  # fmt: skip
    assert big.stdin is not None
    digest = hashlib.sha256()
    for number in range(200):
        piece = bytes([number]) + data[1:]
        digest.update(piece)
        big.stdin.write(piece)
        if number in (50, 100, 150):
            datanode = cluster.datanodes[number // 50 - 1]
            datanode.kill()
            datanode.start()
            cluster.wait_alive()
    big.stdin.close()
    assert big.wait(DEADLINE_S) == 0
    check_all(top, finish(work))
    assert run("sha256sum < big", mount.path).split()[0] == digest.hexdigest()


def test_a_namenode_that_stays_away_is_an_error_and_never_an_empty_directory(
    make_cluster: MakeCluster, make_mount: MakeMount
) -> None:
    cluster = make_cluster(1)
    mount = make_mount(cluster.url, "-o", "timeout=2")
    run("echo there > f", mount.path)
    held = subprocess.Popen(
        [sys.executable, "-uc", HOLD_OPEN],
        cwd=mount.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert held.stdin is not None
    assert held.stdout is not None
    assert held.stdout.readline() == "ready\n"
    cluster.namenode.kill()
    listing = attempt(f"ls {mount.path}", timeout_s=DEADLINE_S)
    assert listing.returncode != 0
    assert "Input/output error" in listing.stderr
    assert "Input/output error" in attempt(f"cat {mount.path}/f", timeout_s=DEADLINE_S).stderr
    held.stdin.write("\n")
    held.stdin.flush()
    assert held.stdout.readline() == "written\n"
    cluster.namenode.start()
    cluster.wait_alive()
    wait_until(lambda: attempt(f"cat {mount.path}/f").stdout == "there\n", "the mount is well again")
    held.communicate("\n", timeout=DEADLINE_S)
    assert held.returncode == 0
    assert run("cat open", mount.path) == "written meanwhile"


def test_umount_works_while_the_namenode_is_away(make_cluster: MakeCluster, make_mount: MakeMount) -> None:
    cluster = make_cluster(1)
    mount = make_mount(cluster.url, "-o", "timeout=3")
    run("echo x > f", mount.path)
    cluster.namenode.kill()
    run([sys.executable, "dfs.py", "umount", str(mount.path)], Path(__file__).parents[2], timeout_s=DEADLINE_S)
    assert not mount.mounted
    assert mount.process is not None
    assert mount.process.wait(DEADLINE_S) == 0


def test_data_arrives_when_the_datanodes_return(make_cluster: MakeCluster, make_mount: MakeMount) -> None:
    cluster = make_cluster(1)
    mount = make_mount(cluster.url, "-o", "timeout=2")
    run("head -c 300000 /dev/zero > before", mount.path)
    cluster.datanodes[0].kill()
    writing = attempt("head -c 1000000 /dev/zero > during", mount.path, timeout_s=DEADLINE_S)
    assert writing.returncode != 0, "close must tell that it is not written"
    run("echo 3 > /proc/sys/vm/drop_caches")
    assert "Input/output error" in attempt("cat before", mount.path, timeout_s=DEADLINE_S).stderr
    cluster.datanodes[0].start()
    cluster.wait_alive()
    wait_until(lambda: attempt("cmp -n 1000000 during /dev/zero", mount.path).returncode == 0, "what was kept arrives")
    assert run("cat before | wc -c", mount.path) == "300000\n"


def test_what_was_written_reaches_the_datanodes_when_a_mount_is_told_to_stop(
    make_cluster: MakeCluster, make_mount: MakeMount
) -> None:
    cluster = make_cluster(1)
    mount, other = make_mount(cluster.url), make_mount(cluster.url)
    writer = subprocess.Popen(
        [sys.executable, "-uc", WRITE_AND_HOLD],
        cwd=mount.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    assert mount.stop() == 0
    writer.communicate(b"\n", timeout=DEADLINE_S)
    assert run("cat f | wc -c", other.path) == "9000000\n"


def test_a_mount_whose_process_died_is_replaced(make_cluster: MakeCluster, make_mount: MakeMount) -> None:
    cluster = make_cluster(1)
    mount = make_mount(cluster.url)
    run("echo kept > f", mount.path)
    assert mount.process is not None
    mount.process.send_signal(signal.SIGKILL)
    mount.process.wait()
    assert mount.mounted
    mount.start()
    wait_until(lambda: attempt("cat f", mount.path).stdout == "kept\n", "the new mount serves")
    assert "process has died" in mount.log.read_text()


def test_a_program_that_waits_can_be_killed_and_signals_that_do_not_kill_are_no_errors(
    make_cluster: MakeCluster, make_mount: MakeMount
) -> None:
    cluster = make_cluster(1)
    mount = make_mount(cluster.url, *PATIENT)
    run("echo there > f", mount.path)
    cluster.namenode.kill()
    code = (
        "import signal, sys\nsignal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)\nprint(open(sys.argv[1]).read(), end='')\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)"  # no handler stands when the interpreter ends
    )
    path = str(mount.path / "f")
    alarmed = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    doomed = subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL)
    wait_until(lambda: all(_waits(process.pid) for process in (alarmed, doomed)), "both wait for the namenode")
    doomed.terminate()
    assert doomed.wait(DEADLINE_S) == -signal.SIGTERM
    cluster.namenode.start()
    out, _ = alarmed.communicate(timeout=DEADLINE_S)
    assert (alarmed.returncode, out) == (0, "there\n")


def test_a_program_that_waits_for_a_page_of_a_datanode_can_be_killed(
    make_cluster: MakeCluster, make_mount: MakeMount
) -> None:
    cluster = make_cluster(1)
    run("head -c 30000000 /dev/zero | tr '\\0' x > big", make_mount(cluster.url).path)
    mount = make_mount(cluster.url, *PATIENT)
    code = (
        "import mmap, os, sys\nf = os.open(sys.argv[1], os.O_RDONLY)\nm = mmap.mmap(f, 0, prot=mmap.PROT_READ)\n"
        "m.madvise(mmap.MADV_RANDOM)\nat = int(sys.argv[2])\nprint(m[at : at + 4])"
    )  # a page that is read ahead is waited for without its request, which then is not interrupted
    page = [sys.executable, "-c", code, str(mount.path / "big")]
    assert run([*page, "8192000"]) == "b'xxxx'\n"
    cluster.datanodes[0].pause()
    doomed = subprocess.Popen([*page, "16384000"])
    wait_until(lambda: _waits(doomed.pid), "it waits for the datanode")
    doomed.terminate()
    assert doomed.wait(DEADLINE_S) == -signal.SIGTERM
    cluster.datanodes[0].resume()
    assert run([*page, "16384000"]) == "b'xxxx'\n"


def _waits(pid: int) -> bool:
    return "fuse" in Path(f"/proc/{pid}/wchan").read_text() or "request_wait" in Path(f"/proc/{pid}/wchan").read_text()
