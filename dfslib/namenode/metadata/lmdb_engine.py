"""The default engine: LMDB in a folder, with group commit.

One thread takes every queued function into one LMDB transaction and commits it with an fsync; only then
are the callers answered. A function that raises fails alone, since its writes stay in its buffer. Reads
are snapshots without locks, from any thread.

A disk that fails to write ends the engine: nothing more is committed, since whether that would stay nobody can tell
from what the kernel says once only. A disk that is full does not, unless LMDB gives up itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import queue
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import lmdb
import msgspec

from dfslib.errors import DfsError, InputOutput, NoSpace, Unavailable
from dfslib.namenode.metadata.engine import DamagedMetadata, Journal, ReadTxn, Txn, Watch, Writes
from dfslib.namenode.metadata.history import History
from dfslib.namenode.metadata.lineage import Recorder, Step
from dfslib.namenode.metadata.listeners import Listeners
from dfslib.namenode.metadata.write_buffer import WriteBuffer
from dfslib.runtime.durable_files import sync_directory
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.metadata")
T = TypeVar("T")

MAP_BYTES: Final = 1 << 40
"""Address space, not disk: the file grows as it is used. At 160 bytes an inode this is never reached, so
the map never has to be grown under running readers."""
_FULL_BYTES: Final = 1 << 20
"""Less is free on a disk on which a write has just been cut short."""
DATA: Final = "data.mdb"
"""LMDB's name for the store."""
_GROUP_MAX: Final = 1024
"""Functions in one commit; bounds the wait of the first one in a group."""


_NO_DAMAGE: Final = (
    lmdb.MapFullError,
    lmdb.DiskError,
    lmdb.ReadersFullError,
    lmdb.MemoryError,
    lmdb.TxnFullError,
    lmdb.BadValsizeError,
    lmdb.LockError,
    lmdb.TlsFullError,
    lmdb.InvalidParameterError,
)
"""What LMDB raises where its file is right. All else tells of pages that are none, or of a disk that has failed."""
_DAMAGE: Final = (lmdb.Error, msgspec.DecodeError, struct.error, DamagedMetadata)
"""What a function raises that reads a store, where what it reads is not what was written."""


class _Request(NamedTuple):
    fn: Callable[[Txn], Any]
    by: object
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    future: asyncio.Future[Any]
    result: Any
    error: BaseException | None


class LmdbTxn:
    def __init__(self, txn: Any) -> None:
        self._txn = txn
        self.get = txn.get

    @property
    def number(self) -> int:
        """LMDB counts its commits, those that change something, in the page that makes each of them valid."""
        return int(self._txn.id())

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._txn.cursor()
        try:
            if not cursor.set_range(start):
                return
            for key, value in cursor:
                if key >= end:
                    return
                yield key, value
        finally:
            cursor.close()


