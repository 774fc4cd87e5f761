"""Mounts whose process died are replaced at once, and no others: neither living ones nor such as do not answer."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster.real_cluster import ROOT, Cluster, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import MakeMount, Mount, attempt, run
from tests.mount.test_volume_plugin import Plugin, make_plugin

__all__ = ["make_plugin"]

DFS = [sys.executable, str(ROOT / "dfs.py")]


def die(mount: Mount) -> None:
    """With the attributes of its root in the kernel's cache, so that stat goes on as if it lived."""
    run(["stat", str(mount.path)])
    assert mount.process is not None
    mount.process.kill()
    mount.process.wait()
    assert mount.mounted


def layers(place: Path) -> int:
    return Path("/proc/self/mountinfo").read_text().count(f" {place} ")


def test_a_dead_mount_is_replaced_at_once(cluster: Cluster, make_mount: MakeMount) -> None:
    mount = make_mount(cluster.url)
    die(mount)
    run([*DFS, str(mount.path), cluster.url])
    run("echo again > f; cat f", mount.path)
    assert layers(mount.path) == 1
    run([*DFS, "umount", str(mount.path)])


def test_of_many_who_find_a_dead_mount_one_replaces_it(cluster: Cluster, make_mount: MakeMount) -> None:
    mount = make_mount(cluster.url)
    die(mount)
    started = [
        subprocess.Popen([*DFS, str(mount.path), cluster.url], stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [process.communicate(timeout=3 * DEADLINE_S)[1] for process in started]
    assert sorted(process.returncode for process in started) == [0, 1, 1], said
    assert sum("already mounted" in text for text in said) == 2
    assert layers(mount.path) == 1
    run("echo again > f; cat f", mount.path)


def test_a_mount_that_does_not_answer_is_left_alone(cluster: Cluster, make_mount: MakeMount) -> None:
    mount = make_mount(cluster.url)
    assert mount.process is not None
    mount.process.send_signal(signal.SIGSTOP)
    done = attempt([*DFS, str(mount.path), cluster.url])
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "does not answer" in done.stderr
    mount.process.send_signal(signal.SIGCONT)
    run("echo alive > f; cat f", mount.path)
    assert "already mounted\n" in attempt([*DFS, str(mount.path), cluster.url]).stderr


def test_a_link_to_a_mount_is_that_mount(cluster: Cluster, make_mount: MakeMount, tmp_path: Path) -> None:
    mount = make_mount(cluster.url)
    link = tmp_path / "link"
    link.symlink_to(mount.path)
    assert "already mounted" in attempt([*DFS, str(link), cluster.url]).stderr
    die(mount)
    run([*DFS, str(link), cluster.url])
    run([*DFS, "umount", str(link)])
    assert not mount.mounted


def test_a_volume_is_handed_out_again_after_its_mount_died(
    cluster: Cluster, make_plugin: Callable[[str], Plugin]
) -> None:
    plugin = make_plugin(cluster.url)
    plugin.driver("Create", Name="v", Opts={})
    place = Path(plugin.driver("Mount", Name="v", ID="one")["Mountpoint"])
    run(f"echo kept > {place}/f; stat {plugin.mountpoint} {place}")
    for process in processes_of(plugin.mountpoint):
        run(["kill", "-KILL", process])
    wait_until(lambda: not processes_of(plugin.mountpoint), "the mount's process is gone")
    again = Path(plugin.driver("Mount", Name="v", ID="two")["Mountpoint"])
    assert run(f"cat {again}/f") == "kept\n"


def processes_of(mountpoint: Path) -> list[str]:
    """The processes that serve a mount, by their command lines; those that have ended have none."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(mountpoint).encode() in words and any(word.endswith(b"dfs.py") for word in words):
            found.append(folder.name)
    return found
