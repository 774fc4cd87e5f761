"""The default binding on Linux: the kernel's FUSE protocol over `/dev/fuse`, on the event loop, without libfuse.

Requests are read as long as there are any, each becomes a task, answers go out in whatever order they come. The
process that serves a mount must never touch it itself: its event loop would wait for its own answer.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from dfslib.errors import DfsError
from dfslib.model import InodeId
from dfslib.mount import fuse_protocol as fuse
from dfslib.mount.filesystem import Buffer, Caller, FileSystem, Handle
from dfslib.mount.fuse_mounting import MountOptions, attach, unmount
from dfslib.mount.fuse_notify import KernelNotifier
from dfslib.mount.fuse_protocol import Init, Op
from dfslib.mount.fuse_requests import Answer, Errno, Malformed, Owners, Request, Requests
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.fuse")

_READS_A_TURN: Final = 16
"""Requests read before others have their turn on the loop."""
_HAND_OVER: Final = fuse.REQUEST_MAX // 2
"""A write of this size keeps the buffer it was read into; smaller ones are copied, not to keep all of it."""
_BACKGROUND: Final = 128
"""Read-ahead and direct I/O that may be under way at a time; the kernel's default of 12 leaves datanodes idle."""
_PIECES_MAX: Final = 512
"""Of one writev(2), which takes 1024."""
_KILLED_CHECK_S: Final = 1.0
"""A request that waits for a lock is interrupted at once. All others only when their program is being killed, looked
at so often: programs that are sent signals all the time (timers, children) do not expect EINTR from close(2)."""
_TO_THE_END: Final = frozenset({Op.FLUSH, Op.RELEASE, Op.RELEASEDIR})
"""Not interrupted: they give up what a program held, its locks among it, above all when it is killed."""
_SIGKILL_BIT: Final = 1 << (signal.SIGKILL - 1)
_STOP_S: Final = 30.0
_HEAD: Final = fuse.IN_HEADER.size
_WRITE_HEAD: Final = _HEAD + fuse.WRITE_IN.size
_ENDED: Final = (errno.ENODEV, errno.EBADF)
_TRY_AGAIN: Final = (errno.EAGAIN, errno.EINTR, errno.ENOENT)
"""ENOENT: the request was interrupted before it could be read."""


