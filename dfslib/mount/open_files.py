"""The files that are open in this mount: how they come and go, their bytes, and what is known of them meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from dfslib.errors import BadHandle, DfsError, InvalidArgument, LockLost, NotFound, Stale, Unavailable
from dfslib.model import Attr, FileType, InodeId
from dfslib.mount.clock import Clock
from dfslib.mount.file import File, OpenFile
from dfslib.mount.filesystem import KERNEL_PID, Buffer, Caller, Handle, ReadDone
from dfslib.mount.invalidations import Invalidations
from dfslib.mount.kernel_cache import KernelCache
from dfslib.mount.layout import Layout
from dfslib.mount.reader import Reader
from dfslib.mount.session import Call, Session
from dfslib.mount.writer import Outlets, Writer
from dfslib.runtime.logs import event
from dfslib.runtime.tasks import Tasks
from dfslib.wire import session as wire

log = logging.getLogger("dfs.open_files")

_FETCH_AT_OPEN: Final = 128 << 10
"""Who opens a file this small is going to read all of it."""
_RELATIME_NS: Final = 24 * 3600 * 10**9


class OpenFiles:
    """`outlets` without the two callbacks that are this object's: see `_outlets`."""

    def __init__(
        self, session: Session, reader: Reader, invalidations: Invalidations, kernel: KernelCache, tasks: Tasks,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._session = session
        self._reader = reader
        self._invalidations = invalidations
        self._kernel = kernel
        self._tasks = tasks
        self._clock = clock
        self._files: dict[InodeId, File] = {}
        self._writers: dict[InodeId, Writer] = {}
        self._handles: dict[Handle, OpenFile] = {}
        self._next_handle = 1
        self._accesses: dict[InodeId, int] = {}
        """When files were read, where the namenode has not heard of it."""
        self._outlets: Outlets | None = None

    def use(self, outlets: Outlets) -> None:
        self._outlets = outlets

    # -------------------------------------------------------------------------------------- open and release

    async def create(
        self, operation: wire.Create, flags: int, *, kill_privileges: bool
    ) -> tuple[Attr, Handle, list[Attr]]:
        """The file's attributes, the handle, and the directory's attributes."""
        answer, mark = await self._ask_for_open(operation)
        if answer.attr.type is not FileType.FILE:
            await self._close(answer.attr.ino)
            raise Stale  # the name has become something that is opened in another way
        file, _, number = self._opened(answer, mark, flags)
        if answer.created:
            file.synced(file.begin_sync())
        elif flags & os.O_TRUNC:
            await self._cut_to_nothing(file, number, kill_privileges)
        return self.present(file.attr), number, answer.directories

    async def open(
        self, ino: InodeId, flags: int, *, kill_privileges: bool, refuse: Callable[[Attr], bool] = lambda _: False
    ) -> tuple[OpenFile, Handle]:
        """`refuse` is asked when all is heard of that others did before. Raises NotFound where the inode is gone, Stale
        where it is refused."""
        answer, mark = await self._ask_for_open(wire.Open(ino))
        if refuse(answer.attr):
            self._tasks.spawn(self._close(ino), "close")
            raise Stale
        file, handle, number = self._opened(answer, mark, flags)
        if flags & os.O_TRUNC:
            await self._cut_to_nothing(file, number, kill_privileges)
        elif (flags & os.O_ACCMODE) == os.O_RDONLY and answer.attr.size <= _FETCH_AT_OPEN:
            self._reader.fetch_small(file)
        return handle, number

    async def _cut_to_nothing(self, file: File, number: Handle, kill_privileges: bool) -> None:
        """O_TRUNC of a file that was there. Not before it is sure that it is the right one, nor over what this mount
        is still to write of it. Where it fails, the file is not open."""
        cut = False
        try:
            await self.written(file.ino)  # or lost, and no loss
            mark = self._invalidations.now()
            answer = await self.change(
                file.ino,
                lambda held: wire.SetAttr(file.ino, size=0, kill_privileges=kill_privileges, generation=held),
            )
            self.changed_here(answer.attr, mark)
            if kill_privileges:
                self._kernel.drop_attributes(file.ino)
            cut = True
        finally:
            if not cut:
                self.release(number)

    async def _ask_for_open(self, operation: wire.Open | wire.Create) -> tuple[wire.Attributes, int]:
        """The answer, and the mark from before it. If the caller goes away meanwhile, it is closed again."""
        mark = self._invalidations.now()
        asking = asyncio.ensure_future(self._session.call(operation))
        try:
            answer = await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._tasks.spawn(self._close_unused(asking), "close unused")
            raise
        assert isinstance(answer, wire.Attributes)
        try:
            await self._until_clean(answer.attr.ino)
        except BaseException:
            self._tasks.spawn(self._close(answer.attr.ino), "close unused")
            raise
        return answer, mark

    async def _close_unused(self, asking: asyncio.Future[wire.Result]) -> None:
        try:
            answer = await asking
        except DfsError:
            return
        assert isinstance(answer, wire.Attributes)
        await self._close(answer.attr.ino)

    def _opened(self, answer: wire.Attributes, mark: int, flags: int) -> tuple[File, OpenFile, Handle]:
        ino = answer.attr.ino
        changed = self._invalidations.has_changed(ino, mark)
        file = self._files.get(ino)
        if file is None:
            file = self._files[ino] = File(ino, answer.attr)
            file.fresh = not changed
        else:
            self._learn(file, answer.attr, mark)
        if answer.extents is not None and not changed:
            file.layouts.learn_whole(Layout(answer.extents, answer.holders, answer.deferred))
        file.opens += 1
        handle = OpenFile(file, may_map=(flags & os.O_ACCMODE) == os.O_RDWR)
        file.handles.add(handle)
        number = Handle(self._next_handle)
        self._next_handle += 1
        self._handles[number] = handle
        return file, handle, number

    def is_open(self, ino: InodeId) -> bool:
        return ino in self._files

    def may_be_mapped(self, ino: InodeId) -> bool:
        """Whether programs may write the file in memory; a mapping keeps its open file open."""
        file = self._files.get(ino)
        return file is not None and any(handle.may_map for handle in file.handles)

    def get(self, number: Handle) -> OpenFile:
        handle = self._handles.get(number)
        if handle is None:
            raise BadHandle(f"no open file has the handle {number}")
        return handle

    def usable(self, number: Handle) -> OpenFile:
        """Raises LockLost where nothing goes through it any more."""
        handle = self.get(number)
        handle.check()
        return handle

    def release(self, number: Handle) -> None:
        """The last descriptor is closed. What is still to be written is written on."""
        handle = self.get(number)
        del self._handles[number]
        self._tasks.spawn(self._release(handle), "release")

    async def _release(self, handle: OpenFile) -> None:
        file = handle.file
        file.handles.discard(handle)
        while (writer := self._writers.get(file.ino)) is not None and not file.handles:
            try:
                await writer.flush()
            except Unavailable as error:
                log.warning(event("still writing a closed file", inode=file.ino, reason=str(error)))
                continue
            # Several descriptors may have been closed meanwhile, and it may have been opened and written again.
            if writer.idle and not file.handles and self._writers.get(file.ino) is writer:
                del self._writers[file.ino]
        await self._close(file.ino)
        file.opens -= 1
        if not file.opens and not file.handles and self._files.get(file.ino) is file:
            del self._files[file.ino]

    async def _close(self, ino: InodeId) -> None:
        try:
            await self._session.call(wire.Close(ino), patient=True)
        except DfsError as error:
            log.warning(event("close failed", inode=ino, reason=str(error)))

    def _note_access(self, handle: OpenFile) -> None:
        """It is read. As mount(8) has relatime: once a day, or once after each change."""
        if handle.read_from:
            return
        handle.read_from = True
        file = handle.file
        attr, now_ns = file.attr, self._clock.wall_ns()
        if attr.atime_ns > max(attr.mtime_ns, attr.ctime_ns) and now_ns - attr.atime_ns < _RELATIME_NS:
            return
        file.attr = replace(attr, atime_ns=now_ns)
        self._accesses[file.ino] = now_ns

    def access_is_set(self, ino: InodeId) -> None:
        """The time of access is going to be set: what was read before does not count any more."""
        self._accesses.pop(ino, None)
        if (file := self._files.get(ino)) is not None:
            for handle in file.handles:
                handle.read_from = False

    async def tell_accesses(self) -> None:
        """Tell the namenode which files were read, many at a time."""
        if self._accesses:
            times = list(self._accesses.items())
            try:
                await self._session.call(wire.NoteAccess(times))
            except DfsError as error:
                log.info(event("access times not noted", files=len(times), reason=error))
            for ino, atime_ns in times:
                if self._accesses.get(ino) == atime_ns:  # until here the namenode's answers had the old time
                    del self._accesses[ino]

    # -------------------------------------------------------------------------------------------- attributes

    def present(self, attr: Attr) -> Attr:
        """The namenode's attributes with what was written here and is not committed."""
        if (atime_ns := self._accesses.get(attr.ino)) is not None:
            attr = replace(attr, atime_ns=max(attr.atime_ns, atime_ns))
        writer = self._writers.get(attr.ino)
        if writer is None or writer.idle:
            return attr
        mtime_ns = writer.mtime_ns
        return replace(
            attr,
            mode=attr.unprivileged_mode if writer.kills_privileges else attr.mode,
            size=max(attr.size, writer.size),
            mtime_ns=max(attr.mtime_ns, mtime_ns),
            ctime_ns=max(attr.ctime_ns, mtime_ns),
        )

    def known(self, ino: InodeId) -> Attr | None:
        """The attributes of an open file, if nobody has changed them since."""
        file = self._files.get(ino)
        return self.present(file.attr) if file is not None and file.fresh else None

    def learn(self, attr: Attr, mark: int) -> None:
        """The namenode told these; the mark was taken before it was asked."""
        if (file := self._files.get(attr.ino)) is not None:
            self._learn(file, attr, mark)

    def _learn(self, file: File, attr: Attr, mark: int) -> None:
        if not self._invalidations.has_changed(file.ino, mark):
            if attr.version != file.attr.version:
                file.layouts.forget()
            file.learn(attr, fresh=True)
        elif not file.fresh:
            file.learn(attr, fresh=False)

    def changed_here(self, attr: Attr, mark: int) -> None:
        """This mount changed the content (not by a commit), and the answer said this."""
        ino = attr.ino
        fresh = not self._invalidations.has_changed(ino, mark)
        self._invalidations.changed(ino)
        if (file := self._files.get(ino)) is not None:
            file.learn(attr, fresh=fresh)
            file.layouts.forget()
        if fresh:
            self._kernel.changed_here(ino, attr.version)

    def committed(self, file: File, answer: wire.Attributes) -> None:
        """A batch of writes is part of the file now. Layouts are the writer's to bring up to date."""
        self._invalidations.changed(file.ino)
        file.learn(answer.attr, fresh=file.fresh)
        self._kernel.changed_here(file.ino, answer.attr.version)

    def content_is_off(self, file: File) -> None:
        """What the kernel has of the content is not what it is."""
        self._kernel.drop_inode(file.ino)

    def others_changed(self, ino: InodeId, *, content: bool) -> None:
        if (file := self._files.get(ino)) is not None:
            file.fresh = False
            if content:
                file.layouts.forget()

    def names_changed_here(self) -> None:
        """Link counts may be others."""
        for file in self._files.values():
            file.fresh = False

    def everything_changed(self) -> None:
        for file in self._files.values():
            file.fresh = False
            file.layouts.forget()

    async def refresh(self, file: File) -> None:
        if not file.fresh:
            mark = self._invalidations.now()
            answer = await self._session.call(wire.GetAttr(file.ino))
            assert isinstance(answer, wire.Attributes)
            self._learn(file, answer.attr, mark)

    # ------------------------------------------------------------------------------------------------- bytes

    async def read(self, number: Handle, offset: int, size: int) -> list[Buffer]:
        handle = self.usable(number)
        await self.refresh(handle.file)
        self._note_access(handle)
        writer = self._writers.get(handle.file.ino)
        if writer is not None and writer.appends_elsewhere:
            await writer.flush()  # the namenode says where it is
        return await self._reader.read(handle, writer, offset, size)

    def begin_read(self, number: Handle, offset: int, size: int, done: ReadDone) -> bool:
        """As `FileSystem.begin_read`."""
        handle = self._handles.get(number)
        if handle is None or handle.fenced is not None or not handle.file.fresh:
            return False
        writer = self._writers.get(handle.file.ino)
        if (writer is not None and not writer.idle) or not self._reader.begin(handle, offset, size, done):
            return False
        self._note_access(handle)
        return True

    async def write(
        self, caller: Caller, number: Handle, offset: int, data: Buffer, *, append: bool, kill_privileges: bool
    ) -> int:
        handle = self.get(number)
        by_kernel = caller.pid == KERNEL_PID
        if (error := handle.fenced or handle.error) is not None:
            if by_kernel:  # it notes that for whoever mapped the page; the handle's own program is to hear it, too
                raise error.again()
            handle.raise_error()
        if offset < 0:
            raise InvalidArgument("an offset is not negative")
        handle.wrote = True
        await self._writer(handle.file).write(
            None if by_kernel else handle,
            offset,
            data,
            self._clock.wall_ns(),
            append=append and not by_kernel,  # it writes pages back where they belong
            kill_privileges=kill_privileges,
        )
        if kill_privileges and handle.file.attr.unprivileged_mode != handle.file.attr.mode:
            self._kernel.drop_attributes(handle.file.ino)  # it notes that the size is another, and not the mode
        return len(data)

    def _writer(self, file: File) -> Writer:
        writer = self._writers.get(file.ino)
        if writer is None:
            assert self._outlets is not None
            writer = self._writers[file.ino] = Writer(file, self._outlets)
        return writer

    async def flush(self, number: Handle) -> None:
        """A descriptor is closed."""
        handle = self.usable(number)
        lost = await self.written(handle.file.ino)
        handle.check()
        if handle.wrote:
            handle.raise_error(lost)

    async def fsync(self, number: Handle) -> None:
        handle = self.usable(number)
        handle.raise_error(await self._writer(handle.file).flush(sync=True))

    async def written(self, ino: InodeId) -> DfsError | None:
        """What was written of it up to now is committed, or lost: what it was lost by. Raises Unavailable in an
        outage."""
        writer = self._writers.get(ino)
        return None if writer is None else await writer.flush()

    async def seen(self, ino: InodeId) -> bool:
        """What others have changed of it up to now is what programs here see. False where that takes too long."""
        return await self._kernel.has_been_told(ino)

    async def before_renaming(self, parent: InodeId, name: bytes) -> None:
        """A file has all that was written of it before it takes another name: what is replaced by that is gone. Raises
        Unavailable in an outage, and what some of it was lost by."""
        if self.settled:
            return
        try:
            found = await self._session.call(wire.Lookup(parent, name))
        except NotFound:
            return  # as the renaming says, too
        assert isinstance(found, wire.Attributes)
        await self.before_changing(found.attr.ino, None)

    @property
    def settled(self) -> bool:
        """Whether all that was written is committed, and whoever lost something knows it."""
        return all(writer.idle and writer.file.untold is None for writer in self._writers.values())

    async def before_changing(self, ino: InodeId, number: Handle | None) -> None:
        """What was written of it is committed. Raises Unavailable in an outage, and what it was lost by, as long as who
        wrote it has not been told: what comes behind what is lost would make something of it that nobody wrote."""
        if number is not None:
            self.usable(number)
        lost = await self.written(ino)
        if number is not None:
            self.get(number).raise_error(lost)
        elif (file := self._files.get(ino)) is not None and (lost := lost or file.untold) is not None:
            raise lost.again()

    async def change(self, ino: InodeId, make: Callable[[int], wire.Operation]) -> wire.Attributes:
        """Ask for another change of the content, under the generation of locks that `make` is given. Raises LockLost,
        and what else the namenode does."""
        assert self._outlets is not None
        while True:
            generation = self._outlets.locks.generation(ino)
            try:
                answer = await self._session.call(make(generation))
            except LockLost:
                if self._outlets.locks.refused(ino, generation):
                    raise
                continue
            assert isinstance(answer, wire.Attributes)
            return answer

    def fence(self, ino: InodeId) -> None:
        """A lock under which programs used it is lost. What they wrote and is not committed goes, and nothing more goes
        through what they have open: whoever has the lock now must not find their bytes among his. Who opens the file
        from here on is not concerned."""
        error = LockLost("a lock on this file was lost: it has to be opened again")
        if (writer := self._writers.get(ino)) is not None:
            writer.lose(error)
        if (file := self._files.get(ino)) is None:
            return
        log.error(event("open file fenced", inode=ino, handles=len(file.handles)))
        file.fence(error)
        self._kernel.drop_inode(ino)  # pages that programs have changed in memory are given back, and refused

    async def _until_clean(self, ino: InodeId) -> None:
        """Else the kernel could give pages of those who lost a lock to who opens the file now. Raises Unavailable."""
        file = self._files.get(ino)
        if file is not None and file.was_fenced and not await self._kernel.has_been_told(ino):
            raise Unavailable("the kernel still has pages of those who lost a lock on this file")

    # --------------------------------------------------------------------------------------------- all files

    def seal(self, born_before_s: float = float("inf")) -> None:
        """Begin to send what was written before."""
        for writer in list(self._writers.values()):
            writer.seal_if_older(born_before_s)

    async def flush_all(self) -> int:
        """How many files could not be written in time."""
        writers = list(self._writers.values())
        results = await asyncio.gather(*(writer.flush() for writer in writers), return_exceptions=True)
        return sum(result is not None for result in results)

    async def close(self) -> None:
        for writer in list(self._writers.values()):
            await writer.close()

    async def recover(self, call: Call) -> None:
        """Open again, with a namenode that does not know of it, what is open here."""
        for file in list(self._files.values()):
            file.fresh = False
            for _ in range(file.opens):
                try:
                    await call(wire.Open(file.ino))
                except DfsError as error:
                    if error.retryable:
                        raise
                    log.error(event("open file lost", inode=file.ino, reason=error))  # noqa: TRY400
                    file.fail(Stale("the file went while the namenode was away"))
                    break
