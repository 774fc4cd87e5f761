"""The command that mounts: it returns when the mount answers, or says in one line why it cannot."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.real_cluster import ROOT, Cluster, free_ports, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import attempt, run

DFS = [sys.executable, str(ROOT / "dfs.py")]
NOBODY = 41005


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory; whatever is mounted there is taken off at the end."""
    made = tmp_path / "mnt"
    made.mkdir()
    yield made
    while f" {made} " in Path("/proc/self/mountinfo").read_text():
        subprocess.run(["umount", "-l", str(made)], check=True, timeout=DEADLINE_S)


def address(cluster: Cluster) -> list[str]:
    return ["127.0.0.1", str(cluster.namenode.port)]


def is_mounted(place: Path) -> bool:
    return f" {place} " in Path("/proc/self/mountinfo").read_text()


def test_it_returns_when_the_mount_answers(cluster: Cluster, place: Path, tmp_path: Path) -> None:
    run([*DFS, "--log", str(tmp_path / "log"), str(place), *address(cluster)])
    run("echo here > background", place)
    assert "mounted" in (tmp_path / "log").read_text()
    run([*DFS, "umount", str(place)])
    assert not is_mounted(place)
    wait_until(lambda: "unmounted" in (tmp_path / "log").read_text(), "the process has ended in good order")


def test_failures_are_one_line_and_status_1(cluster: Cluster, place: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    nobody = str(free_ports(1)[0])
    for arguments, said in (
        ([str(place), "127.0.0.1", nobody], "127.0.0.1"),
        ([str(tmp_path / "missing"), *address(cluster)], "no such directory"),
        ([str(file), *address(cluster)], "needs a directory"),
    ):
        for foreground in ([], ["-f"]):
            done = attempt([*DFS, *foreground, *arguments])
            assert (done.returncode, done.stdout) == (1, "")
            lines = [line for line in done.stderr.splitlines() if line.startswith("dfs: ")]
            assert len(lines) == 1
            assert said in lines[0]
            assert foreground or done.stderr.count("\n") == 1


def test_what_is_mounted_is_not_mounted_again(cluster: Cluster, place: Path) -> None:
    run([*DFS, str(place), *address(cluster)])
    done = attempt([*DFS, str(place), *address(cluster)])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "already mounted" in done.stderr
    run([*DFS, "umount", str(place)])
    done = attempt([*DFS, "umount", str(place)])
    assert done.returncode == 1
    assert "not a mount of DFS" in done.stderr


def test_options(cluster: Cluster, place: Path) -> None:
    run([*DFS, "-o", f"uid={NOBODY},gid={NOBODY + 1},cache=32,timeout=5", str(place), *address(cluster)])
    run("echo x > shown", place)
    assert run("stat -c %u.%g shown", place) == f"{NOBODY}.{NOBODY + 1}\n"
    run([*DFS, "umount", str(place)])
    run([*DFS, "-o", "ro", str(place), *address(cluster)])
    assert run("cat shown", place) == "x\n"
    assert "Read-only file system" in attempt("echo y > shown", place).stderr
    run([*DFS, "umount", str(place)])


def test_mkfs_asks_and_empties(cluster: Cluster, place: Path) -> None:
    run([*DFS, "--url", cluster.url, "mkdir", "-p", "/old/tree"])
    asked = attempt([*DFS, "--mkfs", str(place), *address(cluster)])
    assert asked.returncode == 1
    assert "Type yes" in asked.stderr
    assert not is_mounted(place)
    run([*DFS, "--mkfs", "--yes", str(place), *address(cluster)])
    assert run("ls", place) == ""
    run([*DFS, "umount", str(place)])


def test_somebody_who_is_not_root_mounts(
    cluster: Cluster, tmp_path: Path, place: Path, request: pytest.FixtureRequest
) -> None:
    if os.geteuid() != 0:
        pytest.skip("changes users: needs root")
    for above in (place, *place.parents):
        if above.stat().st_mode & 0o005 != 0o005:  # pytest's folders are for their owner
            above.chmod(0o755)
    user = pwd.getpwnam("nobody")  # fusermount3 wants one that has a name
    os.chown(place, user.pw_uid, user.pw_gid)
    device = Path("/dev/fuse")
    mode = device.stat().st_mode
    device.chmod(0o666)  # as udev has it; undone below
    request.addfinalizer(lambda: device.chmod(mode & 0o7777))
    as_user = ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]
    reachable = attempt([*as_user, sys.executable, "-c", ""])
    if reachable.returncode:
        pytest.skip(f"another user cannot start {sys.executable}")
    options = ["-o", "relatime,noexec,noatime,nosuid,nodev,sync,user"]
    done = attempt([*as_user, *DFS, *options, str(place), *address(cluster)], tmp_path, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    flags = run(["findmnt", "-n", "-o", "VFS-OPTIONS", "--mountpoint", str(place)]).strip().split(",")
    assert {"noexec", "noatime", "nosuid", "nodev"} <= set(flags)
    run([*as_user, "bash", "-c", f"echo mine > {place}/mine || true; ls {place}"])
    run([*as_user, *DFS, "umount", str(place)])
    assert not is_mounted(place)


def test_the_portable_binding(cluster: Cluster, place: Path, tmp_path: Path) -> None:
    run([*DFS, "--binding", "fusepy", "--log", str(tmp_path / "log"), str(place), *address(cluster)])
    run("mkdir d; echo one > d/f; cp d/f d/g; mv d/g d/h; ln -s f d/l; ln d/f d/hard; chmod 600 d/f", place)
    assert run("cat d/f d/h d/l; ls d; stat -c %a.%h d/f", place).split() == [
        "one", "one", "one", "f", "h", "hard", "l", "600.2",
    ]  # fmt: skip
    run("head -c 3000000 /dev/urandom > big; cp big copy; cmp big copy; truncate -s 5 big; rm -r d copy big", place)
    assert run("ls", place) == run([*DFS, "--url", cluster.url, "ls", "/"])
    run([*DFS, "umount", str(place)])
    assert not is_mounted(place)
    run([*DFS, "--binding", "fusepy", "--log", str(tmp_path / "log"), str(place), *address(cluster)])
    run([*DFS, "umount", "--lazy", str(place)])
    assert not is_mounted(place)


@pytest.mark.parametrize("taken_off_before", [False, True])
def test_up_mounts_and_takes_off_the_mount_first(place: Path, tmp_path: Path, *, taken_off_before: bool) -> None:
    ports = free_ports(2)
    up = subprocess.Popen(
        [*DFS, "up", "--datanodes=1", f"--data={tmp_path}/var", f"--port={ports[0]}", f"--mount={place}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert up.stdout is not None
        lines = [up.stdout.readline() for _ in range(4)]
        assert lines[3] == f"mounted: {place}\n"
        run("echo kept > f", place)
        if taken_off_before:
            run([*DFS, "umount", str(place)])
    finally:
        up.terminate()
    assert up.wait(DEADLINE_S) == 0
    assert not is_mounted(place)
    up.stdout.close()
