"""Every command in the documents runs, and their tables say what the code says."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from dfslib.cli.main import COMMANDS
from dfslib.config import SETTINGS
from dfslib.errors import error_classes
from tests.cluster.plain_http import call
from tests.cluster.real_cluster import ROOT, Cluster, alive_datanodes, free_ports, wait_until
from tests.deadline import DEADLINE_S

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
DEFAULT_URL = "http://localhost:8180/"


def blocks(document: Path, language: str) -> list[str]:
    return [text for kind, text in _FENCE.findall(document.read_text()) if kind == language]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user sees in a checkout, in a folder that may be written to."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("dfs.py", "server.py", "http_client.py"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "dfslib", folder / "dfslib", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def environment(url: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DFS_URL": url, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_shell_and_python_examples(cluster: Cluster, checkout: Path, document: Path) -> None:
    kinds = {kind for kind, _ in _FENCE.findall(document.read_text())}
    assert kinds <= {"sh", "python", "console", ""}, "a kind of example that nothing runs"
    for language in ("sh", "python"):
        for text in blocks(document, language):
            text = text.replace(DEFAULT_URL, cluster.url)
            command = ["bash", "-eux", "-c", text] if language == "sh" else [sys.executable, "-c", text]
            done = subprocess.run(
                command, cwd=checkout, env=environment(cluster.url), capture_output=True, text=True, timeout=DEADLINE_S
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            assert '"error"' not in done.stdout, done.stdout


def test_running_the_processes_by_hand(checkout: Path) -> None:
    """The two lines of the README, with free ports in the place of theirs."""
    by_hand = next(text for text in blocks(ROOT / "README.md", "console") if "server.py" in text)
    name_port, data_port = free_ports(2)
    namenode, datanode = by_hand.strip().splitlines()
    datanode = datanode.replace("8180", str(name_port)).replace("8181", str(data_port))
    lines = [f"DFS_PORT={name_port} {namenode}", datanode]
    with contextlib.ExitStack() as stack:
        for line in lines:
            stack.enter_context(running(["bash", "-c", f"exec env {line}"], checkout))
        url = f"http://localhost:{name_port}/"
        wait_until(lambda: alive_datanodes(url) == 1, "the datanode is alive")
        assert call(url, "PUT", "/fs/x", b"by hand").status == 201
        assert requests.get(f"{url}fs/x", timeout=DEADLINE_S).content == b"by hand"
    assert (checkout / "nodes").is_dir()
    assert (checkout / "rootfs" / "identity.json").is_file()


def test_make_up_on_a_clean_clone(tmp_path: Path) -> None:
    """From nothing to a cluster that holds a file over a restart, as the README's first lines have it."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    port = free_ports(4)[0]
    url = f"http://127.0.0.1:{port}/"
    for content in (b"first", b"second"):
        with running(["make", "up", f"PORT={port}"], clone):
            wait_until(lambda: alive_datanodes(url) == 3, "three datanodes are alive", 5 * DEADLINE_S)
            if content == b"second":
                assert requests.get(f"{url}fs/kept", timeout=DEADLINE_S).content == b"first"
            assert call(url, "PUT", "/fs/kept", content).status in (200, 201)
            shown = subprocess.run(
                ["./dfs.py", "--url", url, "cat", "/kept"], cwd=clone, capture_output=True, check=True, timeout=60
            )
            assert shown.stdout == content


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[None]:
    """A program in the foreground, ended as Ctrl-C ends it: its whole group gets SIGINT."""
    log = folder / "running.log"
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("DFS_", "MAKE", "MFLAGS"))}
    with log.open("ab") as output:
        process = subprocess.Popen(command, cwd=folder, env=plain, stdout=output, stderr=output, start_new_session=True)
    try:
        yield
    except BaseException:
        print(log.read_text())
        raise
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(DEADLINE_S)


def test_the_readme_lists_every_setting_and_command() -> None:
    rows = (ROOT / "README.md").read_text().splitlines()
    for setting in SETTINGS:
        default = "required" if setting.required else f"`{setting.default}`" if setting.default is not None else ""
        expected = f"| `{setting.name}` | {', '.join(setting.readers)} | {default} | {setting.meaning} |"
        assert expected in rows
    for command in COMMANDS:
        assert f"| `{command.name}` | {command.summary} |" in rows


def test_the_protocol_lists_every_error_with_its_status() -> None:
    rows = (ROOT / "docs" / "protocol.md").read_text().splitlines()
    for code, error in error_classes().items():
        assert any(row.startswith(f"| {error.http_status} |") and f"`{code}`" in row for row in rows), code
