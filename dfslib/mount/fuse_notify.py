"""Notifications to the kernel's caches, from a thread of their own.

Writing one blocks while the kernel holds a lock that it needs: the directory's while one of its names is being looked
up, a page's while it is being read. Both end when the event loop has answered those requests, so the loop must never
wait here. They are written in the order in which they were asked for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterable

from dfslib.model import InodeId
from dfslib.mount import fuse_protocol as fuse
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.fuse")

_GONE = (errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.EBADF)
"""The kernel does not know the inode or name (any more), or the mount is no more: nothing is left to drop."""


class KernelNotifier:
    """Implements `filesystem.Notifier`. `known`: the inodes that the kernel knows."""

    def __init__(self, device: int, minor: int, known: Callable[[], Iterable[InodeId]]) -> None:
        self._device = device
        self._minor = minor
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[tuple[list[bytes], asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="fuse-notify", daemon=True)
        self._thread.start()

    def invalidate_inode(self, ino: InodeId, *, attributes_only: bool = False) -> asyncio.Future[None]:
        return self._put([_inode(ino, attributes_only)])

    def invalidate_entry(self, parent: InodeId, name: bytes) -> asyncio.Future[None]:
        body = fuse.INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0"
        return self._put([_message(fuse.NOTIFY_INVAL_ENTRY, body)])

    def invalidate_all(self) -> asyncio.Future[None]:
        messages = [_inode(ino, attributes_only=False) for ino in self._known()]
        if self._minor >= fuse.EPOCH_SINCE:
            messages.insert(0, _message(fuse.NOTIFY_INC_EPOCH, b""))
        return self._put(messages)

    def close(self) -> None:
        """What is queued is dropped; one that is being written ends with the mount."""
        self._queue.put(None)

    def _put(self, messages: list[bytes]) -> asyncio.Future[None]:
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put((messages, done))
        return done

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            messages, done = entry
            for message in messages:
                try:
                    os.write(self._device, message)
                except OSError as error:
                    if error.errno not in _GONE:
                        log.warning(event("the kernel refused a notification", reason=error))
            try:
                self._loop.call_soon_threadsafe(_settle, done)
            except RuntimeError:  # the loop has ended
                return


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _inode(ino: InodeId, attributes_only: bool) -> bytes:
    # A negative offset means attributes alone; from 0 with no length, all pages as well.
    return _message(fuse.NOTIFY_INVAL_INODE, fuse.INVAL_INODE.pack(ino, -1 if attributes_only else 0, 0))


def _message(code: int, body: bytes) -> bytes:
    return fuse.OUT_HEADER.pack(fuse.OUT_HEADER.size + len(body), code, 0) + body
