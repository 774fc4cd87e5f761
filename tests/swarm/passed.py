"""Whether a suite has passed with the files as they are: `python3 tests/swarm/passed.py SUITE`, status 0 if it has.

`swarm` and `mesh` take long, and need Docker. When all of a suite has passed, its stamp, the SHA-256 over path, mode
and content of every file that its outcome depends on, is written below `stamps`; committed with the change, it tells
CI that there is nothing new to be found. As a plugin of pytest it writes them: `-p tests.swarm.passed --stamp SUITE`.
Without any package, so that CI can ask before it installs them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
STAMPS: Final = ROOT / "tests" / "swarm" / "stamps"
_IMAGE: Final = (
    "Dockerfile", ".dockerignore", "requirements/runtime.lock", "dfslib",
    "server.py", "dfs.py", "name_node.py", "data_node.py", "http_client.py",
)  # fmt: skip
"""All that the image is made of, and the project that the tests import: the whole of it, as any part may break it."""
_TESTS: Final = (
    "docker-compose.yml", "deploy", "pyproject.toml", "requirements/dev.lock", "tests/conftest.py", "tests/deadline.py",
    "tests/cluster/forked_server.py", "tests/cluster/real_cluster.py", "tests/cluster/server_zygote.py",
    "tests/interleaving.py",
)  # fmt: skip
"""What the tests of both suites use; tests/arch finds what they import beside it."""
INPUTS: Final = {
    "swarm": (
        *_IMAGE, *_TESTS, ".env.example", "docs/swarm.md", "tests/cluster/balancer.py", "tests/mount/real_mount.py",
        ":(glob)tests/swarm/*.*",
    ),
    "mesh": (
        *_IMAGE, *_TESTS, *(f"tests/swarm/{name}.py" for name in ("compose", "conftest", "engine", "load", "passed")),
        "tests/swarm/mesh_vm",
    ),
}  # fmt: skip
"""Pathspecs of git."""


def files(suite: str) -> list[Path]:
    """Those that decide the suite's outcome, below ROOT: what git knows, and what it would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    names = subprocess.run([*command, *INPUTS[suite]], cwd=ROOT, check=True, capture_output=True).stdout
    found = {ROOT / os.fsdecode(name) for name in names.split(b"\0") if name}
    return sorted(path for path in found if path.is_symlink() or path.is_file())


def digest(suite: str) -> str:
    """Of the files as they are now."""
    known = hashlib.sha256()
    for path in files(suite):
        mode = "link" if path.is_symlink() else "executable" if os.access(path, os.X_OK) else "plain"
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for part in (os.fsencode(path.relative_to(ROOT)), mode.encode(), content):
            known.update(b"%d:" % len(part) + part)
    return known.hexdigest()


def stamp(suite: str) -> str:
    """That of the last time it passed; empty where there is none."""
    path = STAMPS / suite
    return path.read_text().strip() if path.exists() else ""


class _Recorder:
    """Writes the stamp at the end of a run in which every test of the suite has passed."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._before = digest(suite)
        self._left_out = 0

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._left_out += len(items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._left_out += report.skipped

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if exitstatus != 0:
            return
        if self._left_out:
            terminalreporter.write_line(f"no stamp: not all of {self._suite} was run, {self._left_out} left out")
        elif digest(self._suite) != self._before:
            terminalreporter.write_line(f"no stamp: files that {self._suite} depends on were changed meanwhile")
        else:
            STAMPS.mkdir(exist_ok=True)
            (STAMPS / self._suite).write_text(f"{self._before}\n")
            terminalreporter.write_line(f"stamp of {self._suite}: {self._before}, to be committed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stamp", choices=sorted(INPUTS), help="write the stamp of this suite when all of it has passed")


def pytest_configure(config: pytest.Config) -> None:
    if suite := config.getoption("--stamp"):
        config.pluginmanager.register(_Recorder(suite))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=sorted(INPUTS))
    suite = parser.parse_args().suite
    now, then = digest(suite), stamp(suite)
    if now == then:
        print(f"{suite}: left out, it has passed with the files as they are: stamp {then}")
        return 0
    print(f"{suite}: to be run, {'its files have changed since it passed' if then else 'it has no stamp'}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
