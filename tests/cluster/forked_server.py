"""Servers forked from server_zygote.py, with the interface of `subprocess.Popen` that tests use."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.deadline import DEADLINE_S

ZYGOTE = Path(__file__).with_name("server_zygote.py")


class ForkedServer:
    """A process that is another process's child. Signals go through a descriptor of it, so that they never reach a
    later process with the same pid."""

    def __init__(self, pid: int, process: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """The exit status, or the negative number of the signal that ended it; None while it runs."""
        self._process = process
        self._status = status
        self._lock = threading.Lock()

    def send_signal(self, number: int) -> None:
        """Nothing happens where it has ended."""
        with self._lock:
            if self.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._process, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status. Raises TimeoutExpired after so many seconds."""
        with self._lock:
            if self.returncode is None:
                ended = select.poll()
                ended.register(self._status, select.POLLIN)
                if not ended.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(f"server {self.pid}", timeout or 0)
                told = os.read(self._status, 100)
                # The zygote was killed, and its servers with it.
                self.returncode = int(told) if told else -signal.SIGKILL
                os.close(self._status)
                os.close(self._process)
            return self.returncode


class Zygote:
    """The process that forks servers, started when the first one is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start_server(self, environment: Mapping[str, str], log: int) -> ForkedServer:
        """A `server.py` with this environment, whose output goes to the descriptor `log`."""
        status, told = os.pipe()
        try:
            with self._lock:
                control = self._connected()
                socket.send_fds(control, [json.dumps(dict(environment)).encode()], [log, told])
                answer, passed, _, _ = socket.recv_fds(control, 100, 1, socket.MSG_CMSG_CLOEXEC)
        except BaseException:
            os.close(status)
            raise
        finally:
            os.close(told)
        if not answer:
            os.close(status)
            raise RuntimeError(f"{ZYGOTE.name} has ended")
        return ForkedServer(int(answer), passed[0], status)

    def close(self) -> None:
        """The zygote ends, and every server with it."""
        with self._lock:
            if self._control is not None and self._process is not None:
                self._control.close()
                self._process.wait(DEADLINE_S)
                self._control = self._process = None

    def _connected(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, str(ZYGOTE), str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    cwd=ZYGOTE.parents[2],
                )
            ours.settimeout(DEADLINE_S)
            self._control = ours
        return self._control
