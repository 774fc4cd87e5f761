"""A namenode and datanodes that know one file, in memory, and fail when they are told to."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from dfslib.errors import BlockGone, ConditionFailed, DfsError
from dfslib.model import Attr, BlockId, Extent, FileType, InodeId, NodeId, format_block
from dfslib.mount.filesystem import Buffer
from dfslib.wire import session as wire
from dfslib.wire.messages import GrantedBody

INO = InodeId(5)


class NoLocks:
    """Nobody has locked anything."""

    def generation(self, ino: InodeId) -> int:
        return 0

    def refused(self, ino: InodeId, generation: int) -> bool:
        raise AssertionError("there is nothing to be refused")


class OneFile:
    """Stands in for a mount's session and for its datanodes.

    `faults`: what goes wrong, by what is asked ("allocate", "put", "commit", "sync"), first come first served; None
    where that one does not. `steps`: how often others have their turn while each request is under way.
    """

    def __init__(self, steps: Sequence[int] = (1,)) -> None:
        self.content = bytearray()
        self.version = 1
        self.faults: dict[str, deque[DfsError | None]] = {}
        self.asked: Counter[str] = Counter()
        self.namenode_features: frozenset[str] = frozenset()
        self.lost: dict[str, wire.Attributes] = {}
        """What requests of lost sessions came to that were done."""
        self.operations: list[Any] = []
        self.when_asked: list[Callable[[], None]] = []
        """Happens when a commit is asked for, one a time."""
        self._steps = itertools.cycle(steps)
        self._ids = itertools.count(1)
        self._blocks: dict[BlockId, bytes] = {}
        self.granted: set[BlockId] = set()
        """Neither committed nor given up."""
        self.used: set[BlockId] = set()

    @property
    def attr(self) -> Attr:
        return Attr(INO, FileType.FILE, 0o644, size=len(self.content), version=self.version)

    async def _under_way(self, what: str) -> None:
        for _ in range(next(self._steps)):
            await asyncio.sleep(0)
        if what == "commit" and self.when_asked:
            self.when_asked.pop(0)()
        self.asked[what] += 1
        faults = self.faults.get(what)
        fault = faults.popleft() if faults else None
        if fault is not None:
            raise fault

    # As mount.session.Session.

    async def call(self, operation: Any, *, patient: bool = False) -> wire.Result:
        match operation:
            case wire.Open():
                return wire.Attributes(self.attr)
            case wire.Allocate():
                await self._under_way("allocate")
                block = BlockId(next(self._ids))
                self.granted.add(block)
                return wire.Grants([wire.Grant(block, [wire.Target(NodeId("a"), "http://a")], 1)])
            case wire.Abandon(blocks):
                await asyncio.sleep(0)
                self.granted.difference_update(blocks)
            case wire.Commit():
                self.operations.append(operation)
                await self._under_way("commit")
                if (done := self._done_before(operation)) is not None:
                    self.granted.difference_update(ref.block for ref in operation.blocks)
                    return done
                if any(ref.block not in self.granted for ref in operation.blocks):
                    raise BlockGone
                self.granted.difference_update(ref.block for ref in operation.blocks)
                self.used.update(ref.block for ref in operation.blocks)
                return self._lay(operation.append, [(e, self._blocks[e.block]) for e in operation.extents])
            case wire.Write():
                self.operations.append(operation)
                await self._under_way("commit")
                if (done := self._done_before(operation)) is not None:
                    return done
                pieces = [(Extent(p.offset, len(p.data), BlockId(0)), p.data) for p in operation.pieces]
                return self._lay(operation.append, pieces)
            case wire.Sync():
                await self._under_way("sync")
        return wire.Done()

    def _done_before(self, operation: wire.Write | wire.Commit) -> wire.Attributes | None:
        found = next((self.lost[one] for one in operation.repeats if one in self.lost), None)
        if found is None and operation.version not in (0, self.version):
            raise ConditionFailed
        return found

    def _lay(self, append: bool, pieces: list[tuple[Extent, bytes]]) -> wire.Attributes:
        shift = len(self.content) if append else 0
        for extent, data in pieces:
            start, end = extent.offset + shift, extent.end + shift
            self.content.extend(bytes(max(0, end - len(self.content))))
            self.content[start:end] = data[extent.block_offset : extent.block_offset + extent.length]
        self.version += 1
        return wire.Attributes(self.attr, offset=shift)

    # As mount.datanodes.Datanodes.

    async def put(self, grant: wire.Grant, pieces: Sequence[Buffer], *, sync: bool) -> GrantedBody:
        await self._under_way("put")
        data = b"".join(pieces)
        self._blocks[grant.block] = data
        return GrantedBody(format_block(grant.block), len(data), "00000000", ["a"], [], [])
