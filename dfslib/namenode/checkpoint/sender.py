"""Brings files of metadata to the datanodes, to each one at its own pace: one that hangs holds up no other.

For each datanode there is a task that sends journals, and one that sends a checkpoint, so that a large checkpoint
does not hold up the journals either. What a datanode has is asked when it joins and after each failure.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from dfslib.errors import DfsError, InputOutput, NotFound
from dfslib.model import NodeId
from dfslib.namenode.checkpoint.chains import Chain
from dfslib.namenode.checkpoint.folder import Folder
from dfslib.namenode.checkpoint.format import HEADER_BYTES, Damaged, FileName, parse_name, read_header
from dfslib.namenode.checkpoint.generations import to_keep
from dfslib.namenode.membership.registry import Datanode
from dfslib.runtime.logs import event
from dfslib.transfer.metadata_files import delete_file, get_head, list_files, put_file
from dfslib.transfer.peer_session import PeerSession

log = logging.getLogger("dfs.checkpoint")

_DEADLINE_S: Final = 60.0
_LIST_S: Final = 10.0
_SLOWEST_BYTES: Final = 1 << 20
"""A second; a datanode that takes less is given up until the next round."""


class Sender:
    def __init__(
        self,
        folder: Folder,
        on_complete: Callable[[Chain], None],
        wall_ns: Callable[[], int],
    ) -> None:
        """`on_complete` is told that a datanode has been brought something, and now has all of the chain."""
        self._folder = folder
        self._on_complete = on_complete
        self._wall_ns = wall_ns
        self._session: PeerSession | None = None
        self._chain: Chain | None = None
        self._held: dict[NodeId, set[FileName]] = {}
        """What datanodes are known to have; those that are missing here are asked."""
        self._joins: Counter[NodeId] = Counter()
        self._times_ns: dict[FileName, int] = {}
        """When checkpoints were made, as their headers tell."""
        self._running: dict[tuple[NodeId, bool], asyncio.Task[None]] = {}
        self._failing: set[NodeId] = set()
        self.failures = 0

    def use(self, session: PeerSession) -> None:
        """The session to the datanodes; made when the event loop runs."""
        self._session = session

    def joined(self, node: NodeId) -> None:
        """What it has is not known any more."""
        self._joins[node] += 1
        self._held.pop(node, None)

    def complete(self, nodes: Iterable[Datanode]) -> list[Datanode]:
        """Those that have all of the chain."""
        chain = self._chain
        return [] if chain is None else [n for n in nodes if self._held.get(n.id, set()).issuperset(chain.files)]

    async def deliver(self, nodes: Sequence[Datanode], chain: Chain | None, patience_s: float) -> None:
        """Have every datanode get all files of the folder, and give up those that `chain`, the newest, has replaced.

        Returns when that is done, or after `patience_s`, or twice that where there is a checkpoint to be sent; what
        is not done by then goes on, and the next call does not wait for it.
        """
        self._chain = chain
        before = set(self._running)
        for node in nodes:
            self._start(node, False, self._bring_journals(node))
        for is_checkpoint in (False, True):
            tasks = {task for key, task in self._running.items() if key not in before and key[1] == is_checkpoint}
            if tasks:
                await asyncio.wait(tasks, timeout=patience_s)

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, node: Datanode, is_checkpoint: bool, work: Coroutine[Any, Any, None]) -> None:
        """Do this, unless the same of an earlier round is still under way."""
        key = (node.id, is_checkpoint)
        if key in self._running:
            work.close()
            return
        task = asyncio.create_task(self._guarded(node, work), name=f"copies to {node.url}")
        self._running[key] = task
        task.add_done_callback(lambda _: self._running.pop(key))

    async def _guarded(self, node: Datanode, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (DfsError, OSError) as error:  # TimeoutError is one
            self.failures += 1
            self._held.pop(node.id, None)
            if node.id not in self._failing:
                self._failing.add(node.id)
                reason = str(error) or "it takes too long"
                log.warning(event("datanode lacks a copy of the metadata", node=node.id, url=node.url, reason=reason))

    async def _list(self, node: Datanode) -> None:
        assert self._session is not None
        joins = None
        while joins != self._joins[node.id]:  # what was asked before it joined anew may be out of date
            joins = self._joins[node.id]
            async with asyncio.timeout(_LIST_S):
                files = await list_files(self._session, node.url)
        self._held[node.id] = {name for file in files if (name := parse_name(file.name)) is not None}

    async def _bring_journals(self, node: Datanode) -> None:
        if node.id not in self._held:
            await self._list(node)
        held = self._held[node.id]
        for name in sorted(self._folder.files):
            if not name.is_checkpoint:
                await self._put(node, name, held)
        if self._chain is not None and self._chain.checkpoint not in held:
            self._start(node, True, self._bring_checkpoint(node, self._chain.checkpoint, held))
        else:
            await self._completed(node, held)

    async def _bring_checkpoint(self, node: Datanode, name: FileName, held: set[FileName]) -> None:
        await self._put(node, name, held)
        await self._completed(node, held)

    async def _put(self, node: Datanode, name: FileName, held: set[FileName]) -> None:
        made = self._folder.files.get(name)
        if name in held or made is None:
            return
        assert self._session is not None
        try:
            async with asyncio.timeout(_DEADLINE_S + made.size / _SLOWEST_BYTES):
                await put_file(
                    self._session, node.url, str(name), self._folder.path(name), made.size, made.crc32c, made.position
                )
        except (DfsError, OSError):
            if name in self._folder.files:
                raise
            return  # meanwhile a newer checkpoint took its place, and the file was deleted here
        held.add(name)

    async def _completed(self, node: Datanode, held: set[FileName]) -> None:
        """Delete from a datanode that has all of the chain what is not to be kept beside it."""
        chain = self._chain
        if chain is None or self._held.get(node.id) is not held or not held.issuperset(chain.files):
            return
        if node.id in self._failing:
            self._failing.discard(node.id)
            log.info(event("datanode has a copy of the metadata again", node=node.id, url=node.url))
        self._on_complete(chain)
        await self._find_times(node, held)
        if self._held.get(node.id) is not held:
            return
        assert self._session is not None
        kept = to_keep(held, chain, self._times_ns, self._wall_ns())
        for name in sorted(held - kept - self._folder.files.keys()):
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    await delete_file(self._session, node.url, str(name))
            except NotFound:
                pass  # it is gone, which was the aim
            held.discard(name)
            self._forget_time(name)

    async def _find_times(self, node: Datanode, held: set[FileName]) -> None:
        """Of checkpoints that an earlier process has brought. One that the datanode cannot read is none: it has put it
        into its quarantine, or will."""
        assert self._session is not None
        for name in self._without_time(held):
            try:
                async with asyncio.timeout(_DEADLINE_S):
                    head = await get_head(self._session, node.url, str(name), HEADER_BYTES)
                self._note_time(name, read_header(io.BytesIO(head)).time_ns)
            except (NotFound, InputOutput, Damaged) as error:
                log.warning(event("copy cannot be looked at", name=name, url=node.url, reason=error))
                held.discard(name)

    def _without_time(self, held: set[FileName]) -> list[FileName]:
        for made in self._folder.files.values():
            self._note_time(made.name, made.time_ns)
        return sorted(name for name in held if name.is_checkpoint and name not in self._times_ns)

    def _note_time(self, name: FileName, time_ns: int) -> None:
        if name.is_checkpoint:
            self._times_ns[name] = time_ns

    def _forget_time(self, name: FileName) -> None:
        if not any(name in others for others in self._held.values()):
            self._times_ns.pop(name, None)
