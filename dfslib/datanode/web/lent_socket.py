"""A connection's socket, lent to a thread while its transport does not read, so past the event loop."""

from __future__ import annotations

import os
import select
import threading
from typing import Final

_RECEIVE_BYTES: Final = 64 << 10


class LentSocket:
    """Nothing here blocks but `receive`. What goes wrong ends the loan; the transport then finds out by itself."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        # The number may be another connection's as soon as the transport has closed it.
        self._turn = threading.Lock()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def end(self) -> None:
        """The transport is about to close it; called on the event loop."""
        with self._turn:
            self._fd = -1

    def send(self, data: bytes) -> int:
        """How many bytes were taken."""
        with self._turn:
            try:
                return os.write(self._fd, data) if self._fd >= 0 else 0
            except OSError:
                return 0

    def receive(self, timeout_s: float) -> bytes:
        """What has arrived in time; nothing where the connection has ended, too. Reading goes on with the transport."""
        # Where the number is another connection's by now, that is found out before anything is read.
        if not self._poll.poll(timeout_s * 1000):
            return b""
        with self._turn:
            try:
                return os.read(self._fd, _RECEIVE_BYTES) if self._fd >= 0 else b""
            except OSError:
                return b""
