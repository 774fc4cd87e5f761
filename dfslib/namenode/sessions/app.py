"""`GET /session`: the WebSocket of a mount, from its first frame to its last."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec
from aiohttp import WSMsgType, web

from dfslib.errors import DfsError, InputOutput, InvalidArgument
from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.sessions.connection import Connection
from dfslib.namenode.sessions.operations import Operations
from dfslib.namenode.sessions.session import Session
from dfslib.namenode.sessions.table import Sessions
from dfslib.runtime.logs import event
from dfslib.runtime.tasks import Tasks
from dfslib.wire import routes
from dfslib.wire.features import Role, named
from dfslib.wire.session import (
    FRAME_MAX,
    SESSION_PROTOCOL,
    Allocate,
    Answer,
    CancelLock,
    Close,
    Failure,
    Goodbye,
    Hello,
    Open,
    Request,
    SetLock,
    Welcome,
    decode_hello,
    decode_request,
)

log = logging.getLogger("dfs.sessions")

_COUNTED: Final = frozenset({Open, Close, Allocate})
"""Need no transaction, but must not be done twice."""
_HEARTBEAT_S: Final = 10.0
_HELLO_S: Final = 10.0
_LAST_FRAMES_S: Final = 1.0


class SessionRoutes:
    def __init__(self, sessions: Sessions, operations: Operations, cluster: Cluster, tasks: Tasks) -> None:
        self._sessions = sessions
        self._operations = operations
        self._cluster = cluster
        self._tasks = tasks

    def routes(self) -> list[web.RouteDef]:
        return [web.get(routes.SESSION, self.session)]

    async def session(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S, max_msg_size=FRAME_MAX, compress=False)
        if not socket.can_prepare(request).ok:
            raise InvalidArgument("this address speaks WebSocket")
        await socket.prepare(request)
        connection = Connection(socket)
        sending = asyncio.create_task(connection.run(), name="session sending")
        try:
            await self._greet_and_serve(socket, connection)
        finally:
            connection.finish()
            await asyncio.wait([sending], timeout=_LAST_FRAMES_S)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await socket.close()
        return socket

    async def _greet_and_serve(self, socket: web.WebSocketResponse, connection: Connection) -> None:
        try:
            session = await self._greet(socket, connection)
        except DfsError as error:
            connection.send(Failure(-1, error.code, error.message))
            return
        except TimeoutError:
            return
        try:
            await self._serve(session, socket, connection)
        finally:
            self._sessions.disconnected(session, connection)

    async def _greet(self, socket: web.WebSocketResponse, connection: Connection) -> Session:
        """Raises Stale, InvalidArgument, TimeoutError."""
        async with asyncio.timeout(_HELLO_S):
            message = await socket.receive()
        if message.type is not WSMsgType.BINARY:
            raise InvalidArgument("a session begins with a binary frame")
        hello = _decode_hello(message.data)
        if hello.protocol != SESSION_PROTOCOL:
            raise InvalidArgument(
                f"this namenode speaks version {SESSION_PROTOCOL} of a mount's protocol, not {hello.protocol}"
            )
        level = self._cluster.level
        level.require(Role.MOUNT, hello.features)
        if hello.session:
            session = self._sessions.resume(hello.session)
            if (old := session.connection) is not None:
                self._sessions.disconnected(session, old)
                self._tasks.spawn(old.close(), "close old connection")
        else:
            session = await self._sessions.begin(hello.name)
            try:
                level.require(Role.MOUNT, hello.features)  # it may have risen while the session was not known yet
            except InvalidArgument:
                await self._sessions.end(session)
                raise
        session.version, session.features = hello.version, frozenset(hello.features)
        restarted = session.known_before
        connection.send(
            Welcome(
                session.id,
                self._cluster.id,
                self._sessions.grace_s,
                self._sessions.nodes(),
                restarted,
                level.current,
                named(Role.NAMENODE),
            )
        )
        self._sessions.connected(session, connection)
        log.info(event("session connected", session=session.id, mount=session.name, restarted=restarted))
        return session

    async def _serve(self, session: Session, socket: web.WebSocketResponse, connection: Connection) -> None:
        while True:
            message = await socket.receive()
            if message.type is not WSMsgType.BINARY or session.connection is not connection:
                return  # a mount that has come back sends again what was not answered, in its order
            try:
                request = decode_request(message.data)
            except msgspec.MsgspecError as error:
                session.send(Failure(-1, InvalidArgument.code, f"no frame of a session: {error}"))
                return
            if isinstance(request.operation, Goodbye):
                self._sessions.disconnected(session, connection)
                await self._sessions.end(session)
                connection.send(Answer(request.seq, self._operations.done))
                return
            self._take(session, request)

    def _take(self, session: Session, request: Request) -> None:
        session.forget_answers(request.done_below)
        if session.recovering and not _recovers(request):
            self._sessions.came_back(session)
        seq = request.seq
        if (known := session.answers.get(seq)) is not None:
            session.send(known)
            return
        if seq in session.running:
            return
        if isinstance(request.operation, CancelLock):
            if request.operation.seq in session.running:
                self._sessions.locks.cancel(session.id, request.operation.seq)
            session.send(Answer(seq, self._operations.done))
            return
        try:
            result = self._operations.look(session, request.operation)
        except DfsError as error:
            session.send(Failure(seq, error.code, error.message))
            return
        if result is not None:
            answer = Answer(seq, result)
            if type(request.operation) in _COUNTED:
                session.answer(answer)
            else:
                session.send(answer)
            return
        session.running[seq] = asyncio.create_task(self._change(session, request), name=f"request {seq}")

    async def _change(self, session: Session, request: Request) -> None:
        seq = request.seq
        try:
            session.answer(Answer(seq, await self._operations.change(session, seq, request.operation)))
        except DfsError as error:
            session.answer(Failure(seq, error.code, error.message))
        except Exception as error:
            log.exception(event("request failed unexpectedly", session=session.id, operation=request.operation))
            text = f"unforeseen {type(error).__name__}; the server's log tells more"
            session.answer(Failure(seq, InputOutput.code, text))
        finally:
            session.running.pop(seq, None)


def _recovers(request: Request) -> bool:
    """Whether it tells of what was open or locked before the namenode was started."""
    operation = request.operation
    return isinstance(operation, Open) or (isinstance(operation, SetLock) and operation.reclaim)


def _decode_hello(data: bytes) -> Hello:
    try:
        return decode_hello(data)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"no frame that begins a session: {error}") from None
