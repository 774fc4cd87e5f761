"""What a running command has: the namenode, standard output, and errors reported in one line each."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final

from dfslib.cli.quoting import is_printable, quote
from dfslib.client.namenode import HttpNameNode
from dfslib.client.retrying import Timing

_QUIET_WAIT_S: Final = 1.0
"""Trouble that is over sooner is not mentioned."""


def describe(error: OSError | ValueError) -> str:
    """`PATH: No such file or directory`."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
    shown = " -> ".join(name if is_printable(name) else quote(name) for name in names)
    return f"{shown}: {error.strerror}" if shown else error.strerror


class Session:
    """One run of a command. `failed` is set by every error that was reported."""

    def __init__(self, url: str, timeout_s: float = 30.0) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self.failed = False
        self.write_error: Callable[[str], None] = _write_error
        self._lock = threading.Lock()
        self._waiting_since: float | None = None
        self._told = False

    @cached_property
    def namenode(self) -> HttpNameNode:
        return HttpNameNode(self.url, self.timeout_s, Timing(on_wait=self._on_wait))

    @property
    def on_terminal(self) -> bool:
        return sys.stdout.isatty()

    def name(self, text: str) -> str:
        """A name for standard output: quoted on a terminal where it needs to be, raw in a pipe."""
        return quote(text) if self.on_terminal else text

    def line(self, text: str = "") -> None:
        """A line on standard output; names keep their bytes."""
        self.write(os.fsencode(text) + b"\n")

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)

    def flush(self) -> None:
        """Have what was written so far be seen before the command goes on."""
        sys.stdout.buffer.flush()

    def json(self, value: Any) -> None:
        """JSON on standard output; bytes of names that are no UTF-8 are lone surrogates, as json.loads has them."""
        self.line(json.dumps(value, indent=2))

    def report(self, error: OSError | ValueError) -> None:
        """One line on standard error; the run has failed. May be called by any thread.

        Where nobody answers there is no sense in going on: a ConnectionError is raised again.
        """
        if isinstance(error, ConnectionError):
            raise error
        self.complain(describe(error))

    def complain(self, text: str) -> None:
        """`dfs: text` on standard error; the run has failed."""
        with self._lock:
            self.failed = True
            self.write_error(f"dfs: {text}")

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Report an error of the block, and go on after it."""
        try:
            yield
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            self.report(error)

    def confirmed(self, question: str) -> bool:
        """Whether the user at the terminal says yes; what was written so far is seen before."""
        self.flush()
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def _on_wait(self, reason: str, left_s: float) -> None:
        with self._lock:
            now = time.monotonic()
            if self._waiting_since is None:
                self._waiting_since = now
            elif not self._told and now - self._waiting_since > _QUIET_WAIT_S:
                self._told = True
                self.write_error(f"dfs: {reason}; trying for another {left_s:.0f} s")


def _write_error(text: str) -> None:
    sys.stderr.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") + "\n")
    sys.stderr.flush()
