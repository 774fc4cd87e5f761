"""Real mounts for tests: `dfs.py -f` processes over `/dev/fuse`, and programs that use them, with deadlines.

A mount that hangs must not hang pytest: whatever touches it runs in another process (`run`), and every mount is taken
off lazily at the end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.cluster.real_cluster import ROOT, wait_until
from tests.deadline import DEADLINE_S

PROGRAM_S = 3 * DEADLINE_S


class Mount:
    """One mount of a cluster, in a process of its own; its log is kept beside the mount point."""

    def __init__(self, url: str, path: Path, *arguments: str) -> None:
        self.url = url
        self.path = path
        self.arguments = arguments
        self.log = path.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if not self.mounted:
            self.path.mkdir(exist_ok=True)
        before = self._times_mounted()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "dfs.py"), "-f", *self.arguments, str(self.path), self.url],
                stdout=log,
                stderr=log,
                cwd=ROOT,
            )
        process = self.process
        wait_until(lambda: self._times_mounted() > before or process.poll() is not None, f"{self.path} mounted")
        assert self._times_mounted() > before, self.log.read_text()

    def _times_mounted(self) -> int:
        return self.log.read_text().count(f" mounted mountpoint={self.path} ") if self.log.exists() else 0

    @property
    def mounted(self) -> bool:
        return f" {self.path} " in Path("/proc/self/mountinfo").read_text()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def stop(self) -> int:
        """As an operator does it (SIGTERM); the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        """As a power cut does it; what is left of the mount is taken off."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._take_off()

    def clean_up(self) -> None:
        """Whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._take_off()

    def _take_off(self) -> None:
        while self.mounted:
            subprocess.run(["umount", "-l", str(self.path)], check=True, timeout=DEADLINE_S)


class MakeMount(Protocol):
    """Mounts any cluster, for tests that break mounts: make_mount(url, "-o", "timeout=5")."""

    def __call__(self, url: str, *arguments: str) -> Mount: ...


class MakeSharedMount(Protocol):
    """Makes a further mount of the module's cluster: make_shared_mount("-o", "ro")."""

    def __call__(self, *arguments: str) -> Mount: ...


def run(
    command: str | Sequence[str], cwd: Path | None = None, timeout_s: float = PROGRAM_S, **variables: str
) -> str:
    """What a program prints, which must succeed. A string is a line for bash."""
    done = attempt(command, cwd, timeout_s, **variables)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def attempt(
    command: str | Sequence[str], cwd: Path | None = None, timeout_s: float = PROGRAM_S, **variables: str
) -> subprocess.CompletedProcess[str]:
    """A program that may fail. It and what it started is killed at its deadline."""
    words = ["bash", "-euo", "pipefail", "-c", command] if isinstance(command, str) else list(command)
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"{command}: not done within {timeout_s:g} s\n{out}\n{err}") from None
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def run_python(code: str, cwd: Path, timeout_s: float = PROGRAM_S) -> str:
    """What a Python program prints, which must succeed."""
    return run([sys.executable, "-c", code], cwd, timeout_s)
