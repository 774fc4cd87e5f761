"""`HttpNameNode`: the file system for Python programs. Only turns what users write into `operations` and
the functions beside them; knows no HTTP.
"""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO, Literal, Self, overload

from dfslib.client import file_objects, remote_paths, walking
from dfslib.client.administration import Administration
from dfslib.client.bodies import Body, Data
from dfslib.client.content import Content, ContentChanged
from dfslib.client.copying import copy_tree
from dfslib.client.entry import Entry, local_path
from dfslib.client.getting import Downloader
from dfslib.client.operations import AttributeChange, Operations, WriteOptions
from dfslib.client.parallel import Progress
from dfslib.client.putting import Uploader
from dfslib.client.remote_paths import RemotePath
from dfslib.client.results import ClusterStatus, DiskUsage, FileInfo, Health, UpgradeStatus
from dfslib.client.retrying import Timing
from dfslib.client.transfers import TransferOptions, raise_error
from dfslib.client.transport import Transport

LocalPath = str | os.PathLike[str]

_READ_AGAIN_MAX = 10
"""How often `cat` starts over for a file that is replaced while it is read."""


class HttpNameNode:
    """A DFS cluster, by the URL of its namenode.

    Paths are text, bytes or path objects, with or without their leading slash; text stands for bytes as in
    `os.fsencode`. An `Entry` of `ls` is its full path; where a local path is meant it is refused (TypeError), as an
    `os.DirEntry` is where one of DFS is meant. A path that begins with `..` is refused: OSError(EINVAL).

    Every method raises the OSError that Python raises for a local file (FileNotFoundError, IsADirectoryError, ...
    with `filename` set), and ConnectionError where the cluster does not answer. Calls that failed on the way are
    repeated for up to `timeout_s` seconds; changes carry an id by which the namenode does them once.

    An object may be used by several threads, and as a context manager; it pickles, for a pool of processes, and
    works on both sides of a fork. It follows no proxy of the
    environment (`http_proxy`).
    """

    def __init__(self, url: str = "http://localhost:8180/", timeout_s: float = 30.0, timing: Timing | None = None):
        """`url`: such as http://host:8180/. Raises ValueError where it is none. Connects to nothing yet."""
        transport = Transport(url, timeout_s, timing)
        self._operations = Operations(transport)
        self._administration = Administration(transport)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept for later calls. The object stays usable."""
        self._operations.transport.close()

    @property
    def url(self) -> str:
        return self._operations.transport.url

    # The cluster

    def ping_alive(self) -> bool:
        """Whether the namenode is able to serve, asked once; raises nothing."""
        return self._administration.alive()

    def mkfs(self) -> None:
        """Empty the file system: delete everything below the root."""
        for entry in list(self._operations.entries("/")):
            self._operations.delete(remote_paths.join("/", entry.name), recursive=True)

    def df(self) -> DiskUsage:
        """Capacity and use of the cluster, in bytes."""
        return self._administration.usage()

    def status(self) -> ClusterStatus:
        """The cluster and its datanodes."""
        return self._administration.status()

    def fsck(self) -> Health:
        """Verify the metadata and count the copies of every block."""
        return self._administration.check()

    def drain(self, node: str, cancel: bool = False) -> ClusterStatus:
        """Have a datanode's blocks copied elsewhere, so that it can be taken away; with `cancel` take that back.

        `node`: its id, the beginning of it, or its URL. In the answers its `to_move` falls to 0 when it can be
        taken away. Raises FileNotFoundError for a datanode that is not known.
        """
        return self._administration.drain(node, cancel=cancel)

    def forget(self, node: str) -> None:
        """Strike a datanode that is gone for good. Raises FileNotFoundError, and OSError(EINVAL) where it is there."""
        self._administration.forget(node)

    def release(self) -> ClusterStatus:
        """End the time after a restore in which nothing is deleted from the datanodes."""
        return self._administration.release()

    def restore(self, source: str | None = None) -> ClusterStatus:
        """Have an empty namenode take over the metadata that datanodes keep, the latest, or that of `source` (a URL).

        What it was restored to, and that nothing is deleted before `release`, is in the answer's `metadata`.
        """
        return self._administration.restore(source)

    def open_metadata(self, *, force: bool = False) -> ClusterStatus:
        """Have a namenode that waits for datanodes serve the metadata that it has; does nothing where it does already.

        With `force` its metadata is taken for the newest whatever datanodes have. Without, raises ConnectionError where
        half of them have not shown within the timeout that it is. Raises OSError(EINVAL) where there is none.
        """
        return self._administration.open_metadata(force=force)

    def upgrade_status(self) -> UpgradeStatus:
        """Which level the cluster has, what its datanodes and mounts are able to do, and who keeps it from rising."""
        return self._administration.upgrade_status()

    def finalize_upgrade(self) -> UpgradeStatus:
        """Raise the cluster's level to the newest one that its namenode knows: the version before cannot be used again.

        Does nothing where it has that level. Raises OSError(EINVAL), and changes nothing, where a datanode or a mount
        is of a version before, or is away; the message names them.
        """
        return self._administration.finalize_upgrade()

    # Attributes and names

    def ls(self, path: RemotePath = "/") -> list[Entry]:
        """The entries of a directory with their attributes, sorted by name. `str(entry)` is the name; as a path, for
        every method here, an entry is the file itself (`entry.path`).

        Raises NotADirectoryError for a file.
        """
        return list(self._operations.entries(path))

    def stat(self, path: RemotePath) -> FileInfo:
        """Attributes; of what a symbolic link points to."""
        return self._operations.attributes(path)

    def lstat(self, path: RemotePath) -> FileInfo:
        """Attributes; of a symbolic link itself."""
        return self._operations.attributes(path, follow=False)

    def exists(self, path: RemotePath) -> bool:
        """Whether there is something; False for a broken symbolic link. Raises where that is not known."""
        try:
            self._operations.attributes(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return False
            raise
        return True

    def mkdir(self, path: RemotePath, parents: bool = False, mode: int | None = None) -> None:
        """Make a directory. With `parents` missing ones above it too, and one that is there is no error.

        Raises FileExistsError, FileNotFoundError.
        """
        self._operations.make_directory(path, mode=mode, parents=parents)

    def rmdir(self, path: RemotePath, force: bool = False) -> None:
        """Remove an empty directory, with `force` whatever is in it too.

        Raises NotADirectoryError, and OSError(ENOTEMPTY) without `force`.
        """
        if not self._operations.attributes(path, follow=False).is_dir:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path))
        self._operations.delete(path, recursive=force)

    def rm(self, path: RemotePath, recursive: bool = False) -> None:
        """Remove a file or a symbolic link, with `recursive` a directory and what is in it too.

        Raises IsADirectoryError for a directory without `recursive`.
        """
        if not recursive and self._operations.attributes(path, follow=False).is_dir:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        self._operations.delete(path, recursive=recursive)

    def cp(self, src: RemotePath, dst: RemotePath) -> None:
        """Copy a file, or a directory with all that is in it, within the cluster; no data moves.

        Into `dst` where that is a directory, as cp(1) does; a file in the way is replaced. A symbolic link
        named as `src` is followed where it leads to a file; below a directory links stay links.
        """
        destination = self._into(src, dst)
        try:
            self._operations.copy(src, destination)
        except IsADirectoryError:
            copy_tree(self._operations, remote_paths.to_bytes(src), remote_paths.to_bytes(destination))

    def mv(self, src: RemotePath, dst: RemotePath, replace: bool = True) -> FileInfo:
        """Rename, atomically. Into `dst` where that is a directory, as mv(1) does.

        A file in the way is replaced; without `replace` that is a FileExistsError.
        """
        return self._operations.rename(src, self._into(src, dst), replace=replace)

    def ln(self, src: RemotePath, dst: RemotePath) -> FileInfo:
        """Make `dst` one more name of the file `src` (a hard link). Raises FileExistsError."""
        return self._operations.link(src, dst)

    def symlink(self, target: RemotePath, path: RemotePath) -> FileInfo:
        """Make `path` a symbolic link to `target`, as os.symlink does. Raises FileExistsError."""
        return self._operations.symlink(target, path)

    def readlink(self, path: RemotePath) -> str:
        """Where a symbolic link points. Raises OSError(EINVAL) for anything else."""
        info = self._operations.attributes(path, follow=False)
        if not info.is_symlink:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fspath(path))
        return info.target

    def touch(self, path: RemotePath) -> FileInfo:
        """Make an empty file, or set the times of what is there to now."""
        return self._operations.touch(path)

    def chmod(self, path: RemotePath, mode: int, follow_symlinks: bool = True) -> FileInfo:
        """Set the permission bits (07777)."""
        return self._operations.set_attributes(path, AttributeChange(mode=mode), follow=follow_symlinks)

    def chown(self, path: RemotePath, uid: int, gid: int, follow_symlinks: bool = True) -> FileInfo:
        """Set owner and group, by number; -1 leaves one as it is."""
        change = AttributeChange(uid=None if uid == -1 else uid, gid=None if gid == -1 else gid)
        return self._operations.set_attributes(path, change, follow=follow_symlinks)

    def utime(
        self,
        path: RemotePath,
        times: tuple[float, float] | None = None,
        *,
        ns: tuple[int, int] | None = None,
        follow_symlinks: bool = True,
    ) -> FileInfo:
        """Set the times of access and change: `times` in seconds or `ns` in nanoseconds; neither: to now."""
        if times is not None and ns is not None:
            raise ValueError("utime: you may specify either 'times' or 'ns' but not both")
        if ns is None:
            if times is None:
                return self._operations.touch(path)
            ns = (round(times[0] * 1e9), round(times[1] * 1e9))
        change = AttributeChange(atime_ns=ns[0], mtime_ns=ns[1])
        return self._operations.set_attributes(path, change, follow=follow_symlinks)

    def getxattr(self, path: RemotePath, name: str) -> bytes:
        """An extended attribute. Raises OSError(ENODATA) where it is not there."""
        value = self._operations.extended_attributes(path).get(name)
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), os.fspath(path))
        return value

    def setxattr(
        self, path: RemotePath, name: str, value: bytes, *, create: bool = False, replace: bool = False
    ) -> None:
        """Set an extended attribute; with `create` only a new one, with `replace` only one that is there."""
        self._operations.set_extended_attribute(path, name, value, create=create, replace=replace)

    def listxattr(self, path: RemotePath) -> list[str]:
        """The names of the extended attributes, sorted."""
        return sorted(self._operations.extended_attributes(path))

    def removexattr(self, path: RemotePath, name: str) -> None:
        """Remove an extended attribute. Raises OSError(ENODATA) where it is not there."""
        self._operations.remove_extended_attribute(path, name)

    # Content

    @overload
    def cat(self, path: RemotePath) -> bytes: ...
    @overload
    def cat(self, path: RemotePath, file: BinaryIO) -> int: ...
    def cat(self, path: RemotePath, file: BinaryIO | None = None) -> bytes | int:
        """The content of a file; with `file` it is written there, piece by piece, and counted.

        Always one version's content: raises OSError(ESTALE) where another one came while `file` was
        being filled.
        """
        if file is None:
            return self._read_whole(path)
        count = 0
        for piece in Content(self._operations.transport, path).pieces():
            file.write(piece)
            count += len(piece)
        return count

    def _read_whole(self, path: RemotePath) -> bytes:
        for left in range(_READ_AGAIN_MAX, -1, -1):
            try:
                return b"".join(Content(self._operations.transport, path).pieces())
            except ContentChanged:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def tee(
        self,
        path: RemotePath,
        data: Data,
        *,
        mode: int | None = None,
        parents: bool = False,
        replication: str | int | None = None,
        exclusive: bool = False,
        if_match: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
    ) -> FileInfo:
        """Make `data`, bytes or a binary file, the content of a file: at once, or not at all.

        `mode`: permission bits; `uid`, `gid`: the owner (default: root, or whose the file is that is replaced);
        `parents`: make missing directories; `replication`: `all` or a number of copies; `exclusive`: raise
        FileExistsError where there is a file; `if_match`: the ETag that the present content must have, else
        FileExistsError. A file is streamed from its position on; one that cannot seek is sent once only, and then
        not again after a failure.
        The answer's `replicas` tells how many datanodes hold the content; None where a first answer was lost.
        """
        options = WriteOptions(
            mode=mode,
            parents=parents,
            replication=None if replication is None else str(replication),
            exclusive=exclusive,
            if_match=if_match,
            uid=uid,
            gid=gid,
        )
        return self._operations.write(path, Body(data), options)

    def append(self, path: RemotePath, data: Data) -> None:
        """Add `data`, bytes or a binary file, to the end of a file, atomically; a missing one is made."""
        file_objects.append_or_create(self._operations, path, Body(data))

    def truncate(self, path: RemotePath, size: int) -> FileInfo:
        """Cut a file off at `size` bytes, or lengthen it with zeros."""
        return self._operations.truncate(path, size)

    @overload
    def open(self, path: RemotePath, mode: Literal["rb", "wb", "xb", "ab", "br", "bw", "bx", "ba"]) -> IO[bytes]: ...
    @overload
    def open(
        self,
        path: RemotePath,
        mode: Literal["r", "w", "x", "a", "rt", "wt", "xt", "at"] = "r",
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[str]: ...
    @overload
    def open(
        self,
        path: RemotePath,
        mode: str,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]: ...
    def open(
        self,
        path: RemotePath,
        mode: str = "r",
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """`open()` for a file of the cluster: r, w, x or a, with b or as text (UTF-8 by default).

        A file being read can seek, and stays the version that it was when opened: other content raises
        OSError(ESTALE). What is written appears at close, all at once; after an exception inside `with`,
        or without a close, nothing has changed. After a write that failed nothing is sent either: all that follows
        raises its error, `close` too. Raises io.UnsupportedOperation for modes with `+`.
        """
        return file_objects.open_file(self._operations, path, mode, encoding, errors, newline)

    def put(
        self,
        local: LocalPath,
        path: RemotePath,
        progress: Progress | None = None,
        *,
        skip_equal: bool = False,
        preserve: bool = False,
    ) -> None:
        """Upload a local file, or a directory with all that is in it; times are kept.

        What is put belongs to the user of this process. A directory's modes are kept, a single file's are its
        permissions less the umask. `preserve`: as cp -p, its modes too, and for root the owners.

        A file goes into `path` where that is a directory; a directory becomes `path`, or is merged into it.
        Each file appears at once; symbolic links stay links; devices, sockets and FIFOs raise
        OSError(EOPNOTSUPP). `progress(bytes_done, bytes_total, path)` is called after each piece, for the
        whole call. `skip_equal` leaves out files of equal size and time. The first error ends the call.
        """
        source = local_path(local)
        remote = remote_paths.to_bytes(path)
        is_directory = Path(source).is_dir()
        if not is_directory:
            remote = remote_paths.to_bytes(self._into(Path(source).name, remote))
        options = TransferOptions(
            follow_sources=True,
            skip_equal=skip_equal,
            progress=progress,
            keep_modes=preserve or is_directory,
            keep_owners=preserve,
        )
        Uploader(self._operations, options).run([(source, remote)])

    def get(
        self, path: RemotePath, local: LocalPath, progress: Progress | None = None, *, skip_equal: bool = False
    ) -> None:
        """Download a file, or a directory with all that is in it; as `put` does, the other way.

        Each file appears at once. A large download that broke off is taken up again by the next call.
        """
        remote = remote_paths.to_bytes(path)
        destination = local_path(local)
        if Path(destination).is_dir() and not self._operations.attributes(path).is_dir:
            name = remote_paths.last_name(path)
            remote_paths.check_local_name(name)
            destination = str(Path(destination) / os.fsdecode(name))
        options = TransferOptions(follow_sources=True, skip_equal=skip_equal, progress=progress)
        Downloader(self._operations, options).run([(remote, destination)])

    def upload(self, pairs: builtins.list[tuple[str, bytes]], options: TransferOptions) -> None:
        """Upload each (local path, exact remote path), as `options` say."""
        Uploader(self._operations, options).run(pairs)

    def download(self, pairs: builtins.list[tuple[bytes, str]], options: TransferOptions) -> None:
        """Download each (remote path, exact local path), as `options` say."""
        Downloader(self._operations, options).run(pairs)

    def rename(self, src: RemotePath, dst: RemotePath, replace: bool = True) -> FileInfo:
        """rename(2), atomic: `src` becomes exactly `dst`, as os.rename has it; see `mv` for into a directory."""
        return self._operations.rename(src, dst, replace=replace)

    def copy(self, src: RemotePath, dst: RemotePath) -> FileInfo:
        """Copy a file to exactly `dst`, a new one or one that is replaced. Raises IsADirectoryError."""
        return self._operations.copy(src, dst)

    def copy_tree(self, src: RemotePath, dst: RemotePath, on_error: Callable[[OSError], None] = raise_error) -> None:
        """Copy what is at `src` to exactly `dst`; `on_error` is called for what failed, before going on."""
        copy_tree(self._operations, remote_paths.to_bytes(src), remote_paths.to_bytes(dst), on_error)

    # Searching

    def walk(
        self,
        path: RemotePath = "/",
        topdown: bool = True,
        onerror: Callable[[OSError], object] | None = None,
        followlinks: bool = False,
    ) -> Iterator[tuple[str, builtins.list[str], builtins.list[str]]]:
        """`os.walk` for the cluster: (path, directories, files) for `path` and every directory below."""
        return walking.walk(self._operations, path, topdown, onerror, followlinks)

    def glob(self, pattern: str, recursive: bool = False, include_hidden: bool = False) -> builtins.list[str]:
        """`glob.glob` for the cluster: the paths that match; `**` with `recursive`. Relative to the root."""
        return walking.glob(self._operations, pattern, recursive, include_hidden)

    def _into(self, source: RemotePath, destination: RemotePath) -> str | bytes:
        """`destination`, or the place for `source` in it where it is a directory."""
        target = os.fspath(destination)
        try:
            is_dir = self._operations.attributes(destination).is_dir
        except FileNotFoundError:
            is_dir = False
        if not is_dir:
            return target
        name = remote_paths.last_name(source)
        if name in (b"", b".", b".."):
            raise OSError(errno.EINVAL, "the source has no name to have in the directory", os.fspath(source))
        place = remote_paths.join(target, name)
        return place if isinstance(target, bytes) else os.fsdecode(place)
