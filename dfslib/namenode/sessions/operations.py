"""From a mount's request to what does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from dfslib.errors import NotFound
from dfslib.model import FileType
from dfslib.namenode.sessions.changing import Changing
from dfslib.namenode.sessions.looking import Looking
from dfslib.namenode.sessions.session import Session
from dfslib.namenode.sessions.table import Sessions
from dfslib.namenode.sessions.writing import Writing
from dfslib.wire import session as wire


class Operations:
    done: Final = wire.Done()

    def __init__(self, sessions: Sessions, looking: Looking, changing: Changing, writing: Writing) -> None:
        self._sessions = sessions
        self._looking = looking
        self._changing = changing
        self._writing = writing
        self._looks: Mapping[type, Callable[[Session, Any], wire.Result]] = {
            wire.Lookup: looking.lookup,
            wire.GetAttr: looking.get_attr,
            wire.ReadDirectory: looking.read_directory,
            wire.GetLayout: looking.layout,
            wire.GetXattr: lambda _, request: looking.get_xattr(request),
            wire.ListXattrs: lambda _, request: looking.list_xattrs(request),
            wire.ReadDeferred: lambda _, request: looking.read_deferred(request),
            wire.GetSpace: lambda _, request: looking.space(),
            wire.Forget: self._forget,
            wire.Open: self._open,
            wire.Close: self._close,
            wire.Allocate: writing.allocate,
            wire.Abandon: writing.abandon,
        }
        self._changes: Mapping[type, Callable[[Session, int, Any], Awaitable[wire.Result]]] = {
            wire.SetAttr: changing.set_attr,
            wire.Create: self._create,
            wire.Link: changing.link,
            wire.Unlink: changing.unlink,
            wire.Rmdir: changing.rmdir,
            wire.Rename: changing.rename,
            wire.SetXattr: changing.set_xattr,
            wire.RemoveXattr: changing.remove_xattr,
            wire.NoteAccess: changing.note_access,
            wire.Punch: changing.punch,
            wire.CopyRange: writing.copy_range,
            wire.Commit: writing.commit,
            wire.Write: writing.write,
            wire.Sync: lambda _, seq, request: writing.sync(request),
            wire.GetLock: lambda session, seq, request: sessions.locks.get(session.id, request),
            wire.SetLock: self._set_lock,
        }

    def look(self, session: Session, operation: wire.Operation) -> wire.Result | None:
        """The answer of what needs no transaction and no waiting; None for everything else."""
        handler = self._looks.get(type(operation))
        return None if handler is None else handler(session, operation)

    async def change(self, session: Session, seq: int, operation: wire.Operation) -> wire.Result:
        return await self._changes[type(operation)](session, seq, operation)

    def _forget(self, session: Session, request: wire.Forget) -> wire.Result:
        for ino in request.inodes:
            if not session.opens[ino]:
                session.inodes.discard(ino)
                session.directories.discard(ino)
        return self.done

    def _close(self, session: Session, request: wire.Close) -> wire.Result:
        self._sessions.closed(session, request.ino, request.count)
        return self.done

    def _open(self, session: Session, request: wire.Open) -> wire.Attributes:
        self._sessions.opened(session, request.ino)
        try:
            return self._looking.file(session, request.ino)
        except BaseException:
            self._sessions.closed(session, request.ino, 1)
            raise

    async def _create(self, session: Session, seq: int, request: wire.Create) -> wire.Attributes:
        answer = await self._changing.create(session, seq, request)
        if not request.open or answer.attr.type is not FileType.FILE:
            return answer
        try:
            opened = self._open(session, wire.Open(answer.attr.ino))
        except NotFound:  # removed since, by somebody else: it was there, and is open
            self._sessions.opened(session, answer.attr.ino)
            return answer
        return wire.Attributes(
            opened.attr, answer.created, 0, opened.extents, opened.holders, answer.directories, opened.deferred
        )

    async def _set_lock(self, session: Session, seq: int, request: wire.SetLock) -> wire.Result:
        recovering = session.recovering
        generation = await self._sessions.locks.acquire(session.id, seq, request, recovering=recovering)
        return wire.Done(generation=generation)