class LmdbEngine:
    """Raises Unavailable where another process has the folder, OSError where it cannot be made."""

    def __init__(
        self,
        path: Path,
        *,
        opened: bool = True,
        on_damage: Callable[[str], object] = lambda _: None,
        on_failed: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Not `opened`: the folder is this process's, and its store is opened by `open`. `on_damage` is told, in
        whatever thread meets it, what is wrong with the store; `on_failed`, why nothing can be committed any more."""
        self._path = path
        self._on_damage = on_damage
        self._on_failed = on_failed
        path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Unavailable("in use by another namenode", str(path)) from None
        self._env: Any = None
        self._recorder: Recorder
        self._queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._state = threading.Condition()
        """Guards the four below, and that nothing is queued behind the mark that ends the writer."""
        self._opened = False
        self._closed = False
        self._failure = ""
        self._readers = 0
        self._listeners = Listeners()
        self._writer = threading.Thread(target=self._write_loop, name="metadata-writer", daemon=True)
        if opened:
            self.open()

    def open(self) -> None:
        """Open the store, or begin it. Raises OSError, InputOutput where it cannot be read; then the folder is given
        up."""
        try:
            self._env = lmdb.open(str(self._path), map_size=MAP_BYTES, max_spare_txns=8)
            sync_directory(self._path)  # LMDB syncs its file, never the entry that names it
            sync_directory(self._path.absolute().parent)
            with self._env.begin() as txn:
                self._recorder = Recorder.load(LmdbTxn(txn))
        except BaseException as error:
            if self._env is not None:
                self._env.close()
            os.close(self._lock)
            if isinstance(error, lmdb.Error) and not isinstance(error, _NO_DAMAGE):
                self._on_damage(str(error))
                raise InputOutput(f"the metadata cannot be opened: {error}", str(self._path)) from error
            raise
        self._writer.start()
        self._opened = True

    def forget_dead_readers(self) -> None:
        """Give up the snapshots of processes that ended while they read the store: their pages are used again."""
        with self._state:
            if self._opened and not self._closed:
                self._env.reader_check()

    def read(self, fn: Callable[[ReadTxn], T]) -> T:
        with self._state:
            self._require_open()
            self._readers += 1
        try:
            with self._env.begin() as txn:
                return fn(LmdbTxn(txn))
        except _DAMAGE as error:
            raise self._told(error) from error
        finally:
            with self._state:
                self._readers -= 1
                self._state.notify_all()

    async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._state:
            self._require_open()
            if self._failure:
                raise self._unavailable()
            self._queue.put(_Request(fn, by, loop, future))
        return await future

    def _require_open(self) -> None:
        """The caller has `_state`."""
        if self._closed:
            raise Unavailable("the namenode is stopping")
        if not self._opened:
            raise Unavailable("the metadata is not open yet")

    def _told(self, error: Exception) -> Exception:
        """What those get who asked, where reading or writing the store has raised this."""
        if isinstance(error, _NO_DAMAGE):
            return _failure(error)
        self._on_damage(str(error))
        return Unavailable(f"the metadata is damaged, or was taken for it: {error}")

    def _commit_failure(self, error: Exception) -> Exception:
        """What those get whose commit has raised this. LMDB tells a write that was cut short as EIO, and a full disk
        cuts writes short."""
        is_full = _is_full(self._path)
        if isinstance(error, lmdb.PanicError) or (_is_of_the_disk(error) and not is_full):
            self._fail(error)
        if self._failure:
            return self._unavailable()
        if isinstance(error, lmdb.Error) and is_full:
            error = lmdb.DiskError(str(error))
        return self._told(error) if isinstance(error, _DAMAGE) else _failure(error)

    def _fail(self, error: Exception) -> None:
        with self._state:
            if self._failure:
                return
            self._failure = str(error)
        log.critical(event("metadata cannot be committed any more", reason=error))
        self._on_failed(self._failure)

    def _unavailable(self) -> Unavailable:
        """It may be committed or not: the same request, sent again later, finds out."""
        return Unavailable(f"the metadata store has failed: {self._failure}")

    def journal(self, listener: Journal | None) -> None:
        self._listeners.journal = listener

    def watch(self, listener: Watch) -> None:
        self._listeners.watch = listener

    @property
    def history(self) -> History:
        return self._recorder.history

    def close(self) -> None:
        with self._state:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
            # LMDB runs without the interpreter's lock: closed under a reader, it would unmap what that one reads
            self._state.wait_for(lambda: self._readers == 0)
        if self._opened:
            self._writer.join()
            self._env.close()
            if self._failure:
                self._forget_pages()
        os.close(self._lock)

    def _forget_pages(self) -> None:
        """Have whoever opens the store next read what the disk has, and not what the memory has."""
        with contextlib.suppress(OSError):
            fd = os.open(self._path / DATA, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)

    def _write_loop(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            stop = False
            while len(group) < _GROUP_MAX:
                try:
                    request = self._queue.get_nowait()
                except queue.Empty:
                    break
                if request is None:
                    stop = True
                    break
                group.append(request)
            self._deliver(group, self._commit(group))
            if stop:
                return

    def _commit(self, group: list[_Request]) -> list[_Outcome]:
        """Run and commit a group; if the commit fails, so has every function in it."""
        if self._failure:
            return [_Outcome(request.future, None, self._unavailable()) for request in group]
        outcomes: list[_Outcome] = []
        written: dict[bytes, bytes | None] = {}
        before: dict[bytes, bytes | None] = {}
        step: Step | None = None
        each: list[tuple[object, Writes]] = []
        try:
            with self._env.begin(write=True) as txn:
                base = LmdbTxn(txn)
                number = base.number
                if not self._recorder.agrees(base):
                    raise DamagedMetadata("the store is not the one that was opened: somebody has written into it")
                changed = False
                for request in group:
                    buffer = WriteBuffer(base)
                    try:
                        result = request.fn(buffer)
                    except StopIteration as error:  # no future takes one (PEP 479)
                        wrong = RuntimeError(f"a transaction raised {error!r}")
                        wrong.__cause__ = error
                        outcomes.append(_Outcome(request.future, None, wrong))
                        continue
                    except _DAMAGE as error:
                        outcomes.append(_Outcome(request.future, None, self._told(error)))
                        continue
                    except BaseException as error:  # noqa: BLE001 - the caller's; here it would end the writer
                        outcomes.append(_Outcome(request.future, None, error))
                        continue
                    for key, value in buffer.writes.items():
                        old = txn.pop(key) if value is None else txn.replace(key, value)
                        before.setdefault(key, old)
                        changed |= value is not None or old is not None
                    written.update(buffer.writes)
                    each.append((request.by, buffer.writes))
                    outcomes.append(_Outcome(request.future, result, None))
                if changed:
                    step = self._recorder.step(number, written, before)
                    for key, record in step.records.items():
                        txn.put(key, record)
        except Exception as error:
            log.exception("metadata commit failed")
            failure = self._commit_failure(error)
            return [_Outcome(request.future, None, failure) for request in group]
        if step is not None:
            self._recorder.adopted(step)
            self._listeners.tell(number, written | step.records, each)
        return outcomes

    @staticmethod
    def _deliver(group: list[_Request], outcomes: list[_Outcome]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
        for request, outcome in zip(group, outcomes, strict=True):
            by_loop.setdefault(request.loop, []).append(outcome)
        for loop, ready in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, ready)
            except RuntimeError:  # the loop was closed: nobody waits for these any more
                log.warning("answers to %d transactions have no receiver", len(ready))


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _is_of_the_disk(error: Exception) -> bool:
    """Whether it is what the system said to LMDB, as EIO or EROFS: what has no class of its own there. ENOSPC, too:
    where the disk is not full, what was written before has failed."""
    return type(error) in (lmdb.Error, lmdb.ReadonlyError, lmdb.DiskError)


def _is_full(folder: Path) -> bool:
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _FULL_BYTES


def _failure(error: Exception) -> DfsError:
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError):
        return NoSpace("the namenode's disk is full")
    return InputOutput(f"the metadata store failed: {error}")
