"""`make install`, and then the real mount(8), findmnt(8) and umount(8), in a namespace of mounts of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfslib.client.namenode import HttpNameNode
from tests.cluster.real_cluster import ROOT, Cluster
from tests.mount.real_mount import attempt, run

PRELUDE = """
# the system's /sbin with what was installed beside it; nobody outside of this namespace sees that
mkdir real; mount --bind "$(readlink -f /sbin)" real
make -s -C "$ROOT" install PREFIX=/usr DESTDIR="$PWD/new"
for program in real/*; do ln -s "$PWD/$program" new/sbin/; done
mount --bind new/sbin "$(readlink -f /sbin)"
mkdir -p mnt
trap 'while mountpoint -q mnt; do umount -l mnt; done' EXIT
status() { local code=0; "$@" 2> said || code=$?; echo "$code $(cat said)"; }
"""


@pytest.fixture
def script(cluster: Cluster, tmp_path: Path) -> list[str]:
    if os.geteuid() != 0:
        pytest.skip("mounts as root does")
    return ["unshare", "--mount", "--propagation", "private", "bash", "-euo", "pipefail", "-c"]


def in_namespace(script: list[str], lines: str, tmp_path: Path, source: str) -> list[str]:
    return run([*script, PRELUDE + lines], tmp_path, ROOT=str(ROOT), SOURCE=source).splitlines()


def test_mount_findmnt_remount_umount(script: list[str], cluster: Cluster, tmp_path: Path) -> None:
    source = f"127.0.0.1:{cluster.namenode.port}"
    said = in_namespace(
        script,
        """
        for type in dfs fuse.dfs; do
            mount -t $type -o noexec,noatime,_netdev,x-systemd.automount,cache=32 $SOURCE mnt
            findmnt -n -o SOURCE,FSTYPE --mountpoint "$PWD/mnt"
            findmnt -n -o VFS-OPTIONS --mountpoint "$PWD/mnt"
            echo $type > mnt/f
            mount -o remount,ro mnt
            status touch mnt/g
            mount -o remount,rw mnt
            touch mnt/g
            findmnt -n -o VFS-OPTIONS --mountpoint "$PWD/mnt"
            umount $SOURCE
            ls mnt
        done
        """,
        tmp_path,
        source,
    )
    each = [
        f"{source} fuse.dfs", "rw,nosuid,nodev,noexec,noatime",
        "1 touch: cannot touch 'mnt/g': Read-only file system", "rw,nosuid,nodev,noexec,noatime",
    ]  # fmt: skip
    assert [" ".join(line.split()) for line in said] == each * 2


def test_fstab(script: list[str], cluster: Cluster, tmp_path: Path) -> None:
    source = f"http://127.0.0.1:{cluster.namenode.port}/"
    said = in_namespace(
        script,
        """
        echo "$SOURCE $PWD/mnt dfs defaults,ro,nofail,user,noauto,timeout=5 0 0" > fstab
        mount --fstab fstab "$PWD/mnt"
        findmnt -n -o SOURCE --mountpoint "$PWD/mnt"
        sed -i s/noauto,// fstab
        mount --fstab fstab --all
        grep -c " $PWD/mnt " /proc/self/mountinfo
        umount mnt
        """,
        tmp_path,
        source,
    )
    assert said == [source, "1"]


def test_a_directory_of_the_tree_alone(script: list[str], cluster: Cluster, tmp_path: Path) -> None:
    source = f"127.0.0.1:{cluster.namenode.port}"
    with HttpNameNode(cluster.url) as tree:
        tree.mkdir("/part/below", parents=True)
        tree.symlink("/etc", "/part/link")
    said = in_namespace(
        script,
        """
        mount -t dfs $SOURCE/part mnt
        findmnt -n -o SOURCE,FSROOT --mountpoint "$PWD/mnt"
        echo here > mnt/below/f
        ls mnt mnt/..  | grep -c below
        grep -c " $PWD/mnt " /proc/self/mountinfo
        umount mnt
        ls mnt
        status mount -t dfs $SOURCE/part/link mnt
        """,
        tmp_path,
        source,
    )
    assert [" ".join(line.split()) for line in said[:3]] == [f"{source}/part[/part] /part", "1", "1"]
    assert said[3].startswith("32 ")
    assert "symbolic link" in said[3]
    with HttpNameNode(cluster.url) as tree:
        assert tree.cat("/part/below/f") == b"here\n"


def test_failures_have_the_statuses_of_mount(script: list[str], cluster: Cluster, tmp_path: Path) -> None:
    said = in_namespace(
        script,
        """
        status mount -t dfs -o nosuch $SOURCE mnt
        status mount -t dfs 127.0.0.1:1 mnt
        status mount -t dfs $SOURCE/no/such mnt
        ! mountpoint -q mnt
        status new/sbin/mount.dfs $SOURCE mnt -o remount,ro
        mount -t dfs $SOURCE mnt
        status new/sbin/mount.dfs $SOURCE mnt
        """,
        tmp_path,
        f"127.0.0.1:{cluster.namenode.port}",
    )
    assert [line.partition(" ")[0] for line in said] == ["1", "32", "32", "32", "32"]
    for line, word in zip(said, ("nosuch", "127.0.0.1", "no directory /no/such", "no mount", "already"), strict=True):
        assert word in line


def test_what_is_installed_is_uninstalled(tmp_path: Path) -> None:
    for target in ("install", "uninstall"):
        run(["make", "-s", "-C", str(ROOT), target, f"DESTDIR={tmp_path}", "PREFIX=/opt"])
        files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())
        assert files == (["opt/bin/dfs", "sbin/mount.dfs", "sbin/mount.fuse.dfs"] if target == "install" else [])
        if target == "install":
            assert attempt([str(tmp_path / "sbin/mount.dfs"), "--help"]).returncode == 0
