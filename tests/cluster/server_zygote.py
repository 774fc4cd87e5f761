"""`python server_zygote.py FD`: imports what server.py needs once, and forks a server for each order on a socket.

Starting a server is then a matter of milliseconds of CPU time, not of a whole interpreter and all its imports; the
server is a process of its own as before. An order is one packet: the server's environment as JSON, the descriptor of
its log, and one that is told its exit status. The answer is its pid with a descriptor of the process (pidfd_open(2)).
The zygote has no threads and no event loop, and ends with the socket; its servers are killed when it ends.
forked_server.py gives the orders.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
SCRIPT: Final = str(ROOT / "server.py")
sys.path[0] = str(ROOT)  # as for a script there

import uvloop  # noqa: E402, F401

import data_node  # noqa: E402, F401
import name_node  # noqa: E402, F401
import server  # noqa: E402

ORDER_BYTES_MAX: Final = 1 << 17
"""An environment; below what a socket takes as one packet (212,992 bytes, net.core.wmem_default)."""
_PR_SET_PDEATHSIG: Final = 1


class _Children:
    """The servers that were forked: when one ends, its status goes to who ordered it."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[int, int]] = {}

    def descriptors(self) -> list[int]:
        return list(self._of)

    def add(self, pid: int, status: int) -> int:
        descriptor = os.pidfd_open(pid)
        self._of[descriptor] = (pid, status)
        return descriptor

    def reap(self, descriptor: int) -> None:
        pid, status = self._of.pop(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(descriptor)
        try:
            os.write(status, b"%d" % code)
        except BrokenPipeError:
            pass  # nobody asks any more
        finally:
            os.close(status)


def serve_orders(control: socket.socket) -> bool:
    """Returns True in each server, False in the zygote when the socket has ended."""
    children = _Children()
    zygote = os.getpid()
    while True:
        waiting = select.poll()
        for descriptor in (control.fileno(), *children.descriptors()):
            waiting.register(descriptor, select.POLLIN)
        for descriptor, _ in waiting.poll():
            if descriptor != control.fileno():
                children.reap(descriptor)
                continue
            order, passed, _, _ = socket.recv_fds(control, ORDER_BYTES_MAX, 2)
            if not order:
                return False
            log, status = passed
            pid = os.fork()
            if pid == 0:
                control.detach()  # closed as a number below
                _become_server(json.loads(order), log, zygote)
                return True
            os.close(log)
            socket.send_fds(control, [b"%d" % pid], [children.add(pid, status)])


def _become_server(environment: dict[str, str], log: int, zygote: int) -> None:
    """What starting an interpreter for the script would have made of this process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote:
        os._exit(1)  # it ended before it could be told that we end with it
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[:] = [SCRIPT]
    sys.orig_argv[:] = [sys.executable, SCRIPT]  # what a server starts again that has to
    gc.enable()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for pytest, which ends the socket
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread of an import would be missing in every server"
    gc.collect()
    gc.freeze()  # a collection in a server does not copy the pages of what was imported
    sys.exit(server.main() if serve_orders(socket.socket(fileno=int(sys.argv[1]))) else 0)
