"""Block files that are deleted, cut off or changed while a datanode runs: found, counted, told, never served."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from dfslib.datanode import registration
from dfslib.datanode.losses import Losses
from dfslib.datanode.store.block_file import BadBlock
from dfslib.datanode.store.block_index import DIRECTORIES
from dfslib.datanode.store.block_store import BlockStore, Finding
from dfslib.datanode.store.block_writer import BlockWriter, NewBlock
from dfslib.errors import NotFound, Unavailable
from dfslib.model import BlockId, Extent
from dfslib.wire import routes
from dfslib.wire.messages import CopyOrder
from tests.unit.datanode.fake_cluster import Cluster, block_file_bytes, block_path, cluster
from tests.unit.datanode.test_datanode_http import assert_error, fetch, metric, on_cluster
from tests.unit.datanode.test_registration import running

SIZE = 300_000
BLOCK = BlockId(5)


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x20]))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: os.truncate(path, 0),
    "without its last byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut off in the data": lambda path: os.truncate(path, SIZE // 2),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1),
    "first byte": lambda path: flip(path, 0),
    "last byte of the data": lambda path: flip(path, SIZE - 1),
    "replaced by another's": lambda path: path.write_bytes(block_file_bytes(6, bytes(SIZE))),
}


def new_store(root: Path) -> tuple[BlockStore, list[Finding]]:
    findings: list[Finding] = []
    return BlockStore(root, 0, on_finding=lambda _, finding: findings.append(finding)), findings


def put(store: BlockStore, block: int, data: bytes) -> None:
    writer = BlockWriter(store, NewBlock(BlockId(block)), len(data))
    writer.write([data])
    writer.finish()


def read_all(store: BlockStore, block: int) -> bytes:
    with store.opened(BlockId(block)) as opened:
        return opened.read(0, opened.size)


@pytest.mark.parametrize("already_open", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_by_the_next_read(volume_root: Path, damage: str, already_open: bool) -> None:
    store, findings = new_store(volume_root)
    put(store, BLOCK, random.Random(1).randbytes(SIZE))
    put(store, 6, b"another")
    if already_open:
        read_all(store, BLOCK)
    before = store.usage()
    DAMAGES[damage](block_path(volume_root, BLOCK))
    with pytest.raises(NotFound if damage == "deleted" else BadBlock):
        read_all(store, BLOCK)
    assert findings == [Finding.MISSING if damage == "deleted" else Finding.BAD]
    assert BLOCK not in store
    with pytest.raises(NotFound):
        read_all(store, BLOCK)
    assert len(findings) == 1
    assert store.usage().blocks == before.blocks - 1
    assert store.usage().used == block_path(volume_root, 6).stat().st_size
    put(store, BLOCK, b"good again")
    assert read_all(store, BLOCK) == b"good again"
    store.close()


def test_an_open_footer_does_not_hide_a_damaged_one(volume_root: Path) -> None:
    """The data is good, and may be served; who opens the file anew finds out."""
    store, findings = new_store(volume_root)
    put(store, BLOCK, bytes(SIZE))
    read_all(store, BLOCK)
    flip(block_path(volume_root, BLOCK), SIZE + 3)
    assert read_all(store, BLOCK) == bytes(SIZE)
    store.close()
    with pytest.raises(BadBlock):
        read_all(store, BLOCK)
    assert findings == [Finding.BAD]


def test_a_listing_finds_what_is_missing_and_what_is_unexpected(volume_root: Path) -> None:
    store, findings = new_store(volume_root)
    for block in (1, 2, 3, 1 << 30, 2 << 30):
        put(store, block, b"x" * 100)
    block_path(volume_root, 2).unlink()
    (volume_root / "blocks" / "00" / f"{9:016x}").write_bytes(block_file_bytes(9, b"y" * 100))
    shutil.rmtree(volume_root / "blocks" / "01")
    listing = store.start_listing()
    store.end_listing(listing)
    assert listing.page(0, 100) == ([1, 3, 9, 2 << 30], True)
    assert sorted(finding.value for finding in findings) == ["missing", "missing", "unexpected"]
    usage = store.usage()
    sizes = [block_path(volume_root, block).stat().st_size for block in (1, 3, 9, 2 << 30)]
    assert (usage.blocks, usage.used) == (4, sum(sizes))
    assert read_all(store, 9) == b"y" * 100
    put(store, 1 << 30, b"x" * 100)
    for number in range(DIRECTORIES):
        store.compare(number)
    assert len(findings) == 3
    store.close()


def test_a_directory_that_has_vanished_refuses_nothing(volume_root: Path) -> None:
    store, findings = new_store(volume_root)
    put(store, BLOCK, b"x")
    shutil.rmtree(volume_root / "blocks")
    put(store, BLOCK, b"x")
    put(store, 1 << 30, b"y")
    assert (read_all(store, BLOCK), read_all(store, 1 << 30)) == (b"x", b"y")
    assert store.usage().blocks == 2
    assert findings == []
    store.close()


def test_losses_that_happen_again_while_they_are_told() -> None:
    losses = Losses()
    losses.add(BlockId(1))
    losses.add(BlockId(2))
    telling = losses.untold()
    losses.add(BlockId(2))
    losses.told(telling)
    assert losses.untold().keys() == {2}
    losses.told(losses.untold())
    assert losses.untold() == {}


@pytest.mark.parametrize("size", [SIZE // 2, 9_000_000])
@pytest.mark.parametrize("damage", ["deleted", "emptied", "first byte"])
def test_a_peer_serves_what_has_been_damaged_while_it_was_open(tmp_path: Path, damage: str, size: int) -> None:
    async def main() -> None:
        async with cluster(tmp_path, 2) as c:
            data = random.Random(2).randbytes(size)
            for node in range(2):
                await c.put(BLOCK, data, node)
            path = c.add_file(5, 1, size, [Extent(0, size, BLOCK)])
            c.namenode.holders[BLOCK] = [url + "/" for url in c.urls]
            assert (await fetch(c, path))[:2] == (200, data)
            DAMAGES[damage](c.path(BLOCK))
            assert (await fetch(c, path))[:2] == (200, data)
            assert (await fetch(c, routes.block(BLOCK)))[:2] == (200, data)
            assert_error(await fetch(c, routes.block(BLOCK) + "?local=true"), 404, "ENOENT")
            name = "missing" if damage == "deleted" else "bad"
            assert await metric(c, f"dfs_datanode_{name}_blocks_total") == 1
            assert await metric(c, "dfs_datanode_blocks") == 0

    asyncio.run(main())


@on_cluster(nodes=2)
async def test_a_file_cut_off_while_it_is_sent(c: Cluster) -> None:
    """The kernel is in the middle of a range that was good: what is left of it comes from a peer."""
    size = 40_000_000
    data = random.Random(3).randbytes(size)
    for node in range(2):
        await c.put(BLOCK, data, node)
    c.namenode.holders[BLOCK] = [url + "/" for url in c.urls]
    host, port = c.urls[0].removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 16)
    writer.write(f"GET {routes.block(BLOCK)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head
    received = await reader.readexactly(1 << 16)
    os.truncate(c.path(BLOCK), 0)
    received += await reader.readexactly(size - len(received))
    assert received == data
    writer.close()
    await writer.wait_closed()
    assert await metric(c, "dfs_datanode_bad_blocks_total") == 1


async def lose(c: Cluster, block: int) -> None:
    """Delete a block's file and have it missed."""
    c.path(block).unlink()
    assert_error(await fetch(c, routes.block(BlockId(block)) + "?local=true"), 404, "ENOENT")


