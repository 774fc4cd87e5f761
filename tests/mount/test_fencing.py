"""A mount that lost a lock changes nothing that was written under it since, and its programs are told."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.cluster.gate import Gate
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import MakeMount, run

GRACE_S = 2
CLIENT = """
import errno, fcntl, mmap, os, struct, sys
files, maps = {}, {}
OFD = {"try": 37, "wait": 38}
def do_open(name, path): files[name] = os.open(path, os.O_RDWR | os.O_CREAT)
def do_lock(name, how, kind, wait):
    f = files[name]
    if how == "ofd":
        kinds = {"ex": fcntl.F_WRLCK, "sh": fcntl.F_RDLCK, "un": fcntl.F_UNLCK}
        fcntl.fcntl(f, OFD[wait], struct.pack("hhqqi4x", kinds[kind], 0, 0, 0, 0))
        return
    flags = {"ex": fcntl.LOCK_EX, "sh": fcntl.LOCK_SH, "un": fcntl.LOCK_UN}[kind]
    if wait == "try" and kind != "un": flags |= fcntl.LOCK_NB
    (fcntl.flock if how == "flock" else fcntl.lockf)(f, flags)
def do_write(name, offset, byte, count): os.pwrite(files[name], byte.encode() * int(count), int(offset))
def do_read(name, offset, count): return os.pread(files[name], int(count), int(offset)).decode() or "nothing"
def do_fsync(name): os.fsync(files[name])
def do_truncate(name, size): os.ftruncate(files[name], int(size))
def do_close(name): os.close(files.pop(name))
def do_map(name, byte):
    maps[name] = mmap.mmap(files[name], 4096)
    maps[name][:4] = byte.encode() * 4
def do_msync(name): maps[name].flush()
for line in sys.stdin:
    what, *rest = line.split()
    try: print(globals()["do_" + what](*rest) or "ok", flush=True)
    except OSError as error: print(errno.errorcode[error.errno], flush=True)
"""


class Client:
    """A program that does what it is told, one line at a time."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def begin(self, *words: object) -> None:
        assert self.process.stdin is not None
        print(*words, file=self.process.stdin, flush=True)

    def end(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self, *words: object) -> str:
        self.begin(*words)
        return self.end()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=DEADLINE_S)


class MakeClient(Protocol):
    def __call__(self, path: Path, how: str = "", kind: str = "ex", wait: str = "try") -> Client: ...


@pytest.fixture
def client() -> Iterator[MakeClient]:
    """Programs that have a file open as `f`, and locked where they say how."""
    made: list[Client] = []

    def make(path: Path, how: str = "", kind: str = "ex", wait: str = "try") -> Client:
        made.append(Client())
        assert made[-1]("open", "f", path) == "ok"
        if how:
            assert made[-1]("lock", "f", how, kind, wait) == "ok"
        return made[-1]

    yield make
    for one in made:
        one.close()


class Pair:
    """A mount that can be cut off, and another one. The namenode waits for it for two seconds."""

    def __init__(self, cluster: Cluster, gate: Gate, make_mount: MakeMount) -> None:
        self.cluster = cluster
        self.gate = gate
        self.a = make_mount(gate.url)
        self.b = make_mount(cluster.url)

    def wait_until_lost(self) -> None:
        self._wait_for("session lost ")

    def wait_until_fenced(self, times: int = 1) -> None:
        self._wait_for("open file fenced ", times)

    def wait_until_back(self, times: int = 2) -> None:
        """The namenode has said so that often."""
        count = re.compile(rf"session connected .*mount=[^ ]*{self.a.path} ")
        wait_until(lambda: len(count.findall(self.cluster.namenode.log.read_text())) >= times, "it is back")

    def _wait_for(self, line: str, times: int = 1) -> None:
        wait_until(lambda: self.a.log.read_text().count(line) >= times, f"{line!r} in the log")

    def wait_until_ended(self, times: int = 1) -> None:
        log = self.cluster.namenode.log
        wait_until(lambda: log.read_text().count("session ended ") >= times, "the namenode has waited long enough")


@pytest.fixture
def pair(make_cluster: MakeCluster, make_mount: MakeMount) -> Iterator[Pair]:
    cluster = make_cluster(1, DFS_SESSION_GRACE=str(GRACE_S))
    with Gate(cluster.url) as gate:
        yield Pair(cluster, gate, make_mount)


def cut_off(pair: Pair) -> Callable[[], None]:
    pair.gate.shut()
    return pair.gate.open