class LinuxBinding:
    """One mount. `serve` runs until it is taken off, or `stop` takes it off."""

    def __init__(self, filesystem: FileSystem, mountpoint: Path, options: MountOptions, owners: Owners) -> None:
        self._fs = filesystem
        self._mountpoint = mountpoint
        self._options = options
        self._requests = Requests(filesystem, owners)
        self._device = -1
        self._minor = 0
        self._references: Counter[InodeId] = Counter()
        """How often the kernel was given each inode, less what it forgot."""
        self._running: dict[int, asyncio.Task[None]] = {}
        self._waits: dict[int, tuple[int, int]] = {}
        """The operation of each request that is not answered, and the thread that waits for it. Reads that need no
        task are only here."""
        self._quiet = asyncio.Event()
        """Set when the last of them is answered."""
        self._buffer = bytearray(fuse.BUFFER_BYTES)
        self._ended = asyncio.Event()
        self._notifier: KernelNotifier | None = None
        self._ready: Callable[[], None] = lambda: None

    async def serve(self, ready: Callable[[], None]) -> None:
        """Mount, call `ready` when the kernel has, and serve until unmounted. Raises what mounting raises."""
        self._ready = ready
        loop = asyncio.get_running_loop()
        # mount(2) returns before the kernel asks anything; fusermount3 may look at the mount point
        self._device = await loop.run_in_executor(None, attach, self._mountpoint, self._options)
        os.set_blocking(self._device, False)
        loop.add_reader(self._device, self._read_requests)
        try:
            await self._ended.wait()
        finally:
            loop.remove_reader(self._device)
            await self._finish()

    async def stop(self) -> None:
        """Take the mount off; although it is in use, if it has to be. `serve` returns then."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, unmount, self._mountpoint)
        except DfsError as error:
            log.warning(event("in use, taken off all the same", mountpoint=self._mountpoint, reason=error))
            try:
                await loop.run_in_executor(None, lambda: unmount(self._mountpoint, lazy=True))
            except DfsError as again:
                log.warning(event("not taken off", mountpoint=self._mountpoint, reason=again))
            self._ended.set()

    async def _finish(self) -> None:
        """Let what runs end, within bounds."""
        try:
            async with asyncio.timeout(_STOP_S):
                while self._waits:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            late = list(self._running.values())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._notifier is not None:
            self._notifier.close()
        os.close(self._device)
        self._device = -1  # reads that come now are not to be written to whatever gets its number

    def known(self) -> Iterable[InodeId]:
        """The inodes that the kernel knows."""
        return list(self._references)

    # ------------------------------------------------------------------------------------------------ reading

    def _read_requests(self) -> None:
        for _ in range(_READS_A_TURN):
            try:
                size = os.readv(self._device, [self._buffer])
            except OSError as error:
                if error.errno in _ENDED:
                    self._ended.set()
                    asyncio.get_running_loop().remove_reader(self._device)
                elif error.errno not in _TRY_AGAIN:
                    log.exception("reading requests failed")
                    self._ended.set()
                    asyncio.get_running_loop().remove_reader(self._device)
                elif error.errno == errno.ENOENT:
                    continue
                return
            self.take(self._message(size))
            if len(self._waits) <= 1:
                return  # whoever asks for one thing at a time has not asked for another yet

    def _message(self, size: int) -> memoryview:
        """What was read; a long one with the buffer it is in."""
        if size < _HAND_OVER:
            return memoryview(bytes(memoryview(self._buffer)[:size]))
        message = memoryview(self._buffer)[:size]
        self._buffer = bytearray(fuse.BUFFER_BYTES)
        return message

    def take(self, message: memoryview) -> None:
        """Begin what a message of the kernel asks for. Never raises: what cannot be understood is answered."""
        try:
            length, op, unique, node, uid, gid, pid, extensions, _ = fuse.IN_HEADER.unpack_from(message)
        except struct.error:
            log.error(event("malformed request", bytes=len(message)))  # noqa: TRY400  # no number to answer to
            return
        end = len(message) - extensions * 8
        caller = Caller(uid, gid, pid)
        try:
            if length != len(message) or end < _HEAD:
                raise Malformed(f"{len(message)} bytes that say {length}")
            if self._take_special(op, unique, message[_HEAD:end]):
                return
            if op == Op.WRITE:
                request = Request(op, unique, node, caller, message[_HEAD:_WRITE_HEAD], message[_WRITE_HEAD:end])
            else:
                request = Request(op, unique, node, caller, message[_HEAD:end])
                if op == Op.READ and self._begin_read(request):
                    return
        except (Malformed, struct.error) as error:
            log.error(event("malformed request", operation=op, reason=error))  # noqa: TRY400
            self._reply_error(unique, errno.EIO)
            return
        if op == Op.FORGET or op == Op.BATCH_FORGET:
            self._forget(request)
            return
        self._waits[unique] = op, pid
        self._begin(request)

    def _begin(self, request: Request) -> None:
        task = asyncio.create_task(self._serve(request))
        task.add_done_callback(partial(self._end, request.unique))
        self._running[request.unique] = task

    def _begin_read(self, request: Request) -> bool:
        """Whether it is answered, or going to be, without a task. Raises struct.error."""
        handle, offset, size, *_ = fuse.READ_IN.unpack_from(request.data)
        self._waits[request.unique] = request.op, request.caller.pid
        return self._fs.begin_read(Handle(handle), offset, size, partial(self._end_read, request))

    def _end_read(self, request: Request, found: Buffer | DfsError | None) -> None:
        if request.unique not in self._waits:
            return  # it was interrupted
        if found is None:
            self._begin(request)
            return
        self._is_over(request.unique)
        if isinstance(found, DfsError):
            self._reply_error(request.unique, found.errno)
        else:
            self._reply(request.unique, (found,))

    def _take_special(self, op: int, unique: int, data: memoryview) -> bool:
        """Whether it was one that the file system has no part in."""
        if op == Op.INIT:
            self._init(unique, data)
        elif op == Op.INTERRUPT:
            self._interrupt(*fuse.NODE.unpack_from(data))
        elif op == Op.DESTROY:
            self._reply(unique, ())
        else:
            return False
        return True

    def _forget(self, request: Request) -> None:
        """Has no answer."""
        try:
            if request.op == Op.FORGET:
                pairs = [(request.node, fuse.NODE.unpack_from(request.data)[0])]
            else:
                count, _ = fuse.TWO.unpack_from(request.data)
                rest = request.data[fuse.TWO.size :][: count * fuse.FORGET_ONE.size]
                pairs = list(fuse.FORGET_ONE.iter_unpack(rest))
        except struct.error as error:
            log.error(event("malformed request", operation=request.op, reason=error))  # noqa: TRY400
            return
        for ino, count in pairs:
            self._drop(InodeId(ino), count)

    def _drop(self, ino: InodeId, count: int) -> None:
        left = self._references[ino] - count
        if left > 0:
            self._references[ino] = left
        elif ino in self._references:
            del self._references[ino]
            self._fs.forget(ino)

    def _interrupt(self, unique: int) -> None:
        if unique not in self._waits:
            return  # answered already: interrupts are sent only after their request was read
        op, pid = self._waits[unique]
        if op in _TO_THE_END:
            return
        if op == Op.SETLKW or _is_killed(pid):
            if (task := self._running.get(unique)) is not None:
                task.cancel()
            else:
                self._is_over(unique)
                self._reply_error(unique, errno.EINTR)
        else:  # the kernel tells once: a signal that kills may come after one that does not
            asyncio.get_running_loop().call_later(_KILLED_CHECK_S, self._interrupt, unique)

    # ---------------------------------------------------------------------------------------------- answering

    async def _serve(self, request: Request) -> None:
        unique = request.unique
        try:
            # no await between the call's return and the answer: the kernel hears of later changes after it
            answer = await self._requests.handle(request)
            self._answer(unique, answer)
        except DfsError as error:
            self._reply_error(unique, error.errno)
        except Errno as error:
            self._reply_error(unique, error.code)
        except (Malformed, struct.error) as error:
            log.error(event("malformed request", operation=request.op, reason=error))  # noqa: TRY400
            self._reply_error(unique, errno.EIO)
        except Exception:
            log.exception(event("request failed unexpectedly", operation=request.op, inode=request.node))
            self._reply_error(unique, errno.EIO)

    def _end(self, unique: int, task: asyncio.Task[None]) -> None:
        """Here, because a task that is cancelled before its first step runs none of its own lines."""
        self._running.pop(unique, None)
        self._is_over(unique)
        if task.cancelled():
            self._reply_error(unique, errno.EINTR)

    def _is_over(self, unique: int) -> None:
        """Nothing waits for this request from here on."""
        self._waits.pop(unique, None)
        if not self._waits:
            self._quiet.set()

    def _answer(self, unique: int, answer: Answer) -> None:
        for ino in answer.nodes:
            self._references[ino] += 1
        if not self._reply(unique, answer.pieces):
            for ino in answer.nodes:  # the kernel did not take it, and will not forget them
                self._drop(ino, 1)

    def _reply(self, unique: int, pieces: Sequence[Buffer]) -> bool:
        if len(pieces) > _PIECES_MAX:
            pieces = [b"".join(pieces)]
        size = fuse.OUT_HEADER.size + sum(map(len, pieces))
        return self._write([fuse.OUT_HEADER.pack(size, 0, unique), *pieces])

    def _reply_error(self, unique: int, code: int) -> None:
        self._write([fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size, -code, unique)])

    def _write(self, pieces: Sequence[Buffer]) -> bool:
        """False where the kernel does not want the answer any more."""
        try:
            os.writev(self._device, pieces)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *_ENDED):
                log.error(event("the kernel refused an answer", reason=error))  # noqa: TRY400
            return False
        return True

    def _init(self, unique: int, data: memoryview) -> None:
        """Agree on a version and on what both can. Raises Malformed."""
        major, minor, read_ahead, low = fuse.INIT_IN.unpack_from(data)
        if major > fuse.MAJOR:  # it is told our version, and asks again
            self._reply(unique, [_init_out(fuse.MINOR_MOST, 0, Init(0))])
            return
        if major < fuse.MAJOR or minor < fuse.MINOR_LEAST:
            log.error(event("the kernel's FUSE is too old", version=f"{major}.{minor}"))
            self._reply_error(unique, errno.EPROTO)
            self._ended.set()
            return
        high = 0
        if low & Init.INIT_EXT and len(data) >= fuse.INIT_IN_EXT.size:
            high = fuse.INIT_IN_EXT.unpack_from(data)[4]
        offered = Init(low | high << 32)
        self._minor = min(minor, fuse.MINOR_MOST)
        agreed = offered & fuse.WANTED
        self._reply(unique, [_init_out(self._minor, max(read_ahead, fuse.REQUEST_MAX), agreed)])
        self._notifier = KernelNotifier(self._device, self._minor, self.known)
        self._fs.attach(self._notifier)
        log.info(event("mounted", mountpoint=self._mountpoint, protocol=f"{major}.{self._minor}", agreed=repr(agreed)))
        self._ready()


def _is_killed(thread: int) -> bool:
    """Whether SIGKILL waits for a thread; every signal that ends its program becomes one (proc(5), SigPnd)."""
    try:
        lines = Path(f"/proc/{thread}/status").read_text().splitlines()
    except OSError:  # of another namespace, or gone
        return False
    masks = [line.split()[1] for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(int(mask, 16) & _SIGKILL_BIT for mask in masks)


def _init_out(minor: int, read_ahead: int, agreed: Init) -> bytes:
    pages = fuse.REQUEST_MAX // 4096
    return fuse.INIT_OUT.pack(
        fuse.MAJOR, minor, read_ahead, agreed & 0xFFFFFFFF, _BACKGROUND, _BACKGROUND * 3 // 4, fuse.REQUEST_MAX, 1,
        pages, 0, agreed >> 32, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip

