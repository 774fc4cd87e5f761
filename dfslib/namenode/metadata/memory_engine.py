"""The engine for tests: nothing survives the process. It holds to the same contract as the others.

By itself it does everything at once, in the step in which it is asked. Handed a `chance`, it lets others have their
turns wherever an engine with a thread and a disk does: before it runs what is queued, several functions in one commit
or one by one, and between the commit and the answers. All that an engine leaves open is decided by the chance, so that
a seed repeats a whole run, as long as nothing else of it is left to threads and clocks.
"""

from __future__ import annotations

import asyncio
import random
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from dfslib.errors import Unavailable
from dfslib.namenode.metadata.engine import Journal, ReadTxn, Txn, Watch, Writes
from dfslib.namenode.metadata.history import History
from dfslib.namenode.metadata.lineage import Recorder
from dfslib.namenode.metadata.listeners import Listeners
from dfslib.namenode.metadata.write_buffer import WriteBuffer

T = TypeVar("T")

_TURNS: Final = 4
"""Of the event loop, at most, before a commit, and again before its answers: enough for a caller and those whom it
wakes to get past one another."""
_DROPPED: Final = 0.5
"""Of the functions whose callers were cancelled before their turn: they may run, or not."""


class _Request(NamedTuple):
    fn: Callable[[Txn], Any]
    by: object
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    request: _Request
    result: Any
    error: BaseException | None


class _State:
    """All keys and values at one time."""

    def __init__(self, values: Mapping[bytes, bytes], number: int = 0) -> None:
        self.number = number
        self._values = dict(values)
        self._keys = sorted(values)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return iter([(key, self._values[key]) for key in keys])

    def copy(self) -> _State:
        return _State(self._values, self.number)

    def apply(self, key: bytes, value: bytes | None) -> bool:
        """Whether it changed anything: a key that is deleted may have been missing."""
        known = key in self._values
        if value is None:
            if known:
                del self._values[key]
                del self._keys[bisect_left(self._keys, key)]
            return known
        self._values[key] = value
        if not known:
            insort(self._keys, key)
        return True


class MemoryEngine:
    """`chance`: decides when commits and answers come; None: at once."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance
        self._lock = threading.Lock()
        """Guards the fields below. The state is changed in place unless someone reads it."""
        self._state = _State({})
        self._recorder = Recorder.load(self._state)
        self._readers = 0
        self._closed = False
        self._listeners = Listeners()
        self._queue: deque[_Request] = deque()
        self._looks: asyncio.AbstractEventLoop | None = None
        """Where the next look at the queue is due."""
        self._unanswered: deque[list[_Outcome]] = deque()
        """Commits, oldest first: a younger one may be made before an older one is answered."""

    def read(self, fn: Callable[[ReadTxn], T]) -> T:
        with self._lock:
            if self._closed:
                raise Unavailable("the namenode is stopping")
            state = self._state
            self._readers += 1
        try:
            return fn(state)
        finally:
            with self._lock:
                self._readers -= 1

    async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
        loop = asyncio.get_running_loop()
        request = _Request(fn, by, loop, loop.create_future())
        with self._lock:
            if self._closed:
                raise Unavailable("the namenode is stopping")
            if self._chance is None:
                _settle(self._commit([request]))
            else:
                self._queue.append(request)
                self._look_soon(loop, self._chance)
        result: T = await request.future
        return result

    def journal(self, listener: Journal | None) -> None:
        with self._lock:
            self._listeners.journal = listener

    def watch(self, listener: Watch) -> None:
        with self._lock:
            self._listeners.watch = listener

    @property
    def history(self) -> History:
        return self._recorder.history

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._queue:
                self._unanswered.append(self._commit(list(self._queue)))
                self._queue.clear()
            while self._unanswered:
                _deliver(self._unanswered.popleft())

    # ------------------------------------------------------------------------------------------ taking turns

    def _look_soon(self, loop: asyncio.AbstractEventLoop, chance: random.Random) -> None:
        if self._looks is None or self._looks.is_closed():
            self._looks = loop
            _after_turns(loop, chance.randrange(_TURNS), self._look)

    def _look(self) -> None:
        """Commit the first few of what is queued; the answers come later."""
        with self._lock:
            loop, self._looks = self._looks, None
            if loop is None or self._chance is None or not self._queue:
                return
            count = self._chance.randint(1, len(self._queue))
            self._unanswered.append(self._commit([self._queue.popleft() for _ in range(count)]))
            _after_turns(loop, self._chance.randrange(_TURNS), self._answer)
            if self._queue:
                self._look_soon(loop, self._chance)

    def _answer(self) -> None:
        with self._lock:
            if self._unanswered:
                _deliver(self._unanswered.popleft())

    # ------------------------------------------------------------------------------------------- committing

    def _commit(self, group: list[_Request]) -> list[_Outcome]:
        """Run functions one after the other; what they wrote is one commit."""
        outcomes: list[_Outcome] = []
        written: dict[bytes, bytes | None] = {}
        before: dict[bytes, bytes | None] = {}
        each: list[tuple[object, Writes]] = []
        changed = False
        if self._readers:
            self._state = self._state.copy()
        state = self._state
        state.number += 1
        for request in group:
            if self._chance is not None and request.future.cancelled() and self._chance.random() < _DROPPED:
                continue
            buffer = WriteBuffer(state)
            try:
                outcomes.append(_Outcome(request, request.fn(buffer), None))
            except StopIteration as error:  # no future takes one (PEP 479)
                failure = RuntimeError(f"a transaction raised {error!r}")
                failure.__cause__ = error
                outcomes.append(_Outcome(request, None, failure))
                continue
            except BaseException as error:  # noqa: BLE001 - the caller's
                outcomes.append(_Outcome(request, None, error))
                continue
            for key, value in buffer.writes.items():
                before.setdefault(key, state.get(key))
                changed |= state.apply(key, value)
            written.update(buffer.writes)
            each.append((request.by, buffer.writes))
        if changed:
            step = self._recorder.step(state.number, written, before)
            for key, record in step.records.items():
                state.apply(key, record)
            self._recorder.adopted(step)
            self._listeners.tell(state.number, written | step.records, each)
        else:
            state.number -= 1
        return outcomes


def _after_turns(loop: asyncio.AbstractEventLoop, turns: int, then: Callable[[], None]) -> None:
    """Call it after so many turns of the loop, which may go to others, and one."""
    if turns:
        loop.call_soon(_after_turns, loop, turns - 1, then)
    else:
        loop.call_soon(then)


def _deliver(outcomes: list[_Outcome]) -> None:
    for outcome in outcomes:
        # a loop that is closed has nobody left who waits
        if not outcome.request.loop.is_closed():
            outcome.request.loop.call_soon_threadsafe(_settle, [outcome])


def _settle(outcomes: list[_Outcome]) -> None:
    for request, result, error in outcomes:
        if request.future.cancelled():
            continue
        if error is None:
            request.future.set_result(result)
        else:
            request.future.set_exception(error)
