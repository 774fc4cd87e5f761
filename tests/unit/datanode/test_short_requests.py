"""Short requests over one connection: from memory and from disk, in pieces and in advance, with others among them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import pytest
from aiohttp import web
from crc32c import crc32c

from data_node import DataNode
from tests.deadline import DEADLINE_S
from tests.unit.datanode.fake_cluster import FakeNamenode, block_path, datanode_env, listening

SIZE = 300_000


class Connection:
    """Writes whatever it is told, and reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
            (length,) = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
            return int(head.split()[1]), await self.reader.readexactly(int(length.partition(b":")[2]))


class Server:
    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.port = port

    @contextlib.asynccontextmanager
    async def connected(self, receive_buffer: int = 0) -> AsyncIterator[Connection]:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def forget(self, block: int) -> None:
        """Only the disk has it now."""
        with block_path(self.root, block).open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    """A datanode as runtime.serving has it, short requests before the framework."""
    async with listening(FakeNamenode().app()) as namenode_url:
        node = DataNode.from_env(datanode_env(folder / "node", namenode_url))
        runner = web.AppRunner(node.app(), access_log=None, handler_cancellation=True, shutdown_timeout=2)
        await runner.setup()
        loop = asyncio.get_running_loop()
        framework = runner.server
        assert framework is not None
        server = await loop.create_server(lambda: node.connection(framework()), "127.0.0.1", 0)
        try:
            yield Server(folder / "node", server.sockets[0].getsockname()[1])
        finally:
            server.close()
            await runner.cleanup()


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(test)


def get(block: int, start: int, end: int) -> bytes:
    return b"GET /blocks/%016x HTTP/1.1\r\nHost: x\r\nRange: bytes=%d-%d\r\n\r\n" % (block, start, end - 1)


def get_many(reads: list[tuple[int, int, int]]) -> bytes:
    text = ",".join(f"{block:016x}:{start}-{end}" for block, start, end in reads)
    return f"GET /blocks?reads={text} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def many(found: list[bytes]) -> bytes:
    return b"".join([len(one).to_bytes(4, "little") for one in found] + found)


def put(block: int, data: bytes) -> bytes:
    return b"PUT /blocks/%016x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX-DFS-CRC32C: %08x\r\n\r\n%b" % (
        block, len(data), crc32c(data), data,
    )  # fmt: skip


def test_any_requests_in_any_pieces_are_answered_in_order(tmp_path: Path, seed: int) -> None:
    """Reads that hit memory, wait for the disk or find nothing, and writes, sent one by one or in advance."""
    dice = random.Random(seed)
    data = {number: dice.randbytes(SIZE) for number in (1, 2)}

    async def test() -> None:
        async with serving(tmp_path) as server, server.connected() as connection:
            for number, content in data.items():
                connection.writer.write(put(number, content))  # more than a short one: by the framework's way
                assert (await connection.answer())[0] == 201
            for _ in range(30):
                async with server.connected() as other:
                    for number in data:
                        server.forget(number)
                    await some_requests(other, dice, data)

    run(test())


async def some_requests(connection: Connection, dice: random.Random, data: dict[int, bytes]) -> None:
    expected: list[tuple[int, bytes | None]] = []
    stream = b""
    for _ in range(12):
        kinds = {"read": 20, "many": 20, "past the end": 1, "write": 3, "unknown": 1, "one unknown": 1}
        match dice.choices(list(kinds), list(kinds.values()))[0]:
            case "read":
                number = dice.choice((1, 2))
                start = dice.randrange(SIZE)
                end = start + dice.choice((1, 4096, 100_000))
                stream += get(number, start, end)
                expected.append((206, data[number][start:end]))
            case "many":
                reads = [(dice.choice((1, 2)), dice.randrange(SIZE), dice.choice((1, 4096, 9000))) for _ in range(8)]
                stream += get_many([(number, start, start + size) for number, start, size in reads])
                expected.append((200, many([data[number][start : start + size] for number, start, size in reads])))
            case "one unknown":
                stream += get_many([(1, 0, 10), (dice.randrange(1 << 61, 1 << 62), 0, 10)])
                expected.append((404, None))
            case "past the end":
                stream += get(1, SIZE, SIZE + 10)
                expected.append((416, None))
            case "write":
                stream += put(dice.randrange(10, 1 << 60), dice.randbytes(dice.randrange(5000)))
                expected.append((201, None))
            case _:
                stream += get(dice.randrange(1 << 61, 1 << 62), 0, 10)
                expected.append((404, None))
        if dice.random() < 0.7:
            while stream:
                some = dice.choice((len(stream), 1 + dice.randrange(len(stream))))
                connection.writer.write(stream[:some])
                await connection.writer.drain()
                stream = stream[some:]
            while expected:
                status, body = expected.pop(0)
                found, content = await connection.answer()
                assert found == status
                assert body is None or content == body
    connection.writer.write(stream)
    for status, _ in expected:
        assert (await connection.answer())[0] == status


