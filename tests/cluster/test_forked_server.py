"""Forked servers are what servers that start by themselves are, and none of them outlives the tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.forked_server import ForkedServer, Zygote
from tests.cluster.real_cluster import ROOT, alive_datanodes, free_ports, wait_until
from tests.deadline import DEADLINE_S


def namenode(folder: Path, **settings: str) -> dict[str, str]:
    return {
        "DFS_NODE_CLASS": "name_node.NameNode",
        "DFS_HOST": "127.0.0.1",
        "DFS_PORT": str(free_ports(1)[0]),
        "DFS_DB_PATH": str(folder / "namenode"),
        "DFS_NEW_CLUSTER": "true",
    } | settings


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


def start(zygote: Zygote, environment: dict[str, str], log: Path) -> ForkedServer:
    with log.open("ab") as file:
        return zygote.start_server(environment, file.fileno())


def start_and_wait(zygote: Zygote, folder: Path) -> ForkedServer:
    environment = namenode(folder)
    server = start(zygote, environment, folder / "log")
    wait_until(lambda: alive_datanodes(f"http://127.0.0.1:{environment['DFS_PORT']}/") == 0, "it serves")
    return server


def open_files(process: Path) -> set[Path]:
    """Those of a process that goes on opening and closing some."""
    found: set[Path] = set()
    for descriptor in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since the folder was read
            found.add(descriptor.readlink())
    return {path for path in found if path.is_absolute()}


def test_it_is_a_process_of_its_own(zygote: Zygote, tmp_path: Path) -> None:
    server = start_and_wait(zygote, tmp_path)
    here = Path(f"/proc/{server.pid}")
    files = open_files(here) - {Path("/dev/null")}
    assert tmp_path / "log" in files
    assert all(path.is_relative_to(tmp_path) for path in files), "no file of the tests or the zygote"
    assert (here / "cwd").readlink() == ROOT
    assert server.poll() is None
    server.send_signal(signal.SIGTERM)
    assert server.wait(DEADLINE_S) == server.poll() == server.returncode == 0
    assert "stopped" in (tmp_path / "log").read_text().splitlines()[-1]
    server.kill()  # of what has ended: nothing happens


def test_exit_statuses(zygote: Zygote, tmp_path: Path) -> None:
    killed = start_and_wait(zygote, tmp_path)
    killed.kill()
    assert killed.wait(DEADLINE_S) == -signal.SIGKILL
    wrong = start(zygote, {"DFS_NODE_CLASS": "no.Node", "DFS_PORT": "1"}, tmp_path / "wrong.log")
    assert wrong.wait(DEADLINE_S) == 2
    assert "no.Node" in (tmp_path / "wrong.log").read_text()


def test_a_wait_has_its_bound(zygote: Zygote, tmp_path: Path) -> None:
    server = start_and_wait(zygote, tmp_path)
    with pytest.raises(subprocess.TimeoutExpired):
        server.wait(0.01)


def test_servers_end_with_the_zygote(zygote: Zygote, tmp_path: Path) -> None:
    server = start_and_wait(zygote, tmp_path)
    server.send_signal(signal.SIGSTOP)
    zygote.close()
    assert server.wait(DEADLINE_S) == -signal.SIGKILL
    wait_until(lambda: not Path(f"/proc/{server.pid}").exists(), "it is gone")


_ABANDONED = """
import json, os, sys
from tests.cluster.forked_server import Zygote
with open(sys.argv[1], "ab") as log:
    print(Zygote().start_server(json.loads(sys.argv[2]), log.fileno()).pid, flush=True)
os.kill(os.getpid(), 9)
"""


def test_servers_end_with_tests_that_are_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ABANDONED, str(tmp_path / "log"), json.dumps(namenode(tmp_path))]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=DEADLINE_S,
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the server is gone")
