"""A TCP balancer as a swarm's routing mesh is one: one address for all datanodes, one of them a connection.

It knows nothing of health: a connection that falls to a datanode that is gone is refused.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Sequence
from typing import ParamSpec

P = ParamSpec("P")
_PIECE_BYTES = 256 << 10


class Balancer:
    """`chosen` are the ports that connections went to, in their order; `sender` is the one that answered last, over
    whichever connection. `hold_after`: let each connection have so many bytes of answer and then nothing more,
    without closing it."""

    def __init__(self, ports: Sequence[int], chance: random.Random, hold_after: int | None = None) -> None:
        self._ports = list(ports)
        self._chance = chance
        self._hold_after = hold_after
        self._released = threading.Event()
        self.chosen: list[int] = []
        self.sender = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def send_to(self, ports: Sequence[int]) -> None:
        """From the next connection on."""
        self._ports = list(ports)

    def close(self) -> None:
        self._released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            port = self._chance.choice(self._ports)
            self.chosen.append(port)
            self._open.add(client)
            self._start(self._serve, client, port)

    def _start(self, work: Callable[P, None], *args: P.args, **named: P.kwargs) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, kwargs=named)
        self._threads.append(thread)
        thread.start()
        return thread

    def _serve(self, client: socket.socket, port: int) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as server:
            self._open.add(server)
            requests = self._start(self._pump, client, server, None, None)
            self._pump(server, client, self._hold_after, port)
            requests.join()
            self._open.discard(server)
        self._open.discard(client)

    def _pump(self, source: socket.socket, sink: socket.socket, hold_after: int | None, sender: int | None) -> None:
        count = 0
        with contextlib.suppress(OSError):
            while piece := source.recv(_PIECE_BYTES):
                count += len(piece)
                self.sender = sender or self.sender
                if hold_after is not None and count > hold_after:
                    self._released.wait()
                    break
                sink.sendall(piece)
        for connection in (source, sink):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
