"""All sessions: who is there, who may come back, and what is open in any of them.

A session outlives its connection by the grace time, and this process by its key in the metadata: a mount that comes
back after a restart tells again what it has open and locked. Until all have come back, or the grace time is over,
nothing that may be theirs is given away: no file without a name is freed, no lock granted but to who had it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from dfslib.errors import Stale
from dfslib.model import BlockId, InodeId
from dfslib.namenode.blocks.moving import MOVING
from dfslib.namenode.blocks.write import BlockWriter
from dfslib.namenode.membership.registry import Registry
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn, Writes, prefix_end
from dfslib.namenode.namespace import keys
from dfslib.namenode.sessions.connection import Connection
from dfslib.namenode.sessions.lock_generations import new_session_id
from dfslib.namenode.sessions.lock_waits import LockWaits
from dfslib.namenode.sessions.session import Session
from dfslib.runtime.logs import event
from dfslib.wire.session import Node, Nodes

log = logging.getLogger("dfs.sessions")

_NAME_MAX: Final = 256


class Sessions:
    """`monotonic`: seconds. `stamp`: see runtime.stamps."""

    def __init__(
        self, engine: MetadataEngine, writer: BlockWriter, registry: Registry, grace_s: float,
        monotonic: Callable[[], float], stamp: Callable[[], int],
    ) -> None:  # fmt: skip
        self._engine = engine
        self._writer = writer
        self._registry = registry
        self.grace_s = grace_s
        self._monotonic = monotonic
        self._stamp = stamp
        self._sessions: dict[str, Session] = {}
        self._ending: list[Session] = []
        """Over, and perhaps still in the metadata: what they hold is nobody else's yet."""
        self._opens: Counter[InodeId] = Counter()
        self._nodes: list[Node] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting_for_old = False
        self.locks = LockWaits(stamp)

    def load(self) -> None:
        """Find the sessions of before, once the metadata is open: their grace begins now. Does nothing the second
        time."""
        if self._loop is not None:
            return
        self._loop = asyncio.get_running_loop()
        now = self._monotonic()
        for session_id, name in self._engine.read(_read_sessions):
            self._sessions[session_id] = Session(session_id, name, now, known_before=True)
        self._waiting_for_old = bool(self._sessions)
        if not self._waiting_for_old:
            self.locks.everybody_is_back()
        self._engine.watch(self._committed)

    def all(self) -> list[Session]:
        return list(self._sessions.values())

    # ------------------------------------------------------------------------------------------ coming, going

    async def begin(self, name: str) -> Session:
        self.load()
        session = Session(new_session_id(self._stamp()), name[:_NAME_MAX], self._monotonic())
        try:
            await self._engine.transact(lambda txn: txn.put(keys.session(session.id), session.name.encode()))
        except BaseException:
            self._ending.append(session)  # it may be in the metadata all the same
            raise
        self._sessions[session.id] = session
        log.info(event("session began", session=session.id, mount=session.name))
        return session

    def resume(self, session_id: str) -> Session:
        """Raises Stale where there is no such session any more."""
        self.load()
        session = self._sessions.get(session_id)
        if session is None:
            raise Stale("the session has ended")
        return session

    def connected(self, session: Session, connection: Connection) -> None:
        session.connection, session.gone_s = connection, None

    def came_back(self, session: Session) -> None:
        """It has said what it has open and locked."""
        session.known_before = session.recovering = False
        self._settle()

    def disconnected(self, session: Session, connection: Connection) -> None:
        """Its caches are gone: nobody could have told it of changes."""
        if session.connection is connection:
            session.connection, session.gone_s = None, self._monotonic()
            session.inodes.clear()
            session.directories.clear()

    async def end(self, session: Session) -> None:
        """At once it can be taken up no more, so that nothing is added to what it holds; what that is is given to
        others behind whatever it has asked for."""
        if self._sessions.get(session.id) is not session:
            return
        del self._sessions[session.id]
        connection, session.connection = session.connection, None
        if connection is not None:  # nothing of what it asks for is done from here on, and it has to hear why
            connection.cut_off(b"the session has ended")
        for task in session.running.values():
            if task is not asyncio.current_task():
                task.cancel()
        self._ending.append(session)
        await self._finish(session)
        log.info(event("session ended", session=session.id, mount=session.name))

    async def _finish(self, session: Session) -> None:
        """What it held goes to others once the session cannot be taken up any more, not even after a restart. Where
        that fails, it is tried again."""
        await self._engine.transact(partial(_forget, session.id))
        if session not in self._ending:
            return
        self._ending.remove(session)
        for ino in list(session.opens):
            self.closed(session, ino, session.opens[ino])
        for block in list(session.blocks):
            self.drop_block(session, block, used=False)
        self.locks.drop_session(session.id)

    async def run_once(self) -> None:
        """End those that have not come back in time; tell all of datanodes that came or went."""
        self.load()
        now = self._monotonic()
        for session in self.all():
            if session.gone_s is not None and now - session.gone_s > self.grace_s:
                await self.end(session)
        for session in list(self._ending):
            await self._finish(session)
        self._settle()
        if (nodes := self.nodes()) != self._nodes:
            self._nodes = nodes
            for session in self._sessions.values():
                session.send(Nodes(nodes))

    def _settle(self) -> None:
        """Once nobody can claim anything from before this process any more."""
        if self._waiting_for_old and not any(one.known_before for one in (*self._sessions.values(), *self._ending)):
            self._waiting_for_old = False
            self.locks.everybody_is_back()

    async def close_connections(self) -> None:
        """The namenode stops: mounts look for the next one."""
        connections = [session.connection for session in self.all() if session.connection is not None]
        await asyncio.gather(*(connection.close() for connection in connections), return_exceptions=True)

    def nodes(self) -> list[Node]:
        """The datanodes that can be read from, as clients reach them."""
        return [Node(node.id, node.public_url) for node in self._registry.readable(self._monotonic())]

    # --------------------------------------------------------------------------------------------- open files

    def __contains__(self, ino: object) -> bool:
        """Whether a file may be open somewhere."""
        return self._loop is None or self._waiting_for_old or ino in self._opens

    def opened(self, session: Session, ino: InodeId) -> None:
        session.opens[ino] += 1
        self._opens[ino] += 1

    def closed(self, session: Session, ino: InodeId, count: int) -> None:
        count = min(count, session.opens[ino])
        for counter in (session.opens, self._opens):
            counter[ino] -= count
            if counter[ino] <= 0:
                del counter[ino]

    # ------------------------------------------------------------------------------------------------- blocks

    def drop_block(self, session: Session, block: BlockId, *, used: bool) -> None:
        """It was committed, or nobody is going to."""
        if (nodes := session.blocks.pop(block, None)) is not None:
            self._writer.release(block, nodes, used=used)

    # ---------------------------------------------------------------------------------------------- coherence

    def _committed(self, transactions: Sequence[tuple[object, Writes]]) -> None:
        """Called in the engine's thread, before those who wait for the transactions are answered."""
        if self._sessions and self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell, transactions)

    def _tell(self, transactions: Sequence[tuple[object, Writes]]) -> None:
        """A session that cannot be told has caches that are wrong, and takes nothing from the others."""
        for by, writes in transactions:
            if by is MOVING:
                continue
            for session in self._sessions.values():
                try:
                    if session is by:
                        session.changed_itself(writes)
                    elif session.connection is not None:
                        session.others_changed(writes)
                except Exception:
                    log.exception(event("a mount is not told of a change", session=session.id, action="cut off"))
                    if session.connection is not None:
                        session.connection.cut_off(b"not told of a change")


def _forget(session_id: str, txn: Txn) -> None:
    txn.delete(keys.session(session_id))


def _read_sessions(txn: ReadTxn) -> list[tuple[str, str]]:
    return list(_scan_sessions(txn))


def _scan_sessions(txn: ReadTxn) -> Iterator[tuple[str, str]]:
    for key, name in txn.scan(keys.SESSIONS, prefix_end(keys.SESSIONS)):
        yield keys.session_of(key), name.decode("utf-8", "replace")
