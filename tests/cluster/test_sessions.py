"""A mount's session over a bare WebSocket: done once, answered alike, told of what others change."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Coroutine
from pathlib import Path

import aiohttp
import pytest
import requests

from dfslib.model import ROOT, Attr, BlockId, BlockRef, Extent, FileType, InodeId, format_block
from dfslib.wire import session as wire
from dfslib.wire.features import Role, named
from tests.cluster.real_cluster import Cluster, MakeCluster, wait_until
from tests.deadline import DEADLINE_S

_numbers = itertools.count(1)


def greeting(name: str, session: str = "") -> wire.Hello:
    """Of a mount of this build."""
    return wire.Hello(wire.SESSION_PROTOCOL, name, session, named(Role.MOUNT))


Push = wire.Invalidate | wire.Nodes | wire.LevelRaised
Outcome = wire.Result | str
"""What an operation came to, or the code of its error."""


class Client:
    """Frames in and out; requests are numbered here, and pushes are kept in their order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = ""
        self.welcome: wire.Welcome | None = None
        self.pushes: list[Push] = []
        self.answers: dict[int, Outcome] = {}

    async def connect(self, hello: bytes | None = None) -> wire.Welcome | wire.Failure:
        self.http = aiohttp.ClientSession()
        self.socket = await self.http.ws_connect(self.url.rstrip("/") + "/session")
        await self.socket.send_bytes(hello or wire.encode(greeting("test", self.session)))
        first: wire.FromNamenode = wire.decode_from_namenode(await self.frame())
        assert isinstance(first, wire.Welcome | wire.Failure), first
        if isinstance(first, wire.Welcome):
            self.welcome, self.session = first, first.session
        return first

    async def frame(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.BINARY, message
        data: bytes = message.data
        return data

    async def close(self) -> None:
        await self.socket.close()
        await self.http.close()

    async def send(self, operation: wire.Operation, seq: int = 0) -> int:
        seq = seq or next(_numbers)
        await self.socket.send_bytes(wire.encode(wire.Request(seq, operation)))
        return seq

    async def answer(self, seq: int) -> Outcome:
        while seq not in self.answers:
            message: wire.FromNamenode = wire.decode_from_namenode(await self.frame())
            if isinstance(message, wire.Answer):
                self.answers[message.seq] = message.result
            elif isinstance(message, wire.Failure):
                self.answers[message.seq] = message.error
            else:
                assert not isinstance(message, wire.Welcome), message
                self.pushes.append(message)
        return self.answers.pop(seq)

    async def __call__(self, operation: wire.Operation, seq: int = 0) -> Outcome:
        return await self.answer(await self.send(operation, seq))

    async def attributes(self, operation: wire.Operation, seq: int = 0) -> wire.Attributes:
        """The answer to an operation that has Attributes as its answer, and that is not refused."""
        found = await self(operation, seq)
        assert isinstance(found, wire.Attributes), found
        return found


def scenario(work: Callable[[Cluster, Client, Client], Coroutine[None, None, None]]) -> Callable[[Cluster], None]:
    """Runs `work(cluster, a, b)` with two sessions."""

    def test(cluster: Cluster) -> None:
        async def run() -> None:
            a, b = Client(cluster.url), Client(cluster.url)
            await a.connect()
            await b.connect()
            try:
                await work(cluster, a, b)
            finally:
                await a.close()
                await b.close()

        asyncio.run(run())

    test.__name__ = work.__name__
    return test


def file(name: bytes, *, open: bool = False) -> wire.Create:
    return wire.Create(ROOT, name, FileType.FILE, 0o644, 1, 2, open=open)


def name() -> bytes:
    return f"n{os.getpid()}-{next(_numbers)}".encode()


@pytest.mark.parametrize(
    ("hello", "error"),
    [
        (wire.encode(wire.Hello(99, "x")), "EINVAL"),
        (b"\xc1 nonsense", "EINVAL"),
        (wire.encode(greeting("x", "unknown")), "ESTALE"),
    ],
)
def test_a_session_that_cannot_be_is_refused(cluster: Cluster, hello: bytes, error: str) -> None:
    async def run() -> None:
        client = Client(cluster.url)
        first = await client.connect(hello)
        await client.close()
        assert isinstance(first, wire.Failure)
        assert (first.seq, first.error) == (-1, error)

    asyncio.run(run())


@scenario
async def test_a_request_sent_again_is_done_once_and_answered_alike(cluster: Cluster, a: Client, b: Client) -> None:
    one = name()
    seq = await a.send(file(one, open=True))
    first = await a.answer(seq)
    assert isinstance(first, wire.Attributes)
    assert first.created
    assert await a(file(one, open=True), seq) == first
    await a.close()
    await a.connect()
    assert a.welcome is not None
    assert not a.welcome.restarted
    assert await a(file(one, open=True), seq) == first
    await a(wire.Write(first.attr.ino, [wire.Piece(0, b"once ")], append=True), 10_000 + seq)
    await a(wire.Write(first.attr.ino, [wire.Piece(0, b"once ")], append=True), 10_000 + seq)
    assert (await a.attributes(wire.GetAttr(first.attr.ino))).attr.size == 5
    await a(wire.Unlink(ROOT, one))
    assert (await a.attributes(wire.GetAttr(first.attr.ino))).attr.nlink == 0, "it was opened once, and is open"
    await a(wire.Close(first.attr.ino))


@scenario
async def test_what_others_change_is_told_before_it_is_seen(cluster: Cluster, a: Client, b: Client) -> None:
    one = name()
    ino = (await a.attributes(file(one))).attr.ino
    assert (await b.attributes(wire.Lookup(ROOT, one))).attr.ino == ino
    b.pushes.clear()
    await a(wire.Write(ino, [wire.Piece(0, b"content")]))
    seen = await b.attributes(wire.GetAttr(ino))
    assert seen.attr.size == 7
    (push,) = b.pushes
    assert isinstance(push, wire.Invalidate)
    assert push.contents == [ino]
    b.pushes.clear()
    await a(wire.SetAttr(ino, mode=0o600))
    await a(wire.Rename(ROOT, one, ROOT, one + b"2"))
    assert (await b(wire.Lookup(ROOT, one))) == "ENOENT"
    told = [push for push in b.pushes if isinstance(push, wire.Invalidate)]
    assert ino in [found for push in told for found in push.attributes]
    assert {(ROOT, one), (ROOT, one + b"2")} <= {entry for push in told for entry in push.names}
    assert not [push for push in a.pushes if isinstance(push, wire.Invalidate)], "nobody is told of what it did itself"


@scenario
async def test_a_cache_kept_by_pushes_is_never_behind(cluster: Cluster, a: Client, b: Client) -> None:
    seed = int(os.environ.get("DFS_SEED", random.SystemRandom().randrange(1 << 30)))
    print(f"DFS_SEED={seed}")
    rng = random.Random(seed)
    inodes = [(await a.attributes(file(name()))).attr.ino for _ in range(5)]
    cache: dict[InodeId, Attr] = {}
    for _ in range(300):
        ino = rng.choice(inodes)
        what = rng.choice(["chmod", "write", "truncate", "look", "look", "look"])
        who = rng.choice([a, b])
        if what == "look":
            fresh = await b.attributes(wire.GetAttr(ino))
            for push in b.pushes:
                if isinstance(push, wire.Invalidate):
                    for gone in (*push.attributes, *push.contents):
                        cache.pop(gone, None)
            b.pushes.clear()
            if ino in cache:
                assert cache[ino] == fresh.attr
            cache[ino] = fresh.attr
            continue
        if who is b:
            cache.pop(ino, None)
        if what == "chmod":
            await who(wire.SetAttr(ino, mode=rng.randrange(0o1000)))
        elif what == "write":
            await who(wire.Write(ino, [wire.Piece(rng.randrange(100), b"x" * rng.randrange(1, 50))]))
        else:
            await who(wire.SetAttr(ino, size=rng.randrange(200)))


@scenario
async def test_wrong_requests_are_answered_and_change_nothing(cluster: Cluster, a: Client, b: Client) -> None:
    one = name()
    ino = (await a.attributes(file(one))).attr.ino
    for operation, error in (
        (file(one), "EEXIST"),
        (file(b"a/b"), "EINVAL"),
        (file(b".."), "EINVAL"),
        (file(b"x" * 256), "ENAMETOOLONG"),
        (wire.GetAttr(InodeId(1 << 50)), "ENOENT"),
        (wire.Open(InodeId(1 << 50)), "ENOENT"),
        (wire.Write(ino, [wire.Piece(-1, b"x")]), "EINVAL"),
        (wire.Write(ino, [wire.Piece(0, b"x" * (wire.INLINE_MAX + 1))]), "EFBIG"),
        (wire.Commit(ino, [Extent(0, 10, BlockId(77))], []), "EBLOCKGONE"),
        (wire.Allocate(ino, 0), "EINVAL"),
        (wire.SetAttr(ino, size=-1), "EINVAL"),
        (wire.GetXattr(ino, b"user.none"), "ENODATA"),
        (wire.SetLock(ino, 1, 9, 0, 10), "EINVAL"),
        (wire.SetLock(ino, 1, 1, 10, 0), "EINVAL"),
        (wire.Rmdir(ROOT, one), "ENOTDIR"),
    ):
        assert await a(operation) == error, operation
    assert (await a.attributes(wire.GetAttr(ino))).attr.size == 0


def test_what_a_session_held_goes_after_its_grace(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1, DFS_SESSION_GRACE="1", DFS_GARBAGE_DELAY="1")

    async def run() -> InodeId:
        a, b = Client(cluster.url), Client(cluster.url)
        await a.connect()
        await b.connect()
        ino = (await a.attributes(file(b"f", open=True))).attr.ino
        await a(wire.Write(ino, [wire.Piece(0, b"kept while it is open")]))
        await a(wire.Unlink(ROOT, b"f"))
        assert isinstance(await a(wire.SetLock(ino, 1, 1, 0, 100)), wire.Done)
        assert await b(wire.SetLock(ino, 1, 1, 0, 100)) == "EAGAIN"
        await a(wire.Allocate(ino, 2))
        await a.close()
        assert isinstance(await b(wire.SetLock(ino, 1, 1, 0, 100, wait=True)), wire.Done)
        first = await a.connect()
        assert isinstance(first, wire.Failure)
        assert first.error == "ESTALE"
        await a.close()
        await b.close()
        return ino

    asyncio.run(run())

    def is_clean() -> bool:
        status = requests.get(f"{cluster.url}cluster/df", timeout=DEADLINE_S).json()
        return (status["bytes"], status["files"]) == (0, 0)

    wait_until(is_clean, "the file without a name is freed")
    assert requests.get(f"{cluster.url}cluster/fsck", timeout=DEADLINE_S).json()["healthy"]


def test_a_namenode_that_is_killed_does_what_it_is_sent_again_once(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(1)

    async def run() -> None:
        a = Client(cluster.url)
        await a.connect()
        ino = (await a.attributes(file(b"log", open=True))).attr.ino
        lines = []
        for number in range(5):
            operation = wire.Write(ino, [wire.Piece(0, b"%04d\n" % number)], append=True)
            seq = await a.send(operation)
            if number % 2:
                await a.answer(seq)  # done, and the answer is lost to us all the same
            cluster.namenode.kill()
            await a.close()
            cluster.namenode.start()
            await asyncio.to_thread(cluster.wait_alive)
            welcome = await a.connect()
            assert isinstance(welcome, wire.Welcome)
            assert welcome.restarted
            await a(wire.Open(ino))
            await a(wire.Forget([]))
            a.answers.clear()
            await a(operation, seq)
            lines.append(b"%04d\n" % number)
            assert (await a.attributes(wire.GetAttr(ino))).attr.size == 5 * len(lines)
        await a(wire.Goodbye())
        await a.close()

    asyncio.run(run())
    assert requests.get(f"{cluster.url}fs/log", timeout=DEADLINE_S).content == b"".join(b"%04d\n" % n for n in range(5))


def test_blocks_that_come_with_a_repetition_are_given_up_and_those_of_the_first_stay(make_cluster: MakeCluster) -> None:
    """A mount that does not know what became of a commit may send it again with other blocks."""
    cluster = make_cluster(2)
    data = os.urandom(200 << 10)

    async def stored(client: Client, ino: InodeId) -> BlockRef:
        answered = await client(wire.Allocate(ino))
        assert isinstance(answered, wire.Grants), answered
        (grant,) = answered.grants
        for target in grant.targets:
            url = f"{target.url.rstrip('/')}/blocks/{format_block(grant.block)}"
            answer = await asyncio.to_thread(requests.put, url, data=data, timeout=DEADLINE_S)
            assert answer.status_code == 201
        nodes = tuple(target.node for target in grant.targets)
        return BlockRef(grant.block, len(data), int(answer.json()["crc32c"], 16), nodes)

    def commit(ino: InodeId, ref: BlockRef) -> wire.Commit:
        return wire.Commit(ino, [Extent(0, len(data), ref.block)], [ref])

    async def run() -> BlockRef:
        a = Client(cluster.url)
        await a.connect()
        ino = (await a.attributes(file(b"f", open=True))).attr.ino
        first = await stored(a, ino)
        seq = await a.send(commit(ino, first))
        before = await a.answer(seq)
        assert isinstance(before, wire.Attributes), before
        cluster.namenode.kill()
        await a.close()
        cluster.namenode.start()
        await asyncio.to_thread(cluster.wait_alive)
        await a.connect()
        await a(wire.Open(ino))
        await a(wire.Forget([]))
        second = await stored(a, ino)
        assert await a(commit(ino, second), seq) == before
        await a.close()
        return first

    first = asyncio.run(run())
    names = [{format_block(first.block)}] * 2
    wait_until(lambda: block_names(cluster) == names, "what was repeated is given up")
    assert requests.get(f"{cluster.url}fs/f", timeout=DEADLINE_S).content == data


def block_names(cluster: Cluster) -> list[set[str]]:
    return [{path.name for path in Path(node.env["DFS_FS_ROOT"]).glob("blocks/*/*")} for node in cluster.datanodes]