def stop(pair: Pair) -> Callable[[], None]:
    process = pair.a.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("how", "away"), [("fcntl", cut_off), ("flock", cut_off), ("ofd", cut_off), ("fcntl", stop)],
)
def test_who_lost_a_lock_changes_nothing_and_is_told_until_it_opens_the_file_again(
    how: str, away: Callable[[Pair], Callable[[], None]], pair: Pair, client: MakeClient
) -> None:
    run("head -c 64 /dev/zero | tr '\\0' 0 > f", pair.b.path)
    holder, other = client(pair.a.path / "f", how), client(pair.a.path / "f")
    without = client(pair.a.path / "unlocked")
    assert holder("write", "f", 0, "a", 64) == "ok"
    assert other("write", "f", 64, "a", 300_000) == "ok"
    assert without("write", "f", 0, "u", 64) == "ok"
    comes_back = away(pair)
    next_holder = client(pair.b.path / "f", how, wait="wait")
    assert next_holder("read", "f", 0, 8) == "0" * 8
    assert next_holder("write", "f", 0, "b", 64) == "ok"
    assert next_holder("fsync", "f") == "ok"
    comes_back()
    pair.wait_until_fenced()
    for one in (holder, other):
        assert one("write", "f", 0, "x", 64) == "EIO"
        assert one("fsync", "f") == "EIO"
        assert one("fsync", "f") == "EIO"
        assert one("read", "f", 0, 8) in ("EIO", "b" * 8)  # the kernel may have the page
        assert one("truncate", "f", 5) == "EIO"
        assert one("truncate", "f", 0) == "EIO"
        assert one("lock", "f", how, "ex", "try") == "EIO"
        assert one("close", "f") == "EIO"
    assert without("fsync", "f") == "ok"
    assert run("cat unlocked", pair.b.path) == "u" * 64
    assert next_holder("read", "f", 0, 100) == "b" * 64
    assert holder("open", "f", pair.a.path / "f") == "ok"
    assert holder("read", "f", 0, 100) == "b" * 64
    assert holder("lock", "f", how, "ex", "try") == "EAGAIN"
    assert next_holder("close", "f") == "ok"
    assert holder("lock", "f", how, "ex", "wait") == "ok"
    assert holder("write", "f", 0, "c", 64) == "ok"
    assert holder("close", "f") == "ok"
    assert run("cat f", pair.b.path) == "c" * 64


@pytest.mark.parametrize(("first", "second"), [("ex", "sh"), ("sh", "ex")])
def test_a_lock_that_somebody_had_and_gave_up_meanwhile_is_lost(
    first: str, second: str, pair: Pair, client: MakeClient
) -> None:
    holder = client(pair.a.path / "f", "fcntl", first)
    assert holder("write", "f", 0, "a", 64) == "ok"
    pair.gate.shut()
    passing = client(pair.b.path / "f", "fcntl", second, "wait")
    assert passing("close", "f") == "ok"
    pair.gate.open()
    pair.wait_until_fenced()
    assert holder("close", "f") == "EIO"
    assert run("wc -c < f", pair.b.path) == "0\n"


def test_a_lock_that_nobody_stood_against_meanwhile_is_had_again_with_all_that_was_written(
    pair: Pair, client: MakeClient
) -> None:
    holder, reader = client(pair.a.path / "f", "fcntl"), client(pair.a.path / "g", "flock", "sh")
    appender = client(pair.a.path / "h")
    for one in (holder, reader, appender):
        assert one("write", "f", 0, "a", 300_000) == "ok"
    pair.gate.shut()
    pair.wait_until_ended()
    another_reader = client(pair.b.path / "g", "flock", "sh", "try")
    pair.gate.open()
    pair.wait_until_lost()
    for one in (holder, reader, appender):
        assert one("fsync", "f") == "ok"
    assert run("cat f g h | tr -d a | wc -c", pair.b.path) == "0\n"
    assert run("cat f g h | wc -c", pair.b.path) == "900000\n"
    rival = client(pair.b.path / "f")
    assert rival("lock", "f", "fcntl", "ex", "try") == "EAGAIN"
    assert rival("open", "g", pair.b.path / "g") == "ok"
    assert another_reader("close", "f") == "ok"
    assert rival("lock", "g", "flock", "ex", "try") == "EAGAIN"
    assert holder("close", "f") == "ok"
    assert rival("lock", "f", "fcntl", "ex", "try") == "ok"
    assert "fenced" not in pair.a.log.read_text()


