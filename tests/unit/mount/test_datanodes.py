"""Reads of a mount from datanodes that answer, hesitate, leave or know nothing: small servers on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import AsyncIterator, Coroutine

import pytest

from dfslib.errors import DfsError, InputOutput, NotFound
from dfslib.model import BlockId, NodeId
from dfslib.mount.datanodes import Datanodes
from dfslib.transfer.block_client import BlockClient
from dfslib.wire import messages
from dfslib.wire.reads import encode_answer, parse_reads
from dfslib.wire.session import Node
from tests.deadline import DEADLINE_S

DATA = random.Random(5).randbytes(50_000)
_RANGE = re.compile(rb"bytes=(\d+)-(\d+)")
_READS = re.compile(rb"/blocks\?reads=(\S+) ")


class FakeDatanode:
    """`mode`: how requests are met from now on."""

    def __init__(self) -> None:
        self.mode = "good"
        self.asked = 0
        self.connections = 0
        self.together: list[int] = []
        """How many reads came with each of the requests for several."""
        self.was_asked = asyncio.Event()
        self._gone = asyncio.Event()
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving[task] = writer
        await task

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self.mode != "leaves":
                request = await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                self.was_asked.set()
                if self.mode == "hangs":
                    await self._gone.wait()
                elif self.mode == "leaves":
                    break
                elif self.mode == "knows nothing":
                    body = messages.encode_error(NotFound("no such block"))
                    writer.write(b"HTTP/1.1 404 \r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                elif match := _READS.search(request):
                    self.together.append(len(parts := parse_reads(match[1])))
                    found = [DATA[one.start : one.end] for one in parts]
                    body = b"".join(encode_answer(found))
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                else:
                    match = _RANGE.search(request)
                    assert match is not None
                    start, end = int(match[1]), min(int(match[2]) + 1, len(DATA))
                    writer.write(
                        b"HTTP/1.1 206 \r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n%b"
                        % (start, end - 1, len(DATA), end - start, DATA[start:end])
                    )
        writer.close()

    async def stop(self) -> None:
        self._gone.set()
        for task, writer in self._serving.items():
            writer.close()
            await asyncio.gather(task, writer.wait_closed(), return_exceptions=True)


class Cluster:
    def __init__(self, fakes: list[FakeDatanode], datanodes: Datanodes) -> None:
        self.fakes = fakes
        self.datanodes = datanodes

    async def read(self, start: int, end: int) -> bytes:
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(result: bytearray | Exception) -> None:
            found.set_exception(result) if isinstance(result, Exception) else found.set_result(bytes(result))

        self.datanodes.begin(BlockId(1), start, end, [NodeId("0"), NodeId("1")], done)
        async with asyncio.timeout(DEADLINE_S):
            return await found


@contextlib.asynccontextmanager
async def cluster(timeout_s: float = 10) -> AsyncIterator[Cluster]:
    """Two datanodes that have one block, both known, the first one with a connection that is kept."""
    fakes = [FakeDatanode(), FakeDatanode()]
    client = BlockClient()
    servers = [await asyncio.start_server(fake.serve, "127.0.0.1", 0) for fake in fakes]
    try:
        datanodes = Datanodes(client, timeout_s, time.monotonic)
        urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
        datanodes.use([Node(NodeId(str(number)), url) for number, url in enumerate(urls)])
        made = Cluster(fakes, datanodes)
        assert await made.read(0, 10) == DATA[:10]
        yield made
    finally:
        await client.close()
        for fake, server in zip(fakes, servers, strict=True):
            server.close()
            await fake.stop()


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(test)


def test_reads_one_by_one_and_at_once_keep_to_few_connections() -> None:
    async def test() -> None:
        async with cluster() as made:
            for start in range(0, 50_000, 4096):
                assert await made.read(start, start + 4096) == DATA[start : start + 4096]
            assert (made.fakes[0].connections, made.fakes[1].asked) == (1, 0)
            found = await asyncio.gather(*(made.read(start, start + 10) for start in range(20)))
            assert found == [DATA[start : start + 10] for start in range(20)]
            assert made.fakes[1].asked == 0
            assert made.fakes[0].together == [19], "those that came while the first one was under way"
            large = await asyncio.gather(*(made.read(start, start + 40_000) for start in range(10)))
            assert large == [DATA[start : start + 40_000] for start in range(10)]
            assert made.fakes[0].together == [19, 6, 3], "no more than a short answer has"

    run(test())


@pytest.mark.parametrize("trouble", ("hangs", "leaves", "knows nothing"))
def test_another_datanode_answers_where_the_first_one_does_not(trouble: str) -> None:
    async def test() -> None:
        async with cluster() as made:
            made.fakes[0].mode = trouble
            assert await made.read(5, 5000) == DATA[5:5000]
            assert made.fakes[1].asked == 1
            assert await made.read(6, 5000) == DATA[6:5000]

    run(test())


def test_a_kept_connection_that_has_ended_is_no_trouble() -> None:
    async def test() -> None:
        async with cluster() as made:
            made.fakes[0].mode = "leaves"  # with the next request
            made.datanodes.begin(BlockId(1), 0, 1, [NodeId("0")], lambda _: None)
            made.fakes[0].was_asked.clear()
            await made.fakes[0].was_asked.wait()
            made.fakes[0].mode = "good"
            assert await made.read(5, 5000) == DATA[5:5000]

    run(test())


@pytest.mark.parametrize("trouble", ("hangs", "leaves", "knows nothing"))
def test_reads_that_went_together_find_their_ways_alone(trouble: str) -> None:
    async def test() -> None:
        async with cluster() as made:
            made.fakes[0].mode = trouble
            found = await asyncio.gather(*(made.read(start, start + 10) for start in range(20)))
            assert found == [DATA[start : start + 10] for start in range(20)]
            made.fakes[0].mode = "good"
            found = await asyncio.gather(*(made.read(start, start + 10) for start in range(20)))
            assert found == [DATA[start : start + 10] for start in range(20)]

    run(test())


def test_a_datanode_that_hangs_holds_up_nobody_once_it_answers_again() -> None:
    async def test() -> None:
        async with cluster() as made:
            made.fakes[0].mode = "hangs"
            told: list[object] = []
            readings = [made.datanodes.begin(BlockId(1), 0, 10, [NodeId("0")], told.append) for _ in range(5)]
            await made.fakes[0].was_asked.wait()
            for reading in readings:
                await reading.cancel()
            made.fakes[0].mode = "good"
            assert await made.read(5, 15) == DATA[5:15]
            assert (told, made.fakes[1].asked) == ([], 0)

    run(test())


@pytest.mark.parametrize(
    ("trouble", "error", "timeout_s"), (("knows nothing", NotFound, DEADLINE_S), ("leaves", InputOutput, 0.3))
)
def test_errors_of_all_of_them_are_told(trouble: str, error: type[DfsError], timeout_s: float) -> None:
    async def test() -> None:
        async with cluster(timeout_s) as made:
            for fake in made.fakes:
                fake.mode = trouble
            with pytest.raises(error):
                await made.read(0, 10)

    run(test())


@pytest.mark.parametrize("trouble", ("good", "hangs"))
def test_a_read_that_is_cancelled_tells_nothing_and_spoils_no_connection(trouble: str) -> None:
    async def test() -> None:
        async with cluster() as made:
            made.fakes[0].mode = trouble
            told: list[object] = []
            reading = made.datanodes.begin(BlockId(1), 0, 10, [NodeId("0")], told.append)
            await reading.cancel()
            made.fakes[0].mode = "good"
            for start in range(20):
                assert await made.read(start, start + 10) == DATA[start : start + 10]
            assert told == []

    run(test())
