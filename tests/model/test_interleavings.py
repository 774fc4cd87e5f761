"""Everything that changes files and moves their blocks, at once: whatever the order of its steps, files have what was
written to them, the store is sound, and in the end the datanodes have the blocks that it names, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from random import Random
from typing import Any

import pytest
from crc32c import crc32c

from dfslib.errors import NotEnoughDatanodes
from dfslib.model import ROOT, BlockRef, Extent, FileType, InodeId, Origin
from dfslib.namenode.blocks import deferral as deferral_module
from dfslib.namenode.files.asked import IdentifiedRequest
from dfslib.namenode.files.operations import PutOptions, parse_target
from dfslib.namenode.metadata.engine import ReadTxn
from dfslib.namenode.namespace import content, records
from dfslib.namenode.namespace.check import check
from dfslib.namenode.namespace.deferred import find_deferred, scan_deferred
from dfslib.namenode.sessions.session import Session
from dfslib.wire import session as wire
from tests.interleaving import SEED, chance, run
from tests.model.namenode_parts import Parts, use_parts

RUNS = 60
WORKERS = 3
OPERATIONS = 12
SPACE = 120
CANCELLED = 0.1
RECORD = 4


class File:
    def __init__(self, name: bytes, ino: InodeId) -> None:
        self.name = name
        self.ino = ino
        self.model = b""


def read(parts: Parts, ino: InodeId) -> bytes:
    """What a reader gets: deferred bytes, or those of a datanode that the metadata names."""

    def look(txn: ReadTxn) -> bytes:
        found = bytearray(records.get_attr(txn, ino).size)
        for extent in content.read_extents(txn, ino):
            data = find_deferred(txn, extent.block)
            if data is None:
                record = records.find_block(txn, extent.block)
                assert record is not None
                copies = [parts.nodes[node].blocks[extent.block] for node in record.nodes]
                assert len(copies) >= 2
                assert len(set(copies)) == 1
                data = copies[0]
            found[extent.offset : extent.end] = data[extent.block_offset :][: extent.length]
        return bytes(found)

    return parts.engine.read(look)


class Worker:
    """A mount, and a client over HTTP, with files of their own; and one file to which all append."""

    def __init__(self, parts: Parts, number: int, session: Session, files: list[File], log: InodeId) -> None:
        self._parts = parts
        self._random = parts.random
        self._number = number
        self._session = session
        self._seq = 0
        self._files = files
        self._log = log
        self.appended: list[bytes] = []
        """Records that are in the log for sure, in their order."""
        self.unsure: set[bytes] = set()

    async def work(self) -> None:
        for turn in range(OPERATIONS):
            await self._parts.turns()
            if self._random.random() < 0.25:
                await self._append_record(turn)
            else:
                await self._change(self._random.choice(self._files))

    async def _append_record(self, turn: int) -> None:
        record = b"%d:%02d" % (self._number, turn)
        write = wire.Write(self._log, [wire.Piece(0, record)], append=True)
        if await self._attempt(self._parts.writing.write(self._session, self._next(), write)):
            self.appended.append(record)
        else:
            self.unsure.add(record)

    async def _change(self, file: File) -> None:
        """One change; what it came to is seen at once, and a change that was broken off is done or not."""
        before, (after, operation) = file.model, self._some_change(file)
        done = await self._attempt(operation)
        if not done:
            await self._parts.engine.transact(lambda _: None)  # whatever it has asked for is decided behind this
        file.model = read(self._parts, file.ino)
        assert file.model == after if done else file.model in (before, after)

    async def _attempt(self, operation: Coroutine[Any, Any, object]) -> bool:
        """Whether it was done; False where that is not known."""
        task = asyncio.ensure_future(operation)
        if self._random.random() < CANCELLED:
            for _ in range(self._random.randrange(12)):
                await asyncio.sleep(0)
            task.cancel()
        try:
            await task
        except (NotEnoughDatanodes, asyncio.CancelledError):
            return False
        return True

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def _some_change(self, file: File) -> tuple[bytes, Coroutine[Any, Any, object]]:
        """What the file has after it, and how that comes."""
        random, parts, old = self._random, self._parts, file.model
        data = bytes(random.choices(b"abcdefgh", k=random.choice([1, 5, 30, 90])))
        offset = random.randrange(SPACE)
        match random.randrange(10):
            case 0 | 1:
                new = old.ljust(offset, b"\0")
                write = wire.Write(file.ino, [wire.Piece(offset, data)], sync=random.random() < 0.5)
                return new[:offset] + data + new[offset + len(data) :], self._session_write(write)
            case 2:
                return old + data, self._session_write(wire.Write(file.ino, [wire.Piece(0, data)], append=True))
            case 3:
                change = wire.SetAttr(file.ino, size=offset)
                return old[:offset].ljust(offset, b"\0"), parts.changing.set_attr(self._session, self._next(), change)
            case 4:
                end = min(offset + len(data), len(old))
                new = old[:offset] + bytes(max(0, end - offset)) + old[max(offset, end) :] if offset < len(old) else old
                punch = wire.Punch(file.ino, offset, offset + len(data))
                return new, parts.changing.punch(self._session, self._next(), punch)
            case 5:
                return data, self._put(file, data)
            case 6:
                return old + data, self._append(file, data)
            case 7:
                return old, self._rename(file)
            case 8:
                (other,) = (one for one in self._files if one is not file)
                source, target = parse_target(other.name.decode()), parse_target(file.name.decode())
                return other.model, parts.operations.copy(source, target, parents=False)
            case _:
                new = old.ljust(offset, b"\0")
                return new[:offset] + data + new[offset + len(data) :], self._commit(file.ino, offset, data)

    async def _commit(self, ino: InodeId, offset: int, data: bytes) -> None:
        """As a mount writes what is large: it brings the block to the datanodes itself."""
        parts, session = self._parts, self._session
        (grant,) = parts.writing.allocate(session, wire.Allocate(ino)).grants
        try:
            stored = await asyncio.gather(
                *(parts.put(target.url, grant.block, [data], {}) for target in grant.targets), return_exceptions=True
            )
            nodes = tuple(
                target.node
                for target, outcome in zip(grant.targets, stored, strict=True)
                if not isinstance(outcome, BaseException)
            )
            if len(nodes) < grant.required:
                raise NotEnoughDatanodes
            ref = BlockRef(grant.block, len(data), crc32c(data), nodes)
            commit = wire.Commit(ino, [Extent(offset, len(data), grant.block)], [ref])
            await parts.writing.commit(session, self._next(), commit)
        except NotEnoughDatanodes:
            parts.writing.abandon(session, wire.Abandon([grant.block]))
            raise

    def _session_write(self, write: wire.Write) -> Coroutine[Any, Any, object]:
        return self._parts.writing.write(self._session, self._next(), write)

    async def _put(self, file: File, data: bytes) -> None:
        """Once or several times at once, under one id."""
        parts, target = self._parts, parse_target(file.name.decode())
        request_id = b"put %d %d" % (self._number, self._next())
        origin = Origin(b"/" + file.name, file.ino, 0, 0)

        async def attempt() -> None:
            request = IdentifiedRequest(request_id, b"put")
            operations = parts.operations.for_request(request)
            if operations.remembered():
                return
            async with parts.receiver.receive(
                request.passing(body(parts, data)), len(data), origin, 3
            ) as received:
                await operations.put(target, received, PutOptions())

        await all_of([attempt() for _ in range(self._random.choice([1, 1, 3]))])

    async def _append(self, file: File, data: bytes) -> None:
        parts, target = self._parts, parse_target(file.name.decode())
        request_id = b"append %d %d" % (self._number, self._next())
        origin = Origin(b"/" + file.name, file.ino, 0, 0)

        async def attempt() -> None:
            request = IdentifiedRequest(request_id, b"append")
            async with parts.receiver.receive(
                request.passing(body(parts, data)), len(data), origin, 3
            ) as received:
                await parts.operations.for_request(request).append(target, received)

        await all_of([attempt() for _ in range(self._random.choice([1, 1, 2]))])

    async def _rename(self, file: File) -> None:
        name = b"%d-%d" % (self._number, self._next())
        try:
            await self._parts.changing.rename(
                self._session, self._next(), wire.Rename(ROOT, file.name, ROOT, name)
            )
        finally:
            await asyncio.shield(self._find_name(file, name))

    async def _find_name(self, file: File, name: bytes) -> None:
        await self._parts.engine.transact(lambda _: None)
        if self._parts.engine.read(lambda txn: records.get_dentry(txn, ROOT, name)) is not None:
            file.name = name


async def body(parts: Parts, data: bytes) -> AsyncIterator[bytes]:
    middle = len(data) // 2
    for piece in (data[:middle], data[middle:]):
        await parts.turns()
        if piece:
            yield piece


async def all_of(attempts: list[Coroutine[Any, Any, None]]) -> None:
    """Done if one of them is; broken off together."""
    tasks = [asyncio.ensure_future(attempt) for attempt in attempts]
    try:
        results = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if all(isinstance(result, BaseException) for result in results):
        (first, *_) = results
        assert isinstance(first, BaseException)
        raise first


class Cluster:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.workers: list[Worker] = []
        self.files: list[File] = []
        self.log: InodeId
        self.ended = False

    async def begin(self) -> None:
        parts = self.parts
        await parts.begin()
        self.log = await self._file(b"log")
        for number in range(WORKERS):
            names = [b"%d-%s" % (number, letter) for letter in (b"a", b"b")]
            files = [File(name, await self._file(name)) for name in names]
            session = await parts.sessions.begin(f"mount {number}")
            self.workers.append(Worker(parts, number, session, files, self.log))
            self.files += files

    async def _file(self, name: bytes) -> InodeId:
        done = await self.parts.operations.touch(parse_target(name.decode()))
        assert done.attr is not None
        assert done.attr.type is FileType.FILE
        return done.attr.ino

    def background(self) -> list[Callable[[], Awaitable[object]]]:
        parts = self.parts
        node = parts.random.choice(list(parts.nodes.values()))
        return [
            parts.deferral.run_once, parts.deferral.run_once, parts.collector.run_once, parts.compaction.run_once,
            self._read_over_http, lambda: parts.beat(node), lambda: parts.report(node),
        ]  # fmt: skip

    async def go_on(self, of: int) -> None:
        """Rounds of what the namenode and the datanodes do by themselves, as long as there is work."""
        while not self.ended:
            await self.parts.turns()
            await asyncio.sleep(0)
            await self.background()[of]()

    async def _read_over_http(self) -> None:
        """By somebody who knows of datanodes only."""
        ino = self.parts.random.choice([self.log, *(file.ino for file in self.files)])
        try:
            async with self.parts.deferral.none_of(ino):
                blocks = {extent.block for extent in self.parts.engine.read(lambda t: content.read_extents(t, ino))}
                for block in blocks:
                    assert any(block in node.blocks for node in self.parts.nodes.values()), "not on any datanode"
        except NotEnoughDatanodes:
            pass

    async def settle(self, *, reports: bool) -> None:
        """Until nothing is left to be done."""
        parts = self.parts
        parts.fails = 0.0
        for _ in range(6):
            await parts.deferral.run_once()
            await parts.collector.run_once()
            await parts.compaction.run_once()
            while tasks := list(parts.tasks._tasks):
                await asyncio.wait(tasks)
            for node in parts.nodes.values():
                await parts.beat(node)
                if reports:
                    await parts.report(node)

    def require_sound(self) -> None:
        parts = self.parts
        assert parts.engine.read(lambda txn: list(check(txn))) == []
        for file in self.files:
            assert read(parts, file.ino) == file.model
        assert parts.engine.read(lambda txn: list(scan_deferred(txn))) == []
        known = parts.engine.read(lambda txn: dict(records.scan_blocks(txn)))
        assert not [block for block in known if block in parts.in_flight]
        for node in parts.nodes.values():
            assert node.blocks.keys() == {block for block, record in known.items() if node.id in record.nodes}
        self._require_log()

    def _require_log(self) -> None:
        """Each worker's records once and in their order."""
        log = read(self.parts, self.log)
        found = [log[at : at + RECORD] for at in range(0, len(log), RECORD)]
        assert len(set(found)) == len(found)
        for number, worker in enumerate(self.workers):
            own = [record for record in found if record.startswith(b"%d:" % number)]
            assert own == sorted(own)
            assert [record for record in own if record not in worker.unsure] == worker.appended


async def trial(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(seed)
    fails = random.choice([0.0, 0.0, 0.1])
    parts = Parts(random, fails)
    use_parts(monkeypatch, parts)
    cluster = Cluster(parts)
    await cluster.begin()
    async with asyncio.TaskGroup() as group:
        for number in range(len(cluster.background())):
            group.create_task(cluster.go_on(number))
        async with asyncio.TaskGroup() as workers:
            for worker in cluster.workers:
                workers.create_task(worker.work())
        cluster.ended = True
    for session in parts.sessions.all():  # with what mounts were granted and never committed
        await parts.sessions.end(session)
    # without a fault, nothing is left that only a report would find
    await cluster.settle(reports=bool(fails))
    cluster.require_sound()
    await parts.tasks.close()


def test_all_at_once_and_nothing_is_lost_mixed_or_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral_module, "DEFERRED_MAX", 40)
    random = chance()
    for number in range(RUNS):
        seed = random.randrange(1 << 32)
        print(f"run {number}: seed {seed} of {SEED}")
        run(trial(seed, monkeypatch))
