"""Holes and ranges of open files: fallocate(2), lseek(2) with SEEK_DATA and SEEK_HOLE, copy_file_range(2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from dfslib.errors import FileTooLarge, InvalidArgument, NoSuchOffset, NotSupported
from dfslib.model import FILE_SIZE_MAX, InodeId
from dfslib.mount.capabilities import Capability, has_capability
from dfslib.mount.file import File
from dfslib.mount.filesystem import Caller, Handle
from dfslib.mount.invalidations import Invalidations
from dfslib.mount.kernel_cache import KernelCache
from dfslib.mount.layout import WINDOW, window_of
from dfslib.mount.open_files import OpenFiles
from dfslib.mount.session import Session
from dfslib.wire import session as wire

_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_ZERO_RANGE: Final = 0x10


class Allocation:
    def __init__(
        self, session: Session, files: OpenFiles, invalidations: Invalidations, kernel: KernelCache
    ) -> None:
        self._session = session
        self._files = files
        self._invalidations = invalidations
        self._kernel = kernel

    async def fallocate(self, caller: Caller, number: Handle, mode: int, offset: int, length: int) -> None:
        """Space is not reserved: the datanodes' disks fill as bytes are written."""
        file = self._files.get(number).file
        if offset < 0 or length <= 0:
            raise InvalidArgument("an offset is not negative, and a length more than 0")
        if offset + length > FILE_SIZE_MAX:
            raise FileTooLarge
        if mode not in (0, _KEEP_SIZE, _PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE, _ZERO_RANGE | _KEEP_SIZE):
            raise NotSupported("only holes, zeros and growth")
        await self._files.before_changing(file.ino, number)
        await self._kill_privileges(caller, file)
        if mode == _KEEP_SIZE:
            return
        if mode & (_PUNCH_HOLE | _ZERO_RANGE):
            await self._change(file.ino, lambda held: wire.Punch(file.ino, offset, offset + length, held))
        if not mode & _KEEP_SIZE:
            await self._files.refresh(file)
            if file.attr.size < offset + length:
                size = offset + length
                await self._change(file.ino, lambda held: wire.SetAttr(file.ino, size=size, generation=held))

    async def _kill_privileges(self, caller: Caller, file: File) -> None:
        """The kernel leaves it to a file system, and does not say whether the caller may keep them."""
        await self._files.refresh(file)
        if file.attr.unprivileged_mode == file.attr.mode or has_capability(caller, Capability.FSETID):
            return
        await self._change(file.ino, lambda held: wire.SetAttr(file.ino, kill_privileges=True, generation=held))
        self._kernel.drop_attributes(file.ino)

    async def _change(self, ino: InodeId, make: Callable[[int], wire.Operation]) -> None:
        mark = self._invalidations.now()
        answer = await self._files.change(ino, make)
        self._files.changed_here(answer.attr, mark)

    async def seek(self, number: Handle, offset: int, whence: int) -> int:
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise InvalidArgument("only SEEK_DATA and SEEK_HOLE are asked of a file system")
        await self._files.flush(number)
        file = self._files.get(number).file
        await self._files.refresh(file)
        size = file.attr.size
        if not 0 <= offset < size:
            raise NoSuchOffset
        position = offset
        while position < size:
            start, end = await self._next_data(file, position, size)
            if whence == os.SEEK_DATA and start < end:
                return start
            if whence == os.SEEK_HOLE and (start > position or start == end):
                return position
            position = end
        if whence == os.SEEK_HOLE:
            return size
        raise NoSuchOffset

    async def _next_data(self, file: File, position: int, size: int) -> tuple[int, int]:
        """The first run of data from `position` on, within one window; empty, at its end, where there is none."""
        window_end = min(window_of(position) + WINDOW, size)
        answer = await self._session.call(wire.GetLayout(file.ino, position, window_end))
        assert isinstance(answer, wire.Layout)
        start = end = window_end
        for extent in sorted(answer.extents, key=lambda one: one.offset):
            low, high = max(position, extent.offset), min(window_end, extent.end)
            if low >= high:
                continue
            if start == end:
                start, end = low, high
            elif low == end:
                end = high
            else:
                break
        return start, end

    async def copy_range(
        self, caller: Caller, source: Handle, source_offset: int, target: Handle, target_offset: int, length: int
    ) -> int:
        """No byte moves: the two files share the blocks from then on."""
        if min(source_offset, target_offset, length) < 0:
            raise InvalidArgument("an offset or length is not negative")
        origin = self._files.get(source).file
        goal = self._files.get(target).file
        ino = goal.ino
        await self._files.before_changing(origin.ino, source)
        await self._files.before_changing(ino, target)
        await self._files.refresh(origin)
        length = min(length, origin.attr.size - source_offset)
        if length <= 0:
            return 0
        if target_offset + length > FILE_SIZE_MAX:
            raise FileTooLarge
        await self._kill_privileges(caller, goal)
        await self._change(
            ino, lambda held: wire.CopyRange(origin.ino, source_offset, ino, target_offset, length, held)
        )
        return length
