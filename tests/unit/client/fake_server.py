"""A fake HTTP server on a real socket: answers come from a function, and may break off or never come.

Speaks just enough HTTP/1.1; what it was sent is kept byte for byte.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """`cut`: only so many bytes of the body are sent, then the connection closes. `drop`: no answer at all."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    drop: bool = False


Handler = Callable[[Seen], Reply]


class FakeServer:
    """Serves until `close`. `seen` has every request, in order of arrival."""

    def __init__(self, handler: Handler, port: int = 0) -> None:
        self.handler = handler
        self.seen: list[Seen] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open: set[socket.socket] = set()
        self.address: tuple[str, int] = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}/"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while line := stream.readline():
                method, target, _ = line.decode("latin-1").split(" ", 2)
                headers = {}
                while (header := stream.readline().strip()) != b"":
                    name, _, value = header.decode("latin-1").partition(":")
                    headers[name.lower()] = value.strip()
                body = _read_body(stream, headers)
                seen = Seen(method, target, headers, body)
                self.seen.append(seen)
                reply = self.handler(seen)
                if reply.drop:
                    break
                body = b"" if method == "HEAD" or reply.status == 204 else reply.body[: reply.cut]
                connection.sendall(_head(reply) + body)
                if reply.cut is not None:
                    break
        self._open.discard(connection)


class Serve(Protocol):
    """Starts a fake server for a handler."""

    def __call__(self, handler: Handler, port: int = 0) -> FakeServer: ...


def _read_body(stream: BinaryIO, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(stream.readline(), 16):
            body += stream.read(size)
            stream.readline()
        stream.readline()
        return body
    return stream.read(int(headers.get("content-length", "0")))


def _head(reply: Reply) -> bytes:
    headers = {"Content-Length": str(len(reply.body)), **reply.headers}
    if reply.status == 204:
        del headers["Content-Length"]
    lines = [f"HTTP/1.1 {reply.status} x", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