def test_an_answer_that_the_socket_takes_in_parts(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(SIZE)

    async def test() -> None:
        async with serving(tmp_path) as server, server.connected(receive_buffer=4096) as connection:
            connection.writer.write(put(1, data[:200_000]))
            assert (await connection.answer())[0] == 201
            for _ in range(5):
                server.forget(1)
                for start in (0, 7, 100_000):
                    connection.writer.write(get(1, start, 200_000))
                    assert await connection.answer() == (206, data[start:200_000])

    run(test())


@pytest.mark.parametrize("together", (False, True))
def test_a_bad_page_is_not_sent_and_its_neighbours_are(tmp_path: Path, together: bool) -> None:
    data = random.Random(1).randbytes(100_000)

    async def test() -> None:
        async with serving(tmp_path) as server, server.connected() as connection:
            connection.writer.write(put(1, data))
            assert (await connection.answer())[0] == 201
            with block_path(server.root, 1).open("r+b") as file:
                file.seek(50_000)
                file.write(bytes([data[50_000] ^ 1]))
            server.forget(1)
            connection.writer.write(get(1, 0, 4096))
            assert await connection.answer() == (206, data[:4096])
            connection.writer.write(get(1, 53_248, 57_344))
            assert await connection.answer() == (206, data[53_248:57_344])
            connection.writer.write(get_many([(1, 0, 4096), (1, 53_248, 57_344)]))
            assert await connection.answer() == (200, many([data[:4096], data[53_248:57_344]]))
            connection.writer.write(put(2, data))
            assert (await connection.answer())[0] == 201
            if together:
                connection.writer.write(get_many([(2, 0, 10), (1, 49_152, 53_248), (2, 10, 20)]))
                assert (await connection.answer())[0] == 404
            connection.writer.write(get(1, 49_152, 53_248))
            assert (await connection.answer())[0] in (404, 500, 503)
            assert not list(server.root.glob("blocks/*/0000000000000001"))
            connection.writer.write(get_many([(2, 0, 10), (2, 10, 20)]))
            assert await connection.answer() == (200, many([data[:10], data[10:20]]))

    run(test())


@pytest.mark.parametrize("after_s", (0.0, 0.001))
def test_clients_that_leave_at_any_moment_disturb_nobody(tmp_path: Path, after_s: float) -> None:
    data = random.Random(1).randbytes(SIZE)

    async def leave(server: Server) -> None:
        async with server.connected() as connection:
            connection.writer.write(get(1, 0, 200_000) + get(1, 0, 4096))
            await asyncio.sleep(after_s)
            connection.writer.transport.abort()

    async def stay(server: Server) -> None:
        dice = random.Random(2)
        async with server.connected() as connection:
            for _ in range(50):
                start = dice.randrange(190_000)
                connection.writer.write(get(1, start, start + 4096))
                assert await connection.answer() == (206, data[start : start + 4096])

    async def test() -> None:
        async with serving(tmp_path) as server:
            async with server.connected() as connection:
                connection.writer.write(put(1, data[:200_000]))
                assert (await connection.answer())[0] == 201
            for _ in range(5):
                server.forget(1)
                await asyncio.gather(*(leave(server) for _ in range(20)), stay(server), stay(server))

    run(test())
