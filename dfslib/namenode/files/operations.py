"""The use cases behind `/fs`: each is one transaction on paths. No HTTP here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from dfslib.errors import (
    ConditionFailed,
    DfsError,
    Exists,
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotFound,
)
from dfslib.model import Attr, Entry, FileType, InodeId, format_etag
from dfslib.namenode.files.asked import IdentifiedRequest
from dfslib.namenode.files.once import Done, Outcome, Remembered, find_remembered, once_as_asked
from dfslib.namenode.files.receive import Content
from dfslib.namenode.metadata.engine import MetadataEngine, ReadTxn, Txn
from dfslib.namenode.namespace import content, extents, records
from dfslib.namenode.namespace.attrs import AttrChange, set_attrs
from dfslib.namenode.namespace.copy import copy
from dfslib.namenode.namespace.create import NewInode, create, make_directories
from dfslib.namenode.namespace.link import link
from dfslib.namenode.namespace.lookup import Location, Path, find, nearest, resolve
from dfslib.namenode.namespace.rename import Name, rename
from dfslib.namenode.namespace.unlink import detach, rmdir, unlink
from dfslib.namenode.namespace.xattr import list_xattrs, remove_xattr, set_xattr
from dfslib.wire.paths import display, split_path


class Target(NamedTuple):
    """A path of the tree: parsed, and as a person reads it in an error."""

    path: Path
    text: str

    @property
    def raw(self) -> bytes:
        return b"/" + b"/".join(self.path.names)


def parse_target(encoded: str) -> Target:
    """Raises InvalidArgument, NameTooLong."""
    text = "/" + display(encoded).lstrip("/")
    with naming(text):
        names, must_be_dir = split_path(encoded)
        return Target(Path(names, must_be_dir), text)


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Errors raised inside that name no path get this one."""
    try:
        yield
    except DfsError as error:
        if not error.path:
            error.path = path
        raise


class PutOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a PUT is to be done. `if_match`, `if_none_match`: entity tags as in the headers, or '*'."""

    parents: bool = False
    replication: int | None = None
    change: AttrChange = AttrChange()
    if_match: str = ""
    if_none_match: str = ""

    def check(self, attr: Attr | None) -> None:
        """Raises ConditionFailed."""
        etag = format_etag(attr) if attr else None
        if self.if_match and not _matches(self.if_match, etag):
            raise ConditionFailed("If-Match does not hold")
        if self.if_none_match and _matches(self.if_none_match, etag):
            raise ConditionFailed("If-None-Match does not hold: the file exists")


class Operations:
    """Every method names `target` in the errors it raises. Times come from `now_ns`.

    A changing one returns what it did: the attributes of the file concerned, and whether it is new.
    """

    def __init__(
        self,
        engine: MetadataEngine,
        now_ns: Callable[[], int],
        stamp: Callable[[], int],
        request: IdentifiedRequest | None = None,
    ) -> None:
        """`stamp` gives those by which the age of remembered requests is told (runtime.stamps)."""
        self._engine = engine
        self._now_ns = now_ns
        self._stamp = stamp
        self._request = request

    def for_request(self, request: IdentifiedRequest | None) -> Operations:
        """The same operations, each done at most once under this request's id."""
        return Operations(self._engine, self._now_ns, self._stamp, request) if request else self

    def remembered(self) -> Remembered | None:
        """What was done under the request's id, by it or by another one."""
        request = self._request
        return self._engine.read(lambda txn: find_remembered(txn, request.id)) if request else None

    def stat(self, target: Target, *, follow: bool = True) -> Attr:
        with naming(target.text):
            return self._engine.read(lambda txn: find(txn, target.path, follow=follow))

    def list_page(self, directory: InodeId, after: bytes, limit: int) -> list[Entry]:
        """Up to `limit` entries behind the name `after`. Raises NotFound where the directory is gone."""

        def read(txn: ReadTxn) -> list[Entry]:
            records.get_directory(txn, directory)
            entries = records.scan_entries(txn, directory, after)
            return [entry for entry, _ in zip(entries, range(limit), strict=False)]

        return self._engine.read(read)

    def check_put(self, target: Target, options: PutOptions) -> Attr | None:
        """The file a PUT is going to replace, if any; raises what it is bound to fail with."""

        def read(txn: ReadTxn) -> Attr | None:
            try:
                location = resolve(txn, target.path)
            except NotFound:
                if not options.parents:
                    raise
                location = None
            if location is None or location.attr is None:
                _check_new(target)
            elif location.attr.type is not FileType.FILE:
                raise not_a_file(location.attr)
            attr = location.attr if location else None
            options.check(attr)
            return attr

        with naming(target.text):
            return self._engine.read(read)

    def replication(self, target: Target, wanted: int | None) -> int:
        """What a PUT to `target` is to be replicated with: as wanted, as the file has it, as its
        directory, or the nearest one above that exists, does."""

        if wanted is not None:
            return wanted
        with naming(target.text):
            return self._engine.read(lambda txn: nearest(txn, target.path.names).replication)

    async def put(self, target: Target, received: Content, options: PutOptions) -> Done:
        """Make the file, new or not, have these bytes."""

        def commit(txn: Txn) -> Done:
            now = self._now_ns()
            if options.parents:
                make_directories(txn, target.path.names[:-1], now)
            location = resolve(txn, target.path)
            attr = location.attr
            options.check(attr)
            created = attr is None
            if attr is None:
                _check_new(target)
                new = NewInode(type=FileType.FILE, mode=0o644, replication=options.replication)
                attr = create(txn, location.parent, location.name, new, now)
            elif attr.type is not FileType.FILE:
                raise not_a_file(attr)
            elif options.replication is not None and attr.replication != options.replication:
                attr = msgspec.structs.replace(attr, replication=options.replication)
                records.put_attr(txn, attr)
            for block in received.blocks:
                extents.add_block(txn, block)
            if received.size or not created:
                attr = content.replace_content(txn, attr.ino, received.size, received.pieces, now)
            if options.change != AttrChange():
                attr = set_attrs(txn, attr.ino, options.change, now)
            return Done(attr, created)

        return await self._transact(target, commit, received)

    async def append(self, target: Target, received: Content) -> Done:
        def commit(txn: Txn) -> Done:
            attr = find(txn, target.path)
            for block in received.blocks:
                extents.add_block(txn, block)
            return Done(content.append_content(txn, attr.ino, received.pieces, self._now_ns()))

        return await self._transact(target, commit, received)

    async def delete(self, target: Target, *, recursive: bool) -> Done:
        def commit(txn: Txn) -> Done:
            location = _itself(txn, target)
            if recursive:
                detach(txn, location.parent, location.name, self._now_ns())
            elif location.attr and location.attr.is_dir:
                rmdir(txn, location.parent, location.name, self._now_ns())
            else:
                unlink(txn, location.parent, location.name, self._now_ns())
            return Done(None)

        return await self._transact(target, commit)

    async def mkdir(self, target: Target, mode: int, *, parents: bool) -> Done:
        def commit(txn: Txn) -> Done:
            now = self._now_ns()
            if parents:
                make_directories(txn, target.path.names[:-1], now)
            location = resolve(txn, Path(target.path.names), follow=False)
            if location.attr is not None:
                if parents and (found := find(txn, target.path)).is_dir:
                    return Done(found, created=False)
                raise Exists
            new = NewInode(type=FileType.DIRECTORY, mode=mode)
            return Done(create(txn, location.parent, location.name, new, now), created=True)

        return await self._transact(target, commit)

    async def rename(self, target: Target, to: Target, *, noreplace: bool) -> Done:
        def commit(txn: Txn) -> Done:
            source = _itself(txn, target)
            with naming(to.text):
                goal = resolve(txn, Path(to.path.names), follow=False)
                if to.path.must_be_dir and not (source.attr and source.attr.is_dir):
                    raise NotADirectory
            with naming(to.text if source.name else ""):
                names = Name(source.parent, source.name), Name(goal.parent, goal.name)
                return Done(rename(txn, *names, self._now_ns(), noreplace=noreplace))

        return await self._transact(target, commit)

    async def copy(self, target: Target, to: Target, *, parents: bool) -> Done:
        def commit(txn: Txn) -> Done:
            source = resolve(txn, target.path)
            if source.attr is None:
                raise NotFound
            with naming(to.text):
                goal = self._goal(txn, to, parents)
                return Done(copy(txn, source, goal, self._now_ns()), created=goal.attr is None)

        return await self._transact(target, commit)

    async def link(self, target: Target, to: Target) -> Done:
        def commit(txn: Txn) -> Done:
            attr = find(txn, target.path, follow=False)
            with naming(to.text):
                goal = _new_name(txn, to)
                return Done(link(txn, attr.ino, goal.parent, goal.name, self._now_ns()), created=True)

        return await self._transact(target, commit)

    async def symlink(self, target: Target, points_to: bytes) -> Done:
        def commit(txn: Txn) -> Done:
            location = _new_name(txn, target)
            new = NewInode(type=FileType.SYMLINK, mode=0o777, target=points_to)
            return Done(create(txn, location.parent, location.name, new, self._now_ns()), created=True)

        return await self._transact(target, commit)

    async def truncate(self, target: Target, size: int) -> Done:
        def commit(txn: Txn) -> Done:
            return Done(content.truncate(txn, find(txn, target.path).ino, size, self._now_ns()))

        return await self._transact(target, commit)

    async def touch(self, target: Target) -> Done:
        """Set the times to now; make an empty file where there is none."""

        def commit(txn: Txn) -> Done:
            now = self._now_ns()
            location = resolve(txn, target.path)
            if location.attr is None:
                _check_new(target)
                new = NewInode(type=FileType.FILE, mode=0o644)
                return Done(create(txn, location.parent, location.name, new, now), created=True)
            change = AttrChange(atime_ns=now, mtime_ns=now)
            return Done(set_attrs(txn, location.attr.ino, change, now), created=False)

        return await self._transact(target, commit)

    async def set_attrs(self, target: Target, change: AttrChange, *, follow: bool) -> Done:
        def commit(txn: Txn) -> Done:
            return Done(set_attrs(txn, find(txn, target.path, follow=follow).ino, change, self._now_ns()))

        return await self._transact(target, commit)

    def xattrs(self, target: Target) -> dict[bytes, bytes]:
        with naming(target.text):
            return self._engine.read(lambda txn: list_xattrs(txn, find(txn, target.path).ino))

    async def set_xattr(self, target: Target, name: bytes, value: bytes, *, create: bool, replace: bool) -> Done:
        def commit(txn: Txn) -> Done:
            ino = find(txn, target.path).ino
            return Done(set_xattr(txn, ino, name, value, self._now_ns(), create=create, replace_only=replace))

        return await self._transact(target, commit)

    async def remove_xattr(self, target: Target, name: bytes) -> Done:
        def commit(txn: Txn) -> Done:
            return Done(remove_xattr(txn, find(txn, target.path).ino, name, self._now_ns()))

        return await self._transact(target, commit)

    def _goal(self, txn: Txn, to: Target, parents: bool) -> Location:
        if parents:
            make_directories(txn, to.path.names[:-1], self._now_ns())
        goal = resolve(txn, to.path)
        if goal.attr is None:
            _check_new(to)
        return goal

    async def _transact(self, target: Target, fn: Callable[[Txn], Done], received: Content | None = None) -> Done:
        """`received` is what `fn` makes a file's, if it is run: what comes with a repetition is not used."""
        with naming(target.text):
            if self._request is None:
                done, repeated = await self._engine.transact(lambda txn: Outcome(fn(txn), False))
            else:
                done, repeated = await self._engine.transact(once_as_asked(self._request, fn, self._stamp))
        if received is not None:
            received.used = not repeated
        return done


def _itself(txn: Txn, target: Target) -> Location:
    """The entry itself, even where it is a symbolic link: with a slash behind, that is no directory."""
    location = resolve(txn, Path(target.path.names), follow=False)
    if location.attr is None:
        raise NotFound
    if target.path.must_be_dir and not location.attr.is_dir:
        raise NotADirectory
    return location


def _new_name(txn: Txn, target: Target) -> Location:
    """Where a link is to be made. With a slash behind the name only a directory could be there."""
    location = resolve(txn, target.path, follow=False)
    if location.attr is None and target.path.must_be_dir:
        raise NotFound
    return location


def _check_new(target: Target) -> None:
    """A file that is to be made has a name, and no slash behind it."""
    if target.path.must_be_dir or not target.path.names or target.path.names[-1] == b"..":
        raise IsADirectory


def not_a_file(attr: Attr, path: str = "") -> DfsError:
    """Why bytes cannot be written to what is there."""
    return IsADirectory(path=path) if attr.is_dir else InvalidArgument("not a regular file", path)


def _matches(header: str, etag: str | None) -> bool:
    if header.strip() == "*":
        return etag is not None
    return etag is not None and etag in [tag.strip() for tag in header.split(",")]