def test_locks_and_what_was_written_under_them_outlive_a_restart_of_the_namenode(
    pair: Pair, client: MakeClient
) -> None:
    holder, rival = client(pair.a.path / "f", "fcntl"), client(pair.b.path / "f")
    rival.begin("lock", "f", "fcntl", "ex", "wait")
    assert holder("write", "f", 0, "a", 300_000) == "ok"
    pair.cluster.namenode.kill()
    assert holder("write", "f", 300_000, "a", 300_000) == "ok"
    pair.cluster.namenode.start()
    assert holder("close", "f") == "ok"
    assert rival.end() == "ok"
    assert rival("read", "f", 599_000, 2000) == "a" * 1000
    assert "fenced" not in pair.a.log.read_text() + pair.b.log.read_text()


def test_a_mount_that_stays_away_over_a_restart_of_the_namenode_has_lost_its_locks(
    pair: Pair, client: MakeClient
) -> None:
    """Nobody can know then whether somebody else had them."""
    holder = client(pair.a.path / "f", "fcntl")
    assert holder("write", "f", 0, "a", 64) == "ok"
    pair.gate.shut()
    pair.cluster.namenode.kill()
    pair.cluster.namenode.start()
    rival = client(pair.b.path / "f", "fcntl", wait="wait")
    assert rival("write", "f", 0, "b", 32) == "ok"
    assert rival("close", "f") == "ok"
    pair.gate.open()
    pair.wait_until_fenced()
    assert holder("close", "f") == "EIO"
    assert run("cat f", pair.b.path) == "b" * 32


def test_what_was_written_under_a_lock_is_there_for_who_has_it_next(pair: Pair, client: MakeClient) -> None:
    for how in ("fcntl", "flock", "ofd"):
        first, second = client(pair.a.path / how, how), client(pair.b.path / how)
        assert first("write", "f", 0, "a", 64) == "ok"
        assert first("lock", "f", how, "un", "try") == "ok"
        assert second("lock", "f", how, "ex", "wait") == "ok"
        assert second("read", "f", 0, 64) == "a" * 64
        assert second("write", "f", 0, "b", 64) == "ok"
        assert second("lock", "f", how, "sh", "try") == "ok", "others may read now"
        assert first("lock", "f", how, "sh", "wait") == "ok"
        assert first("read", "f", 0, 64) == "b" * 64
        assert second("close", "f") == "ok"
        assert first("close", "f") == "ok"
        assert run(f"cat {how}", pair.b.path) == "b" * 64


def test_a_lock_is_kept_for_what_is_not_written_yet_although_its_program_is_gone(
    pair: Pair, client: MakeClient, make_mount: MakeMount
) -> None:
    hasty = make_mount(pair.cluster.url, "-o", "timeout=2")
    first, second = client(hasty.path / "f", "fcntl"), client(pair.b.path / "f")
    pair.cluster.datanodes[0].pause()
    assert first("write", "f", 0, "a", 300_000) == "ok"
    assert first("lock", "f", "fcntl", "un", "try") == "EIO"
    assert second("lock", "f", "fcntl", "ex", "try") == "EAGAIN"
    assert first("close", "f") == "EIO"
    first.close()
    assert second("lock", "f", "fcntl", "ex", "try") == "EAGAIN"
    pair.cluster.datanodes[0].resume()
    assert second("lock", "f", "fcntl", "ex", "wait") == "ok"
    assert second("read", "f", 299_990, 100) == "a" * 10


def test_a_page_that_was_changed_in_memory_under_a_lost_lock_is_not_written_back(
    pair: Pair, client: MakeClient
) -> None:
    run("head -c 4096 /dev/zero | tr '\\0' 0 > f", pair.b.path)
    holder = client(pair.a.path / "f", "fcntl")
    assert holder("map", "f", "a") == "ok"
    pair.gate.shut()
    rival = client(pair.b.path / "f", "fcntl", wait="wait")
    assert rival("write", "f", 0, "b", 4096) == "ok"
    assert rival("fsync", "f") == "ok"
    pair.gate.open()
    pair.wait_until_fenced()
    again = client(pair.a.path / "f")
    assert again("read", "f", 0, 8) == "b" * 8
    assert again("fsync", "f") == "ok"
    assert holder("close", "f") == "EIO"
    assert again("write", "f", 8, "c", 8) == "ok"
    assert again("close", "f") == "ok"
    assert run("head -c 24 f", pair.b.path) == "b" * 8 + "c" * 8 + "b" * 8
