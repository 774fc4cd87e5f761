"""`/metadata` over real sockets."""

from __future__ import annotations

import asyncio
import io
import random

from crc32c import crc32c

from dfslib.wire import messages, routes
from dfslib.wire.messages import MetadataFileBody, MetadataListBody
from dfslib.wire.positions import Position
from tests.deadline import DEADLINE_S
from tests.unit.datanode.fake_cluster import Cluster
from tests.unit.datanode.test_datanode_http import Answer, assert_error, fetch, metric, on_cluster


async def put(c: Cluster, name: str, data: bytes, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{c.urls[0]}/metadata/{name}"
    async with c.http.put(url, data=io.BytesIO(data), headers=names) as response:
        return response.status, await response.read(), response.headers


def sum_of(data: bytes) -> str:
    return f"{crc32c(data):08x}"


async def listed(c: Cluster) -> list[MetadataFileBody]:
    return messages.decode((await fetch(c, "/metadata"))[1], MetadataListBody).files


@on_cluster()
async def test_put_list_get_delete(c: Cluster) -> None:
    assert await listed(c) == []
    contents = {f"f.{size}": random.Random(size).randbytes(size) for size in (0, 1, 300_000, 9_000_001)}
    for name, data in contents.items():
        for status in (201, 200):
            answer = await put(c, name, data, X_DFS_CRC32C=sum_of(data))
            assert answer[0] == status
            assert messages.decode(answer[1], MetadataFileBody) == MetadataFileBody(name, len(data), sum_of(data))
        for method, body in (("GET", data), ("HEAD", b"")):
            status, sent, headers = await fetch(c, f"/metadata/{name}", method)
            assert (status, sent, headers["Content-Length"]) == (200, body, str(len(data)))
            assert headers[routes.HEADER_CRC32C] == sum_of(data)
    assert await listed(c) == [MetadataFileBody(n, len(d), sum_of(d)) for n, d in sorted(contents.items())]
    for name in contents:
        assert (await fetch(c, f"/metadata/{name}", "DELETE"))[0] == 204
        for method in ("DELETE", "GET", "HEAD"):
            assert_error(await fetch(c, f"/metadata/{name}", method), 404, "ENOENT")
    assert await listed(c) == []
    assert list(c.roots[0].glob("tmp/*")) == []


@on_cluster()
async def test_bad_requests_change_nothing(c: Cluster) -> None:
    await put(c, "here", b"as it was", X_DFS_CRC32C=sum_of(b"as it was"))
    assert_error(await put(c, "here", b"x"), 400, "EINVAL")
    assert_error(await put(c, "here", b"x", X_DFS_CRC32C="xyz"), 400, "EINVAL")
    assert_error(await put(c, "here", b"x" * 3_000_000, X_DFS_CRC32C="00000000"), 400, "EBADMSG")
    for name in ("A", ".x", "%2e%2e%2fidentity.json", "a%2Fb", "a" * 129, "%7Bx%7D", ""):
        for method in ("GET", "DELETE"):
            assert_error(await fetch(c, f"/metadata/{name}", method), 400, "EINVAL")
        assert_error(await put(c, name, b"x", X_DFS_CRC32C=sum_of(b"x")), 400, "EINVAL")
    assert (await fetch(c, "/metadata/here"))[:2] == (200, b"as it was")
    assert [file.name for file in await listed(c)] == ["here"]
    assert list(c.roots[0].glob("tmp/*")) == []


@on_cluster()
async def test_the_position_that_a_copy_leads_to_is_remembered(c: Cluster) -> None:
    def kept() -> list[str]:
        return sorted(path.name for path in c.roots[0].glob("position-*"))

    first, second = (str(Position(0, number, b"r" * 8, b"c" * 16)) for number in (5, 6))
    for position in (second, first):
        assert (await put(c, position[:30], b"x", X_DFS_CRC32C=sum_of(b"x"), X_DFS_Position=position))[0] == 201
        assert kept() == [f"position-{second}"]
    assert_error(await put(c, "bad", b"x", X_DFS_CRC32C=sum_of(b"x"), X_DFS_Position="6"), 400, "EINVAL")
    assert_error(await put(c, "bad", b"x", X_DFS_CRC32C="00000000", X_DFS_Position=second), 400, "EBADMSG")
    assert kept() == [f"position-{second}"]
    assert len(await listed(c)) == 2
    assert (await put(c, "old", b"x", X_DFS_CRC32C=sum_of(b"x")))[0] == 201
    assert kept() == []


@on_cluster(DFS_BODY_TIMEOUT="0.2")
async def test_a_body_that_stalls_stores_nothing(c: Cluster) -> None:
    host, port = c.urls[0].removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = "PUT /metadata/x HTTP/1.1\r\nHost: x\r\nX-DFS-CRC32C: 00000000\r\nContent-Length: 9000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 5_000_000)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(DEADLINE_S):
        while list(c.roots[0].glob("tmp/*")):
            await fetch(c, "/metrics")
    assert await listed(c) == []


@on_cluster(DFS_RESERVED_SPACE="1000T")
async def test_a_full_disk_is_507(c: Cluster) -> None:
    for data in (b"small", bytes(2_000_000)):
        assert_error(await put(c, "x", data, X_DFS_CRC32C=sum_of(data)), 507, "ENOSPC")


@on_cluster()
async def test_a_damaged_file_is_an_error_and_goes_to_the_quarantine(c: Cluster) -> None:
    data = random.Random(1).randbytes(5_000_000)
    for at in (0, 2_500_000, 4_999_999, 5_000_010):
        await put(c, "x", data, X_DFS_CRC32C=sum_of(data))
        with (c.roots[0] / "metadata" / "x").open("r+b") as file:
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 4]))
        assert_error(await fetch(c, "/metadata/x"), 500, "EIO")
        assert_error(await fetch(c, "/metadata/x"), 404, "ENOENT")
        assert await listed(c) == []
    assert await metric(c, "dfs_datanode_bad_metadata_files_total") == 4
    assert len(list(c.roots[0].glob("quarantine/metadata-x.*"))) == 4
