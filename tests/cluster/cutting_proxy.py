"""A TCP proxy in front of a namenode that cuts connections at chosen points of chosen requests.

It understands as much of HTTP/1.1 as it takes to tell where a request and an answer end.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from enum import Enum
from typing import BinaryIO
from urllib.parse import urlsplit


class Cut(Enum):
    """Where the connection ends."""

    UNHEARD = "before anything was forwarded"
    HALF = "in the middle of the request"
    AT_ONCE = "as soon as the request was forwarded, while the namenode works on it"
    ANSWERED = "when the answer was there, of which nothing is forwarded"
    HALF_ANSWER = "in the middle of the answer"


class CuttingProxy:
    """Cuts the requests that change something, each by the next of `cuts`: None, and with none left, forwards."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.cuts: deque[Cut | None] = deque()
        self.made: list[Cut] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._open):
            _cut(connection)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(client)
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as requests, contextlib.suppress(OSError):
            while request := _message(requests):
                changing = not request.startswith((b"GET", b"HEAD"))
                cut = self.cuts.popleft() if changing and self.cuts else None
                if cut is not None:
                    self.made.append(cut)
                if cut is Cut.UNHEARD:
                    break
                with socket.create_connection(self._upstream) as server:
                    if cut is Cut.HALF:
                        server.sendall(request[: len(request) // 2])
                        break
                    server.sendall(request)
                    if cut is Cut.AT_ONCE:
                        _cut(client)
                    with server.makefile("rb") as answers:
                        answer = _message(answers, to_head=request.startswith(b"HEAD"))
                if cut is Cut.HALF_ANSWER:
                    client.sendall(answer[: len(answer) // 2])
                if cut is not None:
                    break
                client.sendall(answer)
            _cut(client)
        self._open.discard(client)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _message(stream: BinaryIO, *, to_head: bool = False) -> bytes:
    """A request or an answer, whole; nothing at the end of the stream."""
    message = line = stream.readline()
    length, chunked = 0, False
    while line not in (b"\r\n", b""):
        line = stream.readline()
        message += line
        name, _, value = line.decode("latin-1").lower().partition(":")
        length = int(value) if name == "content-length" else length
        chunked = chunked or (name == "transfer-encoding" and "chunked" in value)
    if to_head:
        return message
    while chunked:
        size = stream.readline()
        part = stream.read(int(size, 16) + 2)
        message += size + part
        chunked = part != b"\r\n"
    return message + stream.read(length)