def test_losses_while_the_namenode_is_away_are_in_the_next_report(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as c:
            for block in (1, 2, 3):
                await c.put(block, b"%d" % block)
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats)
                c.namenode.heartbeat_errors = [Unavailable(), Unavailable(), Unavailable()]
                await lose(c, 2)
                DAMAGES["first byte"](c.path(3))
                assert_error(await fetch(c, routes.block(BlockId(3)) + "?local=true"), 404, "ENOENT")
                await c.namenode.until(lambda: not c.namenode.heartbeat_errors and len(c.namenode.joins) == 4)
                beats = len(c.namenode.heartbeats)
                await c.namenode.until(lambda: len(c.namenode.heartbeats) > beats)
                assert c.namenode.reports[-1].blocks == [1]
                assert c.namenode.heartbeats[-1].bad == []

    asyncio.run(main())


def test_what_is_told_is_what_is_so_by_then(tmp_path: Path) -> None:
    """A loss that was made good is none; a copy that was made and lost is one."""

    async def main() -> None:
        async with cluster(tmp_path, 2) as c:
            told = c.namenode.heartbeats
            for block in (1, 2):
                await c.put(block, b"x")
            await c.put(3, b"x", node=1)
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: told)
                c.namenode.copy_in_heartbeat = [CopyOrder(3, 1, [c.urls[1]])]
                await c.namenode.until(lambda: any(beat.copied for beat in told))
                c.namenode.gate.clear()
                await c.namenode.until(lambda: told[-1].copied == [])
                held = len(told)
                for block in (1, 2, 3):
                    await lose(c, block)
                await c.put(1, b"x")
                c.namenode.copy_in_heartbeat = [CopyOrder(3, 1, [c.urls[1]])]
                c.namenode.gate.set()
                await c.namenode.until(lambda: any(beat.copied for beat in told[held:]))
            assert told[held].bad == [2, 3]
            assert [beat.copied for beat in told[held:] if beat.copied] == [[3]]

    asyncio.run(main())


def test_many_losses_are_told_by_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "_LOSSES_MAX", 2)

    async def main() -> None:
        async with cluster(tmp_path) as c:
            for block in range(1, 6):
                await c.put(block, b"x")
            async with running(c.nodes[0]):
                await c.namenode.until(lambda: c.namenode.heartbeats)
                shutil.rmtree(c.roots[0] / "blocks" / "00")
                for block in range(1, 5):
                    await fetch(c, routes.block(BlockId(block)) + "?local=true")
                await c.namenode.until(lambda: c.namenode.reports[-1].blocks == [])
                beats = len(c.namenode.heartbeats)
                # One that was missed while the report was made may be told once more.
                await c.namenode.until(lambda: len(c.namenode.heartbeats) > beats and not c.namenode.heartbeats[-1].bad)

    asyncio.run(main())
