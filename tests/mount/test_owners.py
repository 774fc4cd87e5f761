"""To whom things belong that an ordinary user starts and puts, as a mount shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfslib.client.namenode import HttpNameNode
from tests.cluster.real_cluster import ROOT, Cluster, free_ports
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import MakeMount, Mount, run

DFS = [sys.executable, str(ROOT / "dfs.py")]
USER = 41005
CAN_READ = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
"""The interpreter may lie where only its owner can read; what the user may write to is as for any other."""
AS_USER = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", *CAN_READ]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory of the user's."""
    if os.geteuid() != 0:
        pytest.skip("changes users: needs root")
    made = tmp_path / "home"
    made.mkdir()
    os.chown(made, USER, USER)
    return made


@pytest.fixture
def port() -> int:
    return free_ports(2)[0]


def up(home: Path, port: int) -> subprocess.Popen[str]:
    started = subprocess.Popen(
        [*AS_USER, *DFS, "up", "--datanodes=1", f"--data={home}/var", f"--port={port}"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=home,
    )  # fmt: skip
    assert started.stdout is not None
    assert started.stdout.readline().startswith("curl:")
    return started


def stop(started: subprocess.Popen[str]) -> None:
    started.terminate()
    assert started.wait(DEADLINE_S) == 0
    assert started.stdout is not None
    started.stdout.close()


def test_a_new_tree_belongs_to_who_starts_it(home: Path, port: int, make_mount: MakeMount) -> None:
    url = f"http://127.0.0.1:{port}/"
    started = up(home, port)
    try:
        mount = make_mount(url)
        run([*AS_USER, "bash", "-c", "echo mine > f; mkdir d; stat -c %u.%g . f d > seen; cat seen"], mount.path)
        assert run(["cat", "seen"], mount.path).split() == [f"{USER}.{USER}"] * 3
        with HttpNameNode(url) as tree:
            tree.chown("/", 0, 0)
    finally:
        stop(started)
    started = up(home, port)
    try:
        with HttpNameNode(url) as tree:
            assert tree.stat("/").uid == 0  # there is something in it: it is not given away
    finally:
        stop(started)


def test_what_is_put_belongs_to_who_puts_it(home: Path, cluster: Cluster, mount: Mount, folder: Path) -> None:
    here = "/" + folder.name
    put = " ".join([*DFS, "--url", cluster.url, "put"])
    run(
        [
            *AS_USER, "bash", "-euc",
            f"""
            umask 027; mkdir -p tree/sub; echo x > tree/sub/f; ln -s sub/f tree/link; chmod 2775 tree/sub
            echo y > single; chmod 4777 single; chmod 666 tree/sub/f
            {put} single {here}/single; {put} -p single {here}/kept; {put} -r tree {here}/tree
            echo z | {put} - {here}/piped
            """,
        ],
        home,
    )  # fmt: skip
    run([*DFS, "--url", cluster.url, "put", str(home / "single"), f"{here}/roots"])
    run([*DFS, "--url", cluster.url, "put", "-p", str(home / "single"), f"{here}/kept-by-root"])
    names = "single kept tree tree/sub tree/sub/f tree/link piped roots kept-by-root"
    said = run(f"stat -c '%n %u %g %a' {names}", folder).splitlines()
    assert dict(line.split(" ", 1) for line in said) == {
        "single": f"{USER} {USER} 750",
        "kept": f"{USER} {USER} 4777",
        "tree": f"{USER} {USER} 750",
        "tree/sub": f"{USER} {USER} 2775",
        "tree/sub/f": f"{USER} {USER} 666",
        "tree/link": f"{USER} {USER} 777",
        "piped": f"{USER} {USER} 644",
        "roots": "0 0 755",
        "kept-by-root": f"{USER} {USER} 4777",
    }
    run([*AS_USER, "bash", "-c", "echo more >> tree/sub/f && rm -r tree/sub"], folder)
