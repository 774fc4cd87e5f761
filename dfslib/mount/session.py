"""A mount's session with the namenode: pipelined requests over one WebSocket that mends itself.

A call waits for its answer across breaks of the connection: when it is back, what was not answered is sent again
under the same number, and the namenode does it once. A namenode that was restarted, or that has given the session
up, is told first what is open and locked here (`Listener.recover`); until it has been, over however many connections,
nothing else is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

import aiohttp
import msgspec

from dfslib.errors import DfsError, InvalidArgument, SessionLost, Stale, Unavailable, from_code
from dfslib.runtime.logs import event
from dfslib.wire import routes
from dfslib.wire.features import NEWEST_LEVEL, OLDEST_LEVEL, VERSION, Role, named
from dfslib.wire.session import (
    FRAME_MAX,
    SESSION_PROTOCOL,
    Answer,
    Failure,
    FromNamenode,
    Goodbye,
    Hello,
    Invalidate,
    LevelRaised,
    Node,
    Nodes,
    Operation,
    Request,
    Result,
    Welcome,
    decode_from_namenode,
    encode,
)

log = logging.getLogger("dfs.session")

_CONNECT_TIMEOUT_S: Final = 5.0
_HEARTBEAT_S: Final = 5.0
"""A connection on which not even a pong comes for half of this is given up: the peer may be gone without a word."""
_RETRY_FIRST_S: Final = 0.05
_RETRY_MOST_S: Final = 2.0
_GOODBYE_S: Final = 2.0

Call = Callable[[Operation], Awaitable[Result]]


class Listener(Protocol):
    """Who is told what the namenode says unasked. Called in the order in which it was said."""

    def invalidated(self, push: Invalidate) -> None: ...
    def nodes_changed(self, nodes: list[Node]) -> None: ...
    def disconnected(self) -> None:
        """From here on the namenode tells of no change: nothing that was cached may be trusted."""
        ...

    async def recover(self, call: Call, *, lost: bool) -> None:
        """The namenode does not know what is open and locked here. `lost`: it had given the session up, others
        may have had the locks meanwhile. What is sent with `call` comes before all other requests. Cancelled where the
        namenode has forgotten what it was told by then; it begins again."""
        ...


class _Pending:
    """A request without an answer. `first`: it is part of what the namenode is to be told before all else."""

    __slots__ = ("answer", "first", "frame", "sent")

    def __init__(self, frame: bytes, answer: asyncio.Future[Result], *, first: bool) -> None:
        self.frame = frame
        self.answer = answer
        self.first = first
        self.sent = False


class Session:
    """`timeout_s`: how long a call waits for a namenode that is away. `name`: of the mount, for operators."""

    def __init__(self, url: str, name: str, listener: Listener, timeout_s: float) -> None:
        self._url = url.rstrip("/")
        self._name = name
        self._listener = listener
        self._timeout_s = timeout_s
        self._id = ""
        self._seq = 0
        self._pending: dict[int, _Pending] = {}
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._ready = False
        self._task: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._closing = False
        self._cluster_id = ""
        self.level = OLDEST_LEVEL
        """Of the cluster, as far as this mount has been told (wire/features.py)."""
        self.namenode_features: frozenset[str] = frozenset()

    @property
    def connected(self) -> bool:
        """Whether changes of others are heard of."""
        return self._ready

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    async def start(self) -> None:
        """Connect, and stay connected until closed. Raises Unavailable, InvalidArgument where the namenode and
        this mount do not understand each other."""
        # aiohttp counts the pong with half of the heartbeat's interval.
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(sock_connect=_CONNECT_TIMEOUT_S))
        try:
            welcome = await self._connect()
        except BaseException:
            await self._http.close()
            raise
        self._task = asyncio.create_task(self._stay_connected(welcome), name="session")

    async def close(self) -> None:
        """End the session: its locks and what is open go. Calls that wait fail."""
        if self._task is None:
            return
        if self._ready:
            with contextlib.suppress(DfsError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await self.call(Goodbye())
        self._closing = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._end_recovery()
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(Unavailable("the mount is ending"))
        if self._http is not None:
            await self._http.close()

    async def call(self, operation: Operation, *, patient: bool = False) -> Result:
        """The answer. `patient`: it may take for ever while the namenode is there (a lock that is waited for).

        Raises the DfsError that the namenode answers with, Unavailable after the timeout. A call that is
        cancelled or times out may have been done, but is not done later.
        """
        return await self.begin(operation, patient=patient)[1]

    def begin(self, operation: Operation, *, patient: bool = False) -> tuple[int, Coroutine[Any, Any, Result]]:
        """A call's number, and the call, which is to be awaited."""
        seq, pending = self._new(operation, first=False)
        return seq, self._wait(seq, pending, patient)

    def _new(self, operation: Operation, *, first: bool) -> tuple[int, _Pending]:
        self._seq = seq = self._seq + 1
        frame = encode(Request(seq, operation, next(iter(self._pending), seq)))
        self._pending[seq] = pending = _Pending(frame, asyncio.get_running_loop().create_future(), first=first)
        return seq, pending

    async def _wait(self, seq: int, pending: _Pending, patient: bool) -> Result:
        try:
            if self._ready:
                await self._send(pending)
            if patient:
                return await pending.answer
            async with asyncio.timeout(self._timeout_s):
                return await pending.answer
        except TimeoutError:
            raise Unavailable(f"no answer from the namenode for {self._timeout_s:g} s") from None
        finally:
            del self._pending[seq]

    async def _send(self, pending: _Pending) -> None:
        socket = self._socket
        if socket is None:
            return
        pending.sent = True
        with contextlib.suppress(ConnectionError, aiohttp.ClientError, RuntimeError):  # it is sent again
            await socket.send_bytes(pending.frame)

    # ------------------------------------------------------------------------------------------- connection

    async def _stay_connected(self, welcome: Welcome | None) -> None:
        delay_s = _RETRY_FIRST_S
        lost = False
        while True:
            if welcome is not None:
                delay_s = _RETRY_FIRST_S
                lost = not await self._serve(welcome, lost=lost)
            try:
                welcome = await self._connect()
                continue
            except Stale:
                log.warning(event("session lost", session=self._id, namenode=self._url))
                await self._end_recovery()
                self._fail_what_was_sent()
                self._id, lost, welcome = "", True, None
                continue
            except DfsError as error:
                welcome = None
                log.warning(event("namenode away", namenode=self._url, reason=str(error)))
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(_RETRY_MOST_S, delay_s * 2)

    async def _connect(self) -> Welcome:
        """Raises Unavailable, Stale, InvalidArgument, and what else the namenode refuses with."""
        assert self._http is not None
        try:
            socket = await self._http.ws_connect(
                self._url + routes.SESSION, heartbeat=_HEARTBEAT_S, max_msg_size=FRAME_MAX, compress=0
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unavailable(f"{self._url}: {error or type(error).__name__}") from error
        try:
            first = await self._greet(socket)
        except BaseException:
            await socket.close()
            raise
        self._socket, self._cluster_id = socket, first.cluster_id
        self.level, self.namenode_features = first.level, frozenset(first.features)
        return first

    async def _greet(self, socket: aiohttp.ClientWebSocketResponse) -> Welcome:
        """Raises as `_connect`."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                hello = Hello(SESSION_PROTOCOL, self._name, self._id, named(Role.MOUNT), VERSION)
                await socket.send_bytes(encode(hello))
                first = _decode(await socket.receive())
        except (OSError, TimeoutError, aiohttp.ClientError, Unavailable) as error:
            raise Unavailable(f"{self._url}: {error or type(error).__name__}") from error
        if isinstance(first, Failure):
            raise from_code(first.error, first.message)
        if not isinstance(first, Welcome):
            raise InvalidArgument(f"{self._url} is no namenode that this mount understands")
        if self._cluster_id not in ("", first.cluster_id):
            raise InvalidArgument(f"{self._url} is the namenode of another cluster: {first.cluster_id}")
        if first.level > NEWEST_LEVEL:
            raise InvalidArgument(
                f"the cluster of {self._url} has level {first.level}, and this mount knows levels up to "
                f"{NEWEST_LEVEL}: update it"
            )
        return first

    async def _serve(self, welcome: Welcome, *, lost: bool) -> bool:
        """Until the connection ends. False where a new session has to be begun: see `_recovered`."""
        socket = self._socket
        assert socket is not None
        self._id = welcome.session
        self._listener.nodes_changed(welcome.nodes)
        reading = asyncio.create_task(self._read(socket), name="session reading")
        try:
            if lost or welcome.restarted:
                await self._end_recovery()
                recovering = self._listener.recover(self._call_first, lost=lost)
                self._recovery = asyncio.create_task(recovering, name="session recovery")
            if not await self._recovered(reading):
                return False
            if self._recovery is None:
                await self._send_all(first=False)
                self._ready = True  # nothing that comes now is sent before what was waiting
            await asyncio.wait([reading])
            return True
        finally:
            self._ready, self._socket = False, None
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await socket.close()
            if not self._closing:
                self._listener.disconnected()

    async def _recovered(self, reading: asyncio.Task[None]) -> bool:
        """Wait until the namenode has been told all, if it is to be, or the connection ends under it: then it goes on
        with the next one. False where it failed for no good reason, and only a new session is known to be right."""
        if self._recovery is None:
            return True
        await self._send_all(first=True)
        await asyncio.wait([reading, self._recovery], return_when=asyncio.FIRST_COMPLETED)
        if not self._recovery.done():
            return True
        recovery, self._recovery = self._recovery, None
        if (error := recovery.exception()) is None:
            return True
        log.error(event("recovery failed", namenode=self._url), exc_info=error)
        self._fail_what_was_sent()
        self._id = ""
        return False

    async def _end_recovery(self) -> None:
        if self._recovery is not None:
            recovery, self._recovery = self._recovery, None
            recovery.cancel()
            await asyncio.gather(recovery, return_exceptions=True)

    async def _call_first(self, operation: Operation) -> Result:
        """A call of the recovery, which waits for as long as it takes."""
        delay_s = _RETRY_FIRST_S
        while True:
            seq, pending = self._new(operation, first=True)
            try:
                await self._send(pending)
                return await pending.answer
            except DfsError as error:
                if not error.retryable:
                    raise
                log.warning(event("recovery delayed", namenode=self._url, reason=str(error)))
            finally:
                del self._pending[seq]
            await asyncio.sleep(delay_s)
            delay_s = min(_RETRY_MOST_S, delay_s * 2)

    async def _send_all(self, *, first: bool) -> None:
        """Those of the recovery, or the others, in their order, also those that come meanwhile."""
        sent = 0
        while waiting := [(seq, one) for seq, one in self._pending.items() if seq > sent and one.first == first]:
            sent = waiting[-1][0]
            for _, pending in waiting:
                if not pending.answer.done():
                    await self._send(pending)

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            try:
                message = _decode(await socket.receive())
            except Unavailable as error:
                log.warning(event("connection ended", namenode=self._url, reason=str(error)))
                return
            except DfsError as error:
                log.warning(event("the namenode is not understood", namenode=self._url, reason=str(error)))
                return
            self._take(message)

    def _take(self, message: FromNamenode) -> None:
        match message:
            case Answer(seq, result):
                if (pending := self._pending.get(seq)) is not None and not pending.answer.done():
                    pending.answer.set_result(result)
            case Failure(seq, code, text):
                if (pending := self._pending.get(seq)) is not None and not pending.answer.done():
                    pending.answer.set_exception(from_code(code, text))
            case Invalidate():
                self._listener.invalidated(message)
            case Nodes(nodes):
                self._listener.nodes_changed(nodes)
            case LevelRaised(level):
                self.level = level

    def _fail_what_was_sent(self) -> None:
        """Their numbers meant something in a session that is gone: whether they were done is not known."""
        for seq, pending in self._pending.items():
            if pending.sent and not pending.answer.done():
                error = SessionLost("the session was lost while this was under way", request=f"{self._id}:{seq}")
                pending.answer.set_exception(error)


def _decode(message: aiohttp.WSMessage) -> FromNamenode:
    """Raises Unavailable where the connection has ended, InvalidArgument for what is no frame of a session."""
    if message.type is not aiohttp.WSMsgType.BINARY:
        raise Unavailable(f"the connection ended: {message.type.name.lower()}")
    try:
        return decode_from_namenode(message.data)  # type: ignore[no-any-return]  # a union, to mypy
    except msgspec.MsgspecError as error:
        raise InvalidArgument(str(error)) from None
