"""A mount's session over a real WebSocket to a namenode that breaks off, starts again and forgets, by script."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from dfslib.errors import InvalidArgument, LockLost, SessionLost
from dfslib.model import InodeId
from dfslib.mount.session import Call, Session
from dfslib.wire import routes
from dfslib.wire import session as wire
from tests.deadline import DEADLINE_S

INO = InodeId(5)
OPEN, CLAIM, TOLD = wire.Open(INO), wire.SetLock(INO, 1, 1, 0, 9, reclaim=True), wire.Forget([])
Answering = Callable[["Namenode", wire.Request], wire.Result | Exception | None]


class Namenode:
    """`answer` says what becomes of each request: a result, an error, or None, and the connection ends."""

    def __init__(self) -> None:
        self.greetings: list[wire.Hello] = []
        self.refuse = False
        """The next one is told that its session is unknown."""
        self.restarted = False
        self.taken: list[wire.Operation] = []
        """In their order, with repetitions."""
        self.numbers: list[int] = []
        self.answer: Answering = lambda _, request: wire.Done()
        self.sockets: list[web.WebSocketResponse] = []

    async def session(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        hello = wire.decode_hello((await socket.receive()).data)
        self.greetings.append(hello)
        if self.refuse:
            self.refuse = False
            await socket.send_bytes(wire.encode(wire.Failure(-1, "ESTALE")))
            await socket.close()
            return socket
        name = hello.session or f"s{len(self.greetings)}"
        await socket.send_bytes(wire.encode(wire.Welcome(name, "c", 60.0, [], self.restarted)))
        self.restarted = False
        while (message := await socket.receive()).type is WSMsgType.BINARY:
            asked = wire.decode_request(message.data)
            self.taken.append(asked.operation)
            self.numbers.append(asked.seq)
            found = self.answer(self, asked)
            if found is None:
                await socket.close()
                break
            if isinstance(found, Exception):
                await socket.send_bytes(wire.encode(wire.Failure(asked.seq, getattr(found, "code", "EIO"))))
            else:
                await socket.send_bytes(wire.encode(wire.Answer(asked.seq, found)))
        return socket

    async def cut(self) -> None:
        await self.sockets[-1].close()


class Listener:
    """Says what is open and locked, as the VFS does."""

    def __init__(self) -> None:
        self.recoveries: list[bool] = []
        self.says: list[wire.Operation] = [OPEN, CLAIM, TOLD]
        self.failures: list[Exception] = []
        self.broken = False
        self.gone = asyncio.Event()
        """The connection has ended once."""

    def invalidated(self, push: wire.Invalidate) -> None: ...
    def nodes_changed(self, nodes: list[wire.Node]) -> None: ...
    def disconnected(self) -> None:
        self.gone.set()

    async def recover(self, call: Call, *, lost: bool) -> None:
        self.recoveries.append(lost)
        if self.broken:
            self.broken = False
            raise ZeroDivisionError
        for operation in self.says:
            try:
                await call(operation)
            except LockLost as error:
                self.failures.append(error)


Scenario = Callable[[Namenode, Listener, Session], Awaitable[None]]


def scenario(work: Callable[[Namenode, Listener, Session], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        async def run() -> None:
            namenode, listener = Namenode(), Listener()
            app = web.Application()
            app.add_routes([web.get(routes.SESSION, namenode.session)])
            async with asyncio.timeout(DEADLINE_S), TestServer(app) as server:
                session = Session(str(server.make_url("/")), "test", listener, DEADLINE_S)
                await session.start()
                try:
                    await work(namenode, listener, session)
                finally:
                    await session.close()

        asyncio.run(run())

    test.__name__ = work.__name__
    return test


def look(number: int) -> wire.GetAttr:
    return wire.GetAttr(InodeId(number))


def breaks_at(operation: wire.Operation) -> Answering:
    """The connection ends when this comes for the first time."""

    def answer(namenode: Namenode, request: wire.Request) -> wire.Result | None:
        return None if request.operation == operation and namenode.taken.count(operation) == 1 else wire.Done()

    return answer


@scenario
async def test_what_waits_is_sent_in_its_order_and_before_what_comes_later(
    namenode: Namenode, listener: Listener, session: Session
) -> None:
    await session.call(look(0))
    namenode.answer = breaks_at(look(1))
    calls = [asyncio.create_task(session.call(look(1)))]
    await listener.gone.wait()
    calls += [asyncio.create_task(session.call(look(number))) for number in range(2, 40)]
    await asyncio.gather(*calls)
    assert namenode.taken == [look(0), look(1), *(look(number) for number in range(1, 40))]
    assert namenode.numbers[1:] == [namenode.numbers[1], *sorted(set(namenode.numbers[1:]))]
    assert not listener.recoveries


@scenario
async def test_nothing_is_sent_before_the_namenode_knows_what_is_open_and_locked(
    namenode: Namenode, listener: Listener, session: Session
) -> None:
    await session.call(look(0))
    namenode.restarted = True
    await namenode.cut()
    await listener.gone.wait()
    await session.call(look(1))
    assert namenode.taken == [look(0), OPEN, CLAIM, TOLD, look(1)]
    assert listener.recoveries == [False]


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("lost", [False, True])
def test_a_recovery_goes_on_over_connections_that_end_under_it(at: int, lost: bool) -> None:
    """Begun again in the same session, it would open everything twice; left out, what is written would overtake it."""

    @scenario
    async def work(namenode: Namenode, listener: Listener, session: Session) -> None:
        await session.call(look(0))
        expected: list[wire.Operation] = [OPEN, CLAIM, TOLD]
        namenode.answer = breaks_at(expected[at])
        namenode.refuse, namenode.restarted = lost, not lost
        await namenode.cut()
        await listener.gone.wait()
        await session.call(look(1))
        assert namenode.taken == [look(0), *expected[: at + 1], *expected[at:], look(1)]
        assert listener.recoveries == [lost]
        again = [number for number in namenode.numbers if namenode.numbers.count(number) > 1]
        assert len(set(again)) == 1, "the same request under the same number"

    work()


@scenario
async def test_a_recovery_begins_again_with_a_namenode_that_forgot_what_it_was_told(
    namenode: Namenode, listener: Listener, session: Session
) -> None:
    await session.call(look(0))

    def answer(namenode: Namenode, request: wire.Request) -> wire.Result | None:
        if request.operation == CLAIM and namenode.taken.count(CLAIM) == 1:
            namenode.restarted = True
            return None
        return wire.Done()

    namenode.answer = answer
    namenode.refuse = True
    await namenode.cut()
    await listener.gone.wait()
    await session.call(look(1))
    assert namenode.taken == [look(0), OPEN, CLAIM, OPEN, CLAIM, TOLD, look(1)]
    assert listener.recoveries == [True, False]


@scenario
async def test_a_namenode_that_is_not_ready_for_it_is_told_again(
    namenode: Namenode, listener: Listener, session: Session
) -> None:
    await session.call(look(0))

    class NotYet(Exception):
        code = "EUNAVAILABLE"

    def answer(namenode: Namenode, request: wire.Request) -> wire.Result | Exception:
        return NotYet() if request.operation == CLAIM and namenode.taken.count(CLAIM) < 3 else wire.Done()

    namenode.answer = answer
    namenode.restarted = True
    await namenode.cut()
    await listener.gone.wait()
    await session.call(look(1))
    assert namenode.taken == [look(0), OPEN, CLAIM, CLAIM, CLAIM, TOLD, look(1)]


@scenario
async def test_a_lock_that_is_lost_is_told_to_the_listener_and_the_recovery_goes_on(
    namenode: Namenode, listener: Listener, session: Session
) -> None:
    namenode.answer = lambda namenode, request: LockLost() if request.operation == CLAIM else wire.Done()
    namenode.restarted = True
    await namenode.cut()
    await listener.gone.wait()
    await session.call(look(1))
    assert namenode.taken == [OPEN, CLAIM, TOLD, look(1)]
    assert len(listener.failures) == 1


@scenario
async def test_what_was_sent_in_a_session_that_is_lost_fails_and_what_was_not_is_sent_in_the_next(
    namenode: Namenode, listener: Listener, session: Session
) -> None:
    await session.call(look(0))
    namenode.answer = breaks_at(look(1))
    sent = asyncio.create_task(session.call(look(1)))
    namenode.refuse = True
    await listener.gone.wait()
    later = asyncio.create_task(session.call(look(2)))
    with pytest.raises(SessionLost):
        await sent
    await later
    assert namenode.taken == [look(0), look(1), OPEN, CLAIM, TOLD, look(2)]


@scenario
async def test_a_recovery_that_fails_for_no_good_reason_is_begun_in_a_new_session(
    namenode: Namenode, listener: Listener, session: Session
) -> None:
    await session.call(look(0))
    listener.broken = True
    namenode.restarted = True
    await namenode.cut()
    await listener.gone.wait()
    await session.call(look(1))
    assert listener.recoveries == [False, True]
    assert namenode.greetings[-1].session == ""
    assert namenode.taken == [look(0), OPEN, CLAIM, TOLD, look(1)]


def test_a_namenode_that_is_not_understood_is_an_error_at_the_start() -> None:
    async def run() -> None:
        async def nonsense(request: web.Request) -> web.StreamResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.receive()
            await socket.send_bytes(b"\xc1")
            return socket

        app = web.Application()
        app.add_routes([web.get(routes.SESSION, nonsense)])
        async with asyncio.timeout(DEADLINE_S), TestServer(app) as server:
            with pytest.raises(InvalidArgument):
                await Session(str(server.make_url("/")), "test", Listener(), 5.0).start()

    asyncio.run(run())
