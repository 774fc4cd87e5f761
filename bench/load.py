"""A cheap client: raw sockets, prebuilt requests, keep-alive connections. It costs a fraction of the servers."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import uvloop

CHUNK = 1 << 20


class Address(NamedTuple):
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        parts = urlsplit(url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 80)


def request(method: str, path: str, body: bytes | None = None) -> bytes:
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{length}\r\n".encode() + (body or b"")


class _Connections:
    """One client's keep-alive connections, one an address."""

    def __init__(self) -> None:
        self._open: dict[Address, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def ask(self, address: Address, message: bytes) -> tuple[int, bytes, bytes]:
        """Status, head and body of the answer."""
        if address not in self._open:
            self._open[address] = await asyncio.open_connection(*address, limit=CHUNK)
        reader, writer = self._open[address]
        writer.write(message)
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        if not message.startswith(b"HEAD") and (length := _length(head)):
            body = await reader.readexactly(length)
        return int(head[9:12]), head, body

    def close(self) -> None:
        for _, writer in self._open.values():
            writer.close()


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    return 0 if start < 0 else int(lowered[start + 15 : lowered.index(b"\r\n", start)])


def _location(head: bytes) -> str:
    start = head.lower().index(b"location:") + 9
    return head[start : head.index(b"\r\n", start)].strip().decode()


def run(address: Address, messages: Sequence[bytes], clients: int) -> float:
    """Seconds until all messages are answered, shared among so many clients; redirects are followed.

    Raises RuntimeError for any answer that is no success.
    """
    todo = list(reversed(messages))

    async def client() -> None:
        connections = _Connections()
        while todo:
            status, head, _ = await connections.ask(address, todo.pop())
            if status == 307:
                location = _location(head)
                path = location[location.index("/", 8) :]
                status, head, _ = await connections.ask(Address.of(location), request("GET", path))
            if status >= 300:
                raise RuntimeError(head.decode())
        connections.close()

    async def all_clients() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return time.perf_counter() - started

    return uvloop.run(all_clients())


def put_large(address: Address, path: str, block: bytes, count: int) -> float:
    """Seconds to send a file of `count` times `block`."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection(*address)
    connection.putrequest("PUT", path)
    connection.putheader("Content-Length", str(len(block) * count))
    connection.endheaders()
    for _ in range(count):
        connection.sock.sendall(block)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"PUT answered {answer.status}")
    return time.perf_counter() - started


def get_large(url: str, size: int) -> float:
    """Seconds to receive `size` bytes of a URL that needs no redirect, thrown away as they come."""
    parts = urlsplit(url)
    started = time.perf_counter()
    with socket.create_connection(Address.of(url)) as connection:
        connection.sendall(request("GET", parts.path))
        buffer = bytearray(CHUNK)
        received = connection.recv_into(buffer)
        head_end = buffer.index(b"\r\n\r\n") + 4
        left = size - (received - head_end)
        while left > 0:
            count = connection.recv_into(buffer)
            if not count:
                raise RuntimeError(f"the body ended {left} bytes early")
            left -= count
    return time.perf_counter() - started


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
