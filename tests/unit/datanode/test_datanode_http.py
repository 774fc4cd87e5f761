"""Blocks and files over real sockets: what is stored, what is sent, and every kind of bad request."""

from __future__ import annotations

import asyncio
import base64
import io
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import msgspec
import pytest
from crc32c import crc32c

from dfslib.datanode.store.open_block import OpenBlock
from dfslib.errors import error_classes
from dfslib.model import BLOCK_SIZE, BlockId, Extent, InodeId, Origin
from dfslib.wire import messages, routes
from dfslib.wire.messages import BlockBody
from tests.deadline import DEADLINE_S
from tests.unit.datanode.fake_cluster import Cluster, cluster

Answer = tuple[int, bytes, Mapping[str, str]]
Test = Callable[[Cluster], Awaitable[None]]


def on_cluster(nodes: int = 1, **settings: str) -> Callable[[Test], Callable[[Path], None]]:
    """Run an async test against datanodes of its own."""

    def decorate(test: Test) -> Callable[[Path], None]:
        def run(tmp_path: Path) -> None:
            async def main() -> None:
                async with cluster(tmp_path, nodes, **settings) as made:
                    await test(made)

            asyncio.run(main())

        # Not functools.wraps: pytest would look at the arguments of what is wrapped.
        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


async def fetch(c: Cluster, path: str, method: str = "GET", node: int = 0, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    async with c.http.request(method, c.urls[node] + path, headers=names) as response:
        return response.status, await response.read(), response.headers


def assert_error(answer: Answer, status: int, code: str) -> None:
    assert (answer[0], answer[2].get(routes.HEADER_ERROR)) == (status, code), answer
    assert code in error_classes()
    if answer[1]:
        assert messages.decode(answer[1], messages.ErrorBody).error == code


async def metric(c: Cluster, name: str, node: int = 0) -> float:
    _, body, _ = await fetch(c, "/metrics", node=node)
    return next(float(line.split()[1]) for line in body.decode().splitlines() if line.startswith(name + " "))


@on_cluster()
async def test_put_get_head_delete(c: Cluster) -> None:
    for block, size in ((1, 0), (2, 1), (3, 4096), (4, 256 << 10), (5, (256 << 10) + 1), (6, 3_000_001)):
        data = random.Random(size).randbytes(size)
        path = f"/blocks/{block:016x}"
        for status in (201, 200):
            async with c.http.put(c.urls[0] + path, data=io.BytesIO(data)) as response:
                assert response.status == status
                body = messages.decode(await response.read(), BlockBody)
            assert body == BlockBody(f"{block:016x}", size, f"{crc32c(data):08x}")
        status, sent, headers = await fetch(c, path)
        assert (status, sent) == (200, data)
        assert headers["ETag"] == f'"{crc32c(data):08x}"'
        assert headers[routes.HEADER_CRC32C] == f"{crc32c(data):08x}"
        status, sent, headers = await fetch(c, path, "HEAD")
        assert (status, sent, headers["Content-Length"]) == (200, b"", str(size))
        assert (await fetch(c, path, "DELETE"))[0] == 204
        assert_error(await fetch(c, path, "DELETE"), 404, "ENOENT")
        assert_error(await fetch(c, path), 404, "ENOENT")


@on_cluster()
async def test_a_body_without_a_length(c: Cluster) -> None:
    async def pieces() -> object:
        for _ in range(40):
            yield b"x" * 60_000

    async with c.http.put(c.urls[0] + routes.block(BlockId(1)), data=pieces()) as response:
        assert response.status == 201
    assert (await fetch(c, routes.block(BlockId(1))))[1] == b"x" * 2_400_000


@on_cluster()
async def test_origins_are_kept_with_the_block(c: Cluster) -> None:
    origins = [Origin(b"/a\xff", InodeId(3), 0, 4)]
    for padding in ("", "="):
        header = base64.urlsafe_b64encode(msgspec.msgpack.encode(origins)).decode().rstrip("=")
        header += padding * (-len(header) % 4)
        async with c.http.put(
            c.urls[0] + routes.block(BlockId(1)), data=b"data", headers={routes.HEADER_ORIGIN: header}
        ) as response:
            assert response.status in (200, 201)
    opened = OpenBlock(BlockId(1), c.path(1))
    assert opened.footer.origins == origins
    opened.close()


@on_cluster()
async def test_bad_puts_store_nothing(c: Cluster) -> None:
    large = b"x" * 1_000_000

    async def put(block: str, data: bytes = b"data", **headers: str) -> Answer:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with c.http.put(f"{c.urls[0]}/blocks/{block}", data=io.BytesIO(data), headers=names) as response:
            return response.status, await response.read(), response.headers

    good = "0000000000000001"
    for bad in ("1", "000000000000000G", "000000000000000A", "00000000000000011"):
        assert_error(await put(bad), 400, "EINVAL")
    for data in (b"data", large):
        assert_error(await put(good, data, X_DFS_CRC32C="00000000"), 400, "EBADMSG")
    for crc in ("", "1", "zzzzzzzz", "123456789"):
        assert_error(await put(good, X_DFS_CRC32C=crc), 400, "EINVAL")
    for origin in ("!", "AAAA", "x" * 70_000):
        assert_error(await put(good, X_DFS_Origin=origin), 400, "EINVAL")
    assert_error(await put(good, bytes(BLOCK_SIZE + 1)), 400, "EFBIG")

    async def too_long() -> object:
        for _ in range(65):
            yield bytes(1 << 20)

    async with c.http.put(f"{c.urls[0]}/blocks/{good}", data=too_long()) as response:
        assert_error((response.status, await response.read(), response.headers), 400, "EFBIG")
    assert_error(await fetch(c, f"/blocks/{good}"), 404, "ENOENT")
    assert_error(await fetch(c, "/blocks/" + good + "?local=maybe"), 400, "EINVAL")
    assert_error(await fetch(c, "/nowhere"), 404, "ENOENT")
    assert_error(await fetch(c, "/blocks/" + good, "POST"), 405, "EINVAL")
    assert list(c.roots[0].glob("tmp/*")) == list(c.roots[0].glob("blocks/*/*")) == []
    assert (await put(good, large, X_DFS_CRC32C=f"{crc32c(large):08x}"))[0] == 201
    assert_error(await put(good, b"other"), 409, "EEXIST")
    assert_error(await put(good, large[1:]), 409, "EEXIST")


@on_cluster(DFS_BODY_TIMEOUT="0.2")
async def test_cut_off_and_stalled_bodies_store_nothing(c: Cluster) -> None:
    host, port = c.urls[0].removeprefix("http://").split(":")
    for length, sent in ((1000, 400), (3_000_000, 2_500_000)):
        head = f"PUT /blocks/0000000000000001 HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
        for end in ("eof", "close", "stall"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head + b"x" * sent)
            await writer.drain()
            if end == "eof":
                writer.write_eof()
                await reader.read()
            elif end == "stall":
                answer = await reader.read(1000)
                assert answer.startswith(b"HTTP/1.1 400 ")
                assert b"EINCOMPLETE" in answer
            writer.close()
            await writer.wait_closed()
    # The last one was closed without waiting for the datanode to notice; so ask until it has cleaned up.
    async with asyncio.timeout(DEADLINE_S):
        while list(c.roots[0].glob("tmp/*")):
            await fetch(c, "/metrics")
    assert list(c.roots[0].glob("blocks/*/*")) == []
    assert await metric(c, "dfs_datanode_received_blocks_total") == 0


@on_cluster(DFS_RESERVED_SPACE="1000T")
async def test_a_full_disk_is_507(c: Cluster) -> None:
    for size in (10, 1_000_000):
        async with c.http.put(c.urls[0] + routes.block(BlockId(1)), data=bytes(size)) as response:
            assert_error((response.status, await response.read(), response.headers), 507, "ENOSPC")
    assert await metric(c, "dfs_datanode_free_bytes") == 0


async def make_file(c: Cluster, dice: random.Random, node: int = 0) -> tuple[str, bytes]:
    """A file over four blocks, shared, out of order, with holes at the start, in between and at the end."""
    blocks = {block: dice.randbytes(size) for block, size in ((11, 5_000_000), (12, 70_000), (13, 1), (14, 200_000))}
    for block, data in blocks.items():
        await c.put(block, data, node)
    extents, content, offset = [], bytearray(), 0
    for hole, block, start, length in (
        (100, 11, 7, 4_999_000),
        (0, 12, 0, 70_000),
        (0, 11, 0, 65_536),
        (300_000, 13, 0, 1),
        (5_000_000, 14, 65_535, 130_000),
    ):
        offset += hole
        content += bytes(hole) + blocks[block][start : start + length]
        extents.append(Extent(offset, length, BlockId(block), start))
        offset += length
    content += bytes(9_999)
    return c.add_file(5, 3, len(content), extents, mtime_ns=1_700_000_000_500_000_000), bytes(content)


@on_cluster()
async def test_ranges_of_a_file_against_a_byte_array(c: Cluster) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    dice = random.Random(seed)
    path, content = await make_file(c, dice)
    size = len(content)
    assert (await fetch(c, path))[:2] == (200, content)
    extents = c.namenode.layouts[5].extents
    edges = sorted({0, size, *(edge + d for e in extents for edge in (e.offset, e.end) for d in (-1, 0, 1))})
    edges += [dice.randrange(size) for _ in range(20)]
    pairs = [(a, b) for a in edges for b in edges if a < b]
    for start, end in [(0, 1), (size - 1, size), *dice.sample(pairs, 120)]:
        status, body, headers = await fetch(c, path, Range=f"bytes={start}-{end - 1}")
        assert status == 206
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert headers["Content-Length"] == str(end - start)
        assert body == content[start:end], (start, end)
    assert (await fetch(c, path, Range="bytes=-100"))[1] == content[-100:]
    assert (await fetch(c, path, Range=f"bytes={size - 5}-"))[1] == content[-5:]
    assert (await fetch(c, path, Range=f"bytes=5-{size * 9}"))[1] == content[5:]
    for whole in ("bytes=1-2,5-6", "lines=1-2"):
        assert (await fetch(c, path, Range=whole))[:2] == (200, content)
    for bad in (f"bytes={size}-", "bytes=5-4", "bytes=-0", "bytes=x-y", "bytes=--1", "bytes=" + "9" * 30 + "-"):
        answer = await fetch(c, path, Range=bad)
        assert_error(answer, 416, "ERANGE")
        assert answer[2]["Content-Range"] == f"bytes */{size}"
    assert c.namenode.layout_requests == 1


@on_cluster()
async def test_headers_and_conditions(c: Cluster) -> None:
    path, content = await make_file(c, random.Random(1))
    path = path.replace("name.bin", "n%C3%A4%20%22%FF%0A.tar.gz")
    etag, date = '"5-3"', "Tue, 14 Nov 2023 22:13:20 GMT"
    status, body, headers = await fetch(c, path, "HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == str(len(content))
    assert (headers["ETag"], headers["Last-Modified"], headers["Accept-Ranges"]) == (etag, date, "bytes")
    assert headers["Content-Type"] == "application/gzip"
    assert headers["Content-Disposition"] == "inline; filename*=UTF-8''n%C3%A4%20%22%FF%0A.tar.gz"
    for matching in (etag, "*", f'"x", W/{etag}'):
        status, body, headers = await fetch(c, path, If_None_Match=matching)
        assert (status, body, headers["ETag"]) == (304, b"", etag)
    assert (await fetch(c, path, If_None_Match='"5-2"', If_Modified_Since=date))[0] == 200
    assert (await fetch(c, path, If_Modified_Since=date))[0] == 304
    assert (await fetch(c, path, If_Modified_Since="Tue, 14 Nov 2023 22:13:19 GMT"))[0] == 200
    assert (await fetch(c, path, If_Modified_Since="yesterday"))[0] == 200
    for holds in (etag, date):
        assert (await fetch(c, path, Range="bytes=1-5", If_Range=holds))[:2] == (206, content[1:6])
    for fails in ('"5-2"', f"W/{etag}", "Tue, 14 Nov 2023 22:13:21 GMT", "?"):
        assert (await fetch(c, path, Range="bytes=1-5", If_Range=fails))[:2] == (200, content)
    assert (await fetch(c, path, "HEAD", Range="bytes=1-5"))[0] == 200
    for kind, name in (("text/plain", "a.txt"), ("application/octet-stream", "data:,x"), ("image/png", "%23.PNG")):
        _, _, headers = await fetch(c, f"/files/5/3/{name}", "HEAD")
        assert headers["Content-Type"] == kind


@on_cluster()
async def test_bad_and_missing_files(c: Cluster) -> None:
    assert_error(await fetch(c, "/files/77/1/x"), 404, "ENOENT")
    assert_error(await fetch(c, "/files/77/1/x", "HEAD"), 404, "ENOENT")
    for bad in ("x/1", "-1/1", "1/x", "1/" + "9" * 30):
        assert_error(await fetch(c, f"/files/{bad}/x"), 400, "EINVAL")
    c.add_file(6, 1, 100, [Extent(0, 50, BlockId(1)), Extent(20, 50, BlockId(2))])
    assert_error(await fetch(c, "/files/6/1/x"), 500, "EIO")
    empty = c.add_file(7, 1, 0, [])
    assert (await fetch(c, empty))[:2] == (200, b"")
    assert_error(await fetch(c, empty, Range="bytes=0-"), 416, "ERANGE")
    sparse = c.add_file(8, 1, 6_000_000, [])
    assert (await fetch(c, sparse))[1] == bytes(6_000_000)


@on_cluster()
async def test_keep_alive_survives_large_answers(c: Cluster) -> None:
    path, content = await make_file(c, random.Random(2))
    host, port = c.urls[0].removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(3):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert f"Content-Length: {len(content)}".encode() in head
        assert await reader.readexactly(len(content)) == content
    writer.close()
    await writer.wait_closed()


@on_cluster()
async def test_a_replaced_file_is_served_as_it_is_now(c: Cluster) -> None:
    await c.put(1, b"old")
    await c.put(2, b"newer")
    path = c.add_file(5, 1, 3, [Extent(0, 3, BlockId(1))])
    assert (await fetch(c, path))[1] == b"old"
    c.add_file(5, 2, 5, [Extent(0, 5, BlockId(2))])
    assert (await fetch(c, path))[1] == b"old"  # remembered: that version's content has not changed
    _, body, headers = await fetch(c, path.replace("/1/", "/2/"))
    assert (body, headers["ETag"]) == (b"newer", '"5-2"')
    status, body, headers = await fetch(c, path.replace("/1/", "/9/"))
    assert (status, body, headers["ETag"]) == (200, b"newer", '"5-2"')


@on_cluster()
async def test_a_moved_block_is_found_where_it_is_now(c: Cluster) -> None:
    for size in (1000, 1_000_000):
        data = random.Random(size).randbytes(size)
        await c.put(size, data)
        path = c.add_file(5, size, size, [Extent(0, size, BlockId(size))])
        assert (await fetch(c, path))[1] == data
        await c.put(size + 1, b"garbage" + data)
        c.add_file(5, size, size, [Extent(0, size, BlockId(size + 1), 7)])
        assert (await fetch(c, routes.block(BlockId(size)), "DELETE"))[0] == 204
        assert (await fetch(c, path))[:2] == (200, data)


@on_cluster()
async def test_a_block_that_is_nowhere_is_an_error_and_not_zeros(c: Cluster) -> None:
    for size in (1000, 1_000_000):
        path = c.add_file(size, 1, size, [Extent(0, size, BlockId(99))])
        answer = await fetch(c, path)
        assert_error(answer, 500, "EIO")
        assert b"0000000000000063" in answer[1]


@on_cluster(nodes=3)
async def test_what_this_node_lacks_comes_from_another(c: Cluster) -> None:
    path, content = await make_file(c, random.Random(3), node=1)
    for block in (11, 12, 13, 14):
        c.namenode.holders[block] = ["http://127.0.0.1:1/", c.urls[2] + "/", c.urls[1] + "/"]
    assert (await fetch(c, path))[:2] == (200, content)
    assert (await fetch(c, path, Range="bytes=50-60"))[1] == content[50:61]
    assert (await fetch(c, path, Range="bytes=90-5200000"))[1] == content[90:5_200_001]
    twelfth = routes.block(BlockId(12))
    here, there = await fetch(c, twelfth), await fetch(c, twelfth, node=1)
    assert here[:2] == there[:2]
    assert here[2]["ETag"] == there[2]["ETag"]
    assert (await fetch(c, twelfth, Range="bytes=5-9"))[1] == there[1][5:10]
    assert (await fetch(c, twelfth, "HEAD"))[2]["Content-Length"] == "70000"
    for method in ("GET", "HEAD"):
        assert_error(await fetch(c, twelfth + "?local=true", method), 404, "ENOENT")
    assert await metric(c, "dfs_datanode_peer_reads_total") > 0


@pytest.mark.parametrize("where", ["start", "middle", "end", "footer"])
def test_a_bad_block_is_never_served(tmp_path: Path, where: str) -> None:
    async def main(c: Cluster) -> None:
        size = 9_000_000
        data = random.Random(4).randbytes(size)
        for node in range(2):
            await c.put(1, data, node)
            await c.put(2, data[:1000], node)
        large = c.add_file(5, 1, size, [Extent(0, size, BlockId(1))])
        small = c.add_file(6, 1, 1000, [Extent(0, 1000, BlockId(2))])
        c.namenode.holders[1] = c.namenode.holders[2] = [c.urls[0], c.urls[1]]
        for block, length in ((1, size), (2, 1000)):
            at = {"start": 0, "middle": length // 2, "end": length - 1, "footer": length + 1}[where]
            path = c.path(block)
            changed = bytearray(path.read_bytes())
            changed[at] ^= 0x10
            path.write_bytes(changed)
        assert (await fetch(c, large))[:2] == (200, data)
        assert (await fetch(c, small))[:2] == (200, data[:1000])
        assert await metric(c, "dfs_datanode_bad_blocks_total") == 2
        assert len(list(c.roots[0].glob("quarantine/*"))) == 2
        for block in (1, 2):
            assert_error(await fetch(c, routes.block(BlockId(block)) + "?local=true"), 404, "ENOENT")
            assert (await fetch(c, routes.block(BlockId(block))))[0] == 200

    async def run() -> None:
        async with cluster(tmp_path, 2) as made:
            await main(made)

    asyncio.run(run())


@on_cluster()
async def test_a_bad_block_without_another_copy_ends_the_answer(c: Cluster) -> None:
    """The client sees a body that is too short; nothing that it has received is wrong."""
    size = 20_000_000
    data = random.Random(5).randbytes(size)
    await c.put(1, data)
    path = c.add_file(5, 1, size, [Extent(0, size, BlockId(1))])
    with c.path(1).open("r+b") as file:
        file.seek(15_000_000)
        file.write(bytes([data[15_000_000] ^ 1]))
    received = bytearray()
    with pytest.raises(aiohttp.ClientPayloadError):
        async with c.http.get(c.urls[0] + path) as response:
            assert response.status == 200
            async for piece in response.content.iter_any():
                received += piece
    assert 0 < len(received) <= 15_000_000
    assert received == data[: len(received)]
    assert await metric(c, "dfs_datanode_aborted_answers_total") == 1
    assert_error(await fetch(c, path), 500, "EIO")


@on_cluster()
async def test_a_client_that_goes_away_leaves_nothing_open(c: Cluster) -> None:
    size = 40_000_000
    await c.put(1, bytes(size))
    host, port = c.urls[0].removeprefix("http://").split(":")
    for _ in range(3):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /blocks/0000000000000001 HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(100_000)
        writer.transport.abort()
    assert (await fetch(c, routes.block(BlockId(1)), "DELETE"))[0] == 204
    async with asyncio.timeout(DEADLINE_S):
        while list(c.roots[0].glob("blocks/*/*")):  # it goes when the last one that was served it has gone
            await fetch(c, "/metrics")


@on_cluster()
async def test_many_small_blocks_at_once(c: Cluster) -> None:
    await asyncio.gather(*(c.put(n << 28, b"%d" % n) for n in range(300)))
    for n in range(300):
        assert (await fetch(c, routes.block(BlockId(n << 28))))[1] == b"%d" % n
    assert await metric(c, "dfs_datanode_blocks") == 300
