"""Child processes of `dfs up`: started so that they never outlive it, their output passed on line by line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_COLOURS: Final = ("\033[36m", "\033[32m", "\033[33m", "\033[35m", "\033[34m", "\033[31m")


class Child:
    """A process of `server.py`. `ended` is put into `events` when it has ended, however that came."""

    def __init__(
        self, name: str, command: Sequence[str], env: Mapping[str, str], label: str, events: queue.SimpleQueue[object]
    ) -> None:
        self.name = name
        self._label = label
        self._events = events
        self.process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then stops them in order
            preexec_fn=_die_with(os.getpid()),
        )
        self._reader = threading.Thread(target=self._pass_on, name=f"log of {name}", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def how_it_ended(self) -> str:
        """For a message."""
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"

    def finish(self) -> None:
        """Wait until the last line of its output is passed on."""
        self.process.wait()
        self._reader.join(1.0)

    def _pass_on(self) -> None:
        output = self.process.stdout
        assert output is not None
        with output:
            for line in output:
                text = line.decode("utf-8", "backslashreplace").rstrip("\n")
                sys.stderr.write(f"{self._label} {text}\n")
        self.process.wait()
        self._events.put(self)


def labels(names: Sequence[str], coloured: bool) -> dict[str, str]:
    """What stands before each line of a process: its name, padded, in a colour of its own."""
    longest = max(len(name) for name in names)
    found = {}
    for number, name in enumerate(names):
        text = f"{name:<{longest}} |"
        found[name] = f"{_COLOURS[number % len(_COLOURS)]}{text}\033[0m" if coloured else text
    return found


def _die_with(parent: int) -> Callable[[], None] | None:
    """A function for the child: the kernel kills it when its parent has gone (prctl(2); Linux only).

    SIGKILL, because what is acknowledged is on disk, and a process that stops in its own time may not stop.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it went before the line above
            os._exit(1)

    return prepare


def server_script() -> Path:
    """`server.py`, at the top of the checkout. Raises FileNotFoundError."""
    script = Path(__file__).resolve().parent.parent.parent / "server.py"
    if not script.exists():
        raise FileNotFoundError(2, "not found beside dfslib; `dfs up` runs from a checkout", str(script))
    return script
