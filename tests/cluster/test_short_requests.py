"""Short requests for blocks: whatever the way they take through a datanode, the answers are the same."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator

import pytest
from crc32c import crc32c

from tests.cluster.real_cluster import Cluster
from tests.deadline import DEADLINE_S

DATA = random.Random(7).randbytes(300_000)


class Wire:
    """A socket to a datanode, and answers off it one by one."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
        self.received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body."""
        while b"\r\n\r\n" not in self.received:
            self._more()
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: (\d+)", head)
        assert found is not None, head
        length = int(found[1])
        while len(self.received) < length:
            self._more()
        body, self.received = self.received[:length], self.received[length:]
        return int(head.split()[1]), head, body

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        assert data, "the datanode has closed the connection"
        self.received += data


@pytest.fixture
def wire(cluster: Cluster) -> Iterator[Wire]:
    made = Wire(cluster.datanodes[0].port)
    yield made
    made.socket.close()


def get(block: int, start: int, end: int) -> bytes:
    return f"GET /blocks/{block:016x} HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-{end - 1}\r\n\r\n".encode()


def put(block: int, body: bytes, checksum: int | None = None, sync: str = "") -> bytes:
    crc = crc32c(body) if checksum is None else checksum
    return (
        f"PUT /blocks/{block:016x} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{sync}"
        f"X-DFS-CRC32C: {crc:08x}\r\n\r\n"
    ).encode() + body


def is_short_way(head: bytes) -> bool:
    return b"Server:" not in head


@pytest.fixture
def block(wire: Wire) -> int:
    number = random.SystemRandom().getrandbits(62)
    wire.send(put(number, DATA[:200_000]))
    status, head, _ = wire.answer()
    assert status == 201
    assert is_short_way(head)
    return number


def test_ranges_are_those_asked_for(wire: Wire, block: int) -> None:
    for start, end in [(0, 1), (0, 4096), (65_530, 65_540), (199_999, 200_000), (150_000, 250_000), (0, 200_000)]:
        wire.send(get(block, start, end))
        status, head, body = wire.answer()
        assert status == 206
        assert is_short_way(head)
        assert body == DATA[start : min(end, 200_000)]
        assert f"bytes {start}-{min(end, 200_000) - 1}/200000".encode() in head


def test_a_request_may_arrive_in_any_pieces(wire: Wire, block: int) -> None:
    request = get(block, 10, 20)
    for cut in range(1, len(request)):
        wire.send(request[:cut])
        wire.send(request[cut:])
        assert wire.answer()[2] == DATA[10:20]
    request = put(block + 1, b"some bytes", sync="X-DFS-Sync: false\r\n")
    wire.send(request[:30])
    wire.send(request[30:-3])
    wire.send(request[-3:])
    assert wire.answer()[0] == 201


def test_requests_on_one_connection_are_answered_in_their_order(wire: Wire, block: int) -> None:
    wire.send(b"".join(get(block, n, n + 5) for n in range(20)) + put(block + 1, b"new") + get(block + 1, 0, 3))
    assert [wire.answer()[2] for _ in range(20)] == [DATA[n : n + 5] for n in range(20)]
    assert wire.answer()[0] == 201
    assert wire.answer()[2] == b"new"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get(1, 0, 10), 404),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /blocks/xyz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (put(0x7F00000000000001, b"abc", checksum=1), 400),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_everything_else_is_answered_as_ever(wire: Wire, request_bytes: bytes, status: int) -> None:
    wire.send(request_bytes)
    assert wire.answer()[0] == status


def test_a_connection_goes_on_after_a_long_request(wire: Wire, block: int) -> None:
    wire.send(get(block, 200_000, 200_001))
    assert wire.answer()[0] == 416
    wire.send(get(block, 0, 4) + get(block, 4, 8))
    assert wire.answer()[2] + wire.answer()[2] == DATA[:8]


def test_the_same_block_again_is_no_error_and_another_is(wire: Wire, block: int) -> None:
    wire.send(put(block, DATA[:200_000]))
    assert wire.answer()[0] == 200
    wire.send(put(block, b"other"))
    assert wire.answer()[0] == 409
