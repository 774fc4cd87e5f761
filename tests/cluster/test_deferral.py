"""Small writes of a mount's session are safe at once, wherever their bytes are at that moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import requests

from dfslib.model import ROOT, InodeId
from dfslib.wire import session as wire
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until
from tests.cluster.test_sessions import Client, file, name, scenario
from tests.deadline import DEADLINE_S


async def until(condition: Callable[[], Coroutine[None, None, bool]], what: str) -> None:
    end = asyncio.get_running_loop().time() + DEADLINE_S
    while not await condition():
        assert asyncio.get_running_loop().time() < end, what
        await asyncio.sleep(0.02)


async def layout(client: Client, ino: InodeId) -> wire.Layout:
    answer = await client(wire.GetLayout(ino, 0, 1 << 20))
    assert isinstance(answer, wire.Layout)
    return answer


async def moved(client: Client, ino: InodeId) -> bool:
    return not (await layout(client, ino)).deferred


async def write_deferred(client: Client, ino: InodeId, offset: int, data: bytes) -> None:
    answer = await client.attributes(wire.Write(ino, [wire.Piece(offset, data)]))
    assert answer.synced


def get(cluster: Cluster, path: bytes) -> bytes:
    return requests.get(f"{cluster.url}fs/{path.decode()}", timeout=DEADLINE_S).content


@scenario
async def test_a_small_write_is_seen_before_and_after_it_is_on_datanodes(
    cluster: Cluster, a: Client, b: Client
) -> None:
    one = name()
    ino = (await a.attributes(file(one, open=True))).attr.ino
    await write_deferred(a, ino, 0, b"first ")
    await write_deferred(a, ino, 6, b"second")
    opened = await b.attributes(wire.Open(ino))
    assert b"".join(opened.deferred.values()) in (b"first second", b""), "at once, or moved in between"
    assert opened.extents is not None
    block = opened.extents[0].block
    await until(lambda: moved(b, ino), "it goes to datanodes")
    after = await layout(b, ino)
    assert sum(extent.length for extent in after.extents) == 12
    assert {len(holders) for holders in after.holders.values()} == {await asyncio.to_thread(cluster.alive)}
    assert [push for push in b.pushes if isinstance(push, wire.Invalidate)] == [], "nobody's bytes have changed"
    assert await b(wire.ReadDeferred(block)) == "ENOENT"
    assert await asyncio.to_thread(get, cluster, one) == b"first second"
    health = await asyncio.to_thread(lambda: requests.get(f"{cluster.url}cluster/fsck", timeout=DEADLINE_S).json())
    assert health["healthy"], health


@scenario
async def test_what_is_overwritten_or_removed_before_it_moves_leaves_nothing(
    cluster: Cluster, a: Client, b: Client
) -> None:
    one, two = name(), name()
    ino = (await a.attributes(file(one, open=True))).attr.ino
    gone = (await a.attributes(file(two, open=True))).attr.ino
    for turn in range(20):
        await write_deferred(a, ino, 0, b"%04d" % turn)
    await write_deferred(a, gone, 0, b"removed")
    await a(wire.Unlink(ROOT, two))
    await a(wire.Close(gone))
    await until(lambda: moved(b, ino), "it goes to datanodes")
    assert await asyncio.to_thread(get, cluster, one) == b"0019"


@scenario
async def test_http_reads_a_file_that_a_mount_goes_on_writing(cluster: Cluster, a: Client, b: Client) -> None:
    one = name()
    ino = (await a.attributes(file(one, open=True))).attr.ino
    written = b""
    for turn in range(30):
        line = b"line %d\n" % turn
        await a(wire.Write(ino, [wire.Piece(0, line)], append=True))
        written += line
        assert await asyncio.to_thread(get, cluster, one) == written


@scenario
async def test_a_large_write_is_not_deferred(cluster: Cluster, a: Client, b: Client) -> None:
    ino = (await a.attributes(file(name(), open=True))).attr.ino
    answer = await a.attributes(wire.Write(ino, [wire.Piece(0, bytes(100 << 10))]))
    assert not answer.synced
    assert not (await layout(a, ino)).deferred


def test_everything_ends_at_once_and_nothing_acknowledged_is_lost(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    names = [name() for _ in range(100)]

    async def write() -> None:
        client = Client(cluster.url)
        await client.connect()
        for number, one in enumerate(names):
            ino = (await client.attributes(file(one, open=True))).attr.ino
            await write_deferred(client, ino, 0, b"file %d" % number)
        for server in cluster.servers:
            server.kill()
        await client.close()

    asyncio.run(write())
    cluster.start()
    for number, one in enumerate(names):
        assert get(cluster, one) == b"file %d" % number
    assert requests.get(f"{cluster.url}cluster/fsck", timeout=DEADLINE_S).json()["healthy"]


def test_without_datanodes_it_is_refused_and_what_was_taken_waits(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    one = name()

    async def write() -> None:
        client = Client(cluster.url)
        await client.connect()
        ino = (await client.attributes(file(one, open=True))).attr.ino
        await write_deferred(client, ino, 0, b"taken")
        for server in cluster.servers[1:]:
            server.kill()
        await asyncio.to_thread(wait_until, lambda: cluster.alive() == 0, "the datanodes are missed")
        assert await client(wire.Write(ino, [wire.Piece(0, b"never")])) == "ENODATANODES"
        opened = await client.attributes(wire.Open(ino))
        assert opened.attr.size == 5
        for server in cluster.servers[1:]:
            server.start()
        await asyncio.to_thread(cluster.wait_alive)
        await until(lambda: moved(client, ino), "it goes to datanodes")
        await client.close()

    asyncio.run(write())
    assert get(cluster, one) == b"taken"
