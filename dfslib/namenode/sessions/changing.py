"""What a mount changes, names and attributes: each is one transaction, done once however often it is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from dfslib.errors import Exists, InvalidArgument, NameTooLong, Stale
from dfslib.model import NAME_MAX, Attr, FileType, InodeId
from dfslib.namenode.files.once import Done, Outcome, once
from dfslib.namenode.metadata.engine import MetadataEngine, Txn
from dfslib.namenode.namespace import content, keys, records
from dfslib.namenode.namespace.attrs import AttrChange, kill_privileges, note_access, set_attrs
from dfslib.namenode.namespace.create import NewInode, create
from dfslib.namenode.namespace.link import link
from dfslib.namenode.namespace.rename import Name, exchange, rename
from dfslib.namenode.namespace.unlink import rmdir, unlink
from dfslib.namenode.namespace.xattr import remove_xattr, set_xattr
from dfslib.namenode.sessions.session import Session
from dfslib.wire import session as wire

_NOTHING: Final = Done(None)
_ACCESSES_MAX: Final = 4096
"""In one transaction; the times of more are not that important."""


class Fence(NamedTuple):
    """The file whose content a request changes, and the generation of the locks under which the mount does so."""

    ino: InodeId
    generation: int


class Changing:
    """`check_locks` raises LockLost where a session must not change an inode under locks of a generation any more.
    `now_ns`: nanoseconds since the epoch. `stamp`: see files/once.py."""

    def __init__(
        self,
        engine: MetadataEngine,
        check_locks: Callable[[str, InodeId, int], None],
        now_ns: Callable[[], int],
        stamp: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._check_locks = check_locks
        self.now_ns = now_ns
        self._stamp = stamp

    async def transact(
        self,
        session: Session,
        seq: int,
        fn: Callable[[Txn], Done],
        fence: Fence | None = None,
        repeats: Sequence[str] = (),
    ) -> Outcome:
        """What `fn` came to, now or the first time that this request came, or one of those that it repeats.

        Raises LockLost, and Stale where the session has ended: both are found out in the transaction itself, so that
        nothing is done for a session behind what others did with its locks.
        """

        def change(txn: Txn) -> Done:
            if fence is not None:
                self._check_locks(session.id, *fence)
            return fn(txn)

        run = once(request_id(session, seq), change, self._stamp, [one.encode() for one in repeats])

        def run_unless_ended(txn: Txn) -> Outcome:
            if txn.get(keys.session(session.id)) is None:
                raise Stale("the session has ended")
            return run(txn)

        return await self._engine.transact(run_unless_ended, session)

    async def set_attr(self, session: Session, seq: int, request: wire.SetAttr) -> wire.Attributes:
        change = AttrChange(
            mode=request.mode, uid=request.uid, gid=request.gid, atime_ns=request.atime_ns, mtime_ns=request.mtime_ns
        )

        def commit(txn: Txn) -> Done:
            now = self.now_ns()
            attr = records.get_attr(txn, request.ino)
            if request.size is not None:
                attr = content.truncate(txn, request.ino, request.size, now)
            if request.kill_privileges:
                kill_privileges(txn, request.ino)
            if change != AttrChange():
                attr = set_attrs(txn, request.ino, change, now)
            return Done(records.get_attr(txn, request.ino) if request.kill_privileges else attr)

        return await self._attributes(session, seq, commit, fence=Fence(request.ino, request.generation))

    async def create(self, session: Session, seq: int, request: wire.Create) -> wire.Attributes:
        """Raises Exists, IsADirectory and what the namespace does."""
        if not request.exclusive and request.kind is not FileType.FILE:
            raise InvalidArgument("only regular files are made where they are missing")
        new = NewInode(
            type=request.kind, mode=request.mode, uid=request.uid, gid=request.gid, rdev=request.rdev,
            target=request.target,
        )  # fmt: skip
        _check_name(request.name)

        def commit(txn: Txn) -> Done:
            now = self.now_ns()
            dentry = records.get_dentry(txn, request.parent, request.name)
            if dentry is None:
                return Done(create(txn, request.parent, request.name, new, now), created=True)
            attr = records.named_attr(txn, dentry.ino)
            if request.exclusive:
                raise Exists
            return Done(attr)

        return await self._attributes(session, seq, commit, request.parent)

    async def link(self, session: Session, seq: int, request: wire.Link) -> wire.Attributes:
        _check_name(request.name)
        return await self._attributes(
            session, seq, lambda txn: Done(link(txn, request.ino, request.parent, request.name, self.now_ns())),
            request.parent,
        )

    async def unlink(self, session: Session, seq: int, request: wire.Unlink) -> wire.Done:
        def commit(txn: Txn) -> Done:
            unlink(txn, request.parent, request.name, self.now_ns())
            return _NOTHING

        return await self._done(session, seq, commit, request.parent)

    async def rmdir(self, session: Session, seq: int, request: wire.Rmdir) -> wire.Done:
        def commit(txn: Txn) -> Done:
            rmdir(txn, request.parent, request.name, self.now_ns())
            return _NOTHING

        return await self._done(session, seq, commit, request.parent)

    async def rename(self, session: Session, seq: int, request: wire.Rename) -> wire.Done:
        source, target = Name(request.parent, request.name), Name(request.new_parent, request.new_name)
        _check_name(request.new_name)

        def commit(txn: Txn) -> Done:
            if request.exchange:
                exchange(txn, source, target, self.now_ns())
            else:
                rename(txn, source, target, self.now_ns(), noreplace=request.noreplace)
            return _NOTHING

        return await self._done(session, seq, commit, request.parent, request.new_parent)

    async def set_xattr(self, session: Session, seq: int, request: wire.SetXattr) -> wire.Done:
        def commit(txn: Txn) -> Done:
            create_only, replace_only = request.create, request.replace
            set_xattr(
                txn, request.ino, request.name, request.value, self.now_ns(),
                create=create_only, replace_only=replace_only,
            )  # fmt: skip
            return _NOTHING

        return await self._done(session, seq, commit)

    async def remove_xattr(self, session: Session, seq: int, request: wire.RemoveXattr) -> wire.Done:
        def commit(txn: Txn) -> Done:
            remove_xattr(txn, request.ino, request.name, self.now_ns())
            return _NOTHING

        return await self._done(session, seq, commit)

    async def note_access(self, session: Session, seq: int, request: wire.NoteAccess) -> wire.Done:
        def commit(txn: Txn) -> Done:
            for ino, atime_ns in request.times[:_ACCESSES_MAX]:
                note_access(txn, ino, atime_ns)
            return _NOTHING

        return await self._done(session, seq, commit)

    async def punch(self, session: Session, seq: int, request: wire.Punch) -> wire.Attributes:
        def commit(txn: Txn) -> Done:
            return Done(content.punch(txn, request.ino, request.start, request.end, self.now_ns()))

        return await self._attributes(session, seq, commit, fence=Fence(request.ino, request.generation))

    async def copy_range(self, session: Session, seq: int, request: wire.CopyRange) -> wire.Attributes:
        source = content.Range(request.source, request.source_offset, request.source_offset + request.length)

        def commit(txn: Txn) -> Done:
            return Done(content.copy_range(txn, source, request.target, request.target_offset, self.now_ns()))

        return await self._attributes(session, seq, commit, fence=Fence(request.target, request.generation))

    async def _attributes(
        self,
        session: Session,
        seq: int,
        fn: Callable[[Txn], Done],
        *directories: InodeId,
        fence: Fence | None = None,
    ) -> wire.Attributes:
        fn, after = _looking_at(fn, directories)
        done = (await self.transact(session, seq, fn, fence)).done
        assert done.attr is not None
        return wire.Attributes(done.attr, done.created, directories=after)

    async def _done(
        self, session: Session, seq: int, fn: Callable[[Txn], Done], *directories: InodeId
    ) -> wire.Done:
        fn, after = _looking_at(fn, directories)
        await self.transact(session, seq, fn)
        return wire.Done(after)


def _looking_at(fn: Callable[[Txn], Done], directories: Sequence[InodeId]) -> tuple[Callable[[Txn], Done], list[Attr]]:
    """`fn`, and what it leaves of these directories; nothing where it was done before."""
    after: list[Attr] = []

    def run(txn: Txn) -> Done:
        done = fn(txn)
        after[:] = [attr for ino in directories if (attr := records.find_attr(txn, ino)) is not None]
        return done

    return (run if directories else fn), after


def written_at(txn: Txn, attr: Attr, mtime_ns: int | None) -> Attr:
    """The times of content that was written, by the mount's clock, before it was committed."""
    if mtime_ns is None:
        return attr
    attr = replace(attr, mtime_ns=mtime_ns, ctime_ns=mtime_ns)
    records.put_attr(txn, attr)
    return attr


def request_id(session: Session, seq: int) -> bytes:
    return f"{session.id}:{seq}".encode()


def _check_name(name: bytes) -> None:
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise InvalidArgument("no name of an entry")
    if len(name) > NAME_MAX:
        raise NameTooLong

