"""The kernel's FUSE protocol: numbers and layouts of `linux/fuse.h`, versions 7.31 to 7.45. No I/O.

Every message begins with a header that gives its length. Integers are the machine's own; times are seconds and
nanoseconds apart, attributes carry both.
"""

from __future__ import annotations

import enum
import stat
from struct import Struct
from typing import Final

from dfslib.model import Attr, FileType
from dfslib.mount.filesystem import DirectoryEntry, Space

MAJOR: Final = 7
MINOR_LEAST: Final = 31
"""Linux 5.4; before it there is no explicit invalidation of data."""
MINOR_MOST: Final = 45
ROOT_ID: Final = 1
REQUEST_MAX: Final = 1 << 20
"""Bytes of one READ or WRITE: 256 pages, the most that kernels take without being told otherwise."""
BUFFER_BYTES: Final = REQUEST_MAX + (64 << 10)
"""For one request; the kernel insists on room for its longest."""


class Op(enum.IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    CREATE = 35
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SYNCFS = 50


class Init(enum.IntFlag):
    """What the kernel offers, and is asked for."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    PARALLEL_DIROPS = 1 << 18
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30
    NO_EXPORT_SUPPORT = 1 << 38


WANTED: Final = (
    Init.ASYNC_READ  # several reads of one file at a time: read-ahead in the kernel
    | Init.ASYNC_DIO  # the same with O_DIRECT
    | Init.PARALLEL_DIROPS  # lookups and listings of one directory at a time
    | Init.DO_READDIRPLUS  # attributes come with listings: `ls -l` needs no request a file
    | Init.READDIRPLUS_AUTO  # ... but only where somebody asks for attributes
    | Init.BIG_WRITES  # writes of more than a page
    | Init.MAX_PAGES  # requests of REQUEST_MAX bytes
    | Init.ATOMIC_O_TRUNC  # open and truncate in one request: nobody else's open comes between
    | Init.POSIX_LOCKS  # fcntl(2) locks are the namenode's: they hold across mounts
    | Init.FLOCK_LOCKS  # flock(2) as well
    | Init.DONT_MASK  # the umask comes along; here it is applied
    | Init.HANDLE_KILLPRIV_V2  # setuid and setgid are cleared by the namenode, with the write: no request for each
    | Init.EXPLICIT_INVAL_DATA  # pages stay until they are invalidated: the namenode pushes changes of others
    | Init.CACHE_SYMLINKS  # their targets never change
    | Init.NO_EXPORT_SUPPORT  # an inode that the kernel has forgotten is not found by number
    | Init.INIT_EXT  # the flags above 32 bits
)
"""Left out: WRITEBACK_CACHE, for the size of a file and the place of an append are the cluster's, not one kernel's;
AUTO_INVAL_DATA, which drops pages when times change, ours included; EXPORT_SUPPORT, for NFS over it."""

IN_HEADER: Final = Struct("=IIQQIIIHH")
"""length, opcode, unique, node, uid, gid, pid, length of extensions, padding"""
OUT_HEADER: Final = Struct("=IiQ")
"""length, negative errno or the code of a notification, unique"""
INIT_IN: Final = Struct("=IIII")
INIT_IN_EXT: Final = Struct("=IIIII")
INIT_OUT: Final = Struct("=IIIIHHIIHHII6I")
"""major, minor, read-ahead, flags, background, congestion, write, granularity, pages, alignment, flags2, stack"""
NODE: Final = Struct("=Q")
TWO: Final = Struct("=II")
FOUR: Final = Struct("=IIII")
GETATTR_IN: Final = Struct("=IIQ")
SETATTR_IN: Final = Struct("=IIQQQqqqIIIIIIII")
RENAME2_IN: Final = Struct("=QII")
OPEN_OUT: Final = Struct("=QIi")
READ_IN: Final = Struct("=QQIIQII")
WRITE_IN: Final = READ_IN
"""handle, offset, size, flags, lock owner, open flags"""
WRITE_OUT: Final = TWO
RELEASE_IN: Final = Struct("=QIIQ")
FLUSH_IN: Final = Struct("=QIIQ")
FSYNC_IN: Final = Struct("=QII")
LOCK_IN: Final = Struct("=QQQQIIII")
LOCK_OUT: Final = Struct("=QQII")
FALLOCATE_IN: Final = Struct("=QQQII")
LSEEK_IN: Final = Struct("=QqII")
COPY_IN: Final = Struct("=QQQQQQQ")
FORGET_ONE: Final = Struct("=QQ")
INVAL_INODE: Final = Struct("=Qqq")
INVAL_ENTRY: Final = Struct("=QII")
_ATTR: Final = Struct("=QQQqqqIIIIIIIIII")
_TIMEOUT: Final = Struct("=QII")
_ENTRY: Final = Struct("=QQQQII")
_DIRENT: Final = Struct("=QQII")
_STATFS: Final = Struct("=QQQQQIIII6I")

NOTIFY_INVAL_INODE: Final = 2
NOTIFY_INVAL_ENTRY: Final = 3
NOTIFY_INC_EPOCH: Final = 8
EPOCH_SINCE: Final = 44
"""The minor version from which all names can be dropped at once."""
OPEN_KILL_SUIDGID: Final = 1
FOPEN_DIRECT_IO: Final = 1
FOPEN_KEEP_CACHE: Final = 2
GETATTR_FH: Final = 1
FSYNC_FDATASYNC: Final = 1
WRITE_CACHE: Final = 1
WRITE_KILL_SUIDGID: Final = 4
LOCK_FLOCK: Final = 1


class Valid(enum.IntFlag):
    """Which fields of a SETATTR mean something."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


TYPE_BITS: Final = {
    FileType.FILE: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.FIFO: stat.S_IFIFO,
    FileType.CHARACTER: stat.S_IFCHR,
    FileType.BLOCK: stat.S_IFBLK,
    FileType.SOCKET: stat.S_IFSOCK,
}
_NS: Final = 1_000_000_000
_BLOCK: Final = 4096
NAME_MAX: Final = 255


def pack_attr(attr: Attr) -> bytes:
    return _ATTR.pack(
        attr.ino, attr.size, (max(attr.allocated, 0) + 511) // 512,
        attr.atime_ns // _NS, attr.mtime_ns // _NS, attr.ctime_ns // _NS,
        attr.atime_ns % _NS, attr.mtime_ns % _NS, attr.ctime_ns % _NS,
        TYPE_BITS[attr.type] | attr.mode, attr.nlink, attr.uid, attr.gid, attr.rdev, _BLOCK, 0,
    )  # fmt: skip


def pack_attr_out(attr: Attr, valid_s: float) -> bytes:
    seconds, ns = _parts(valid_s)
    return _TIMEOUT.pack(seconds, ns, 0) + pack_attr(attr)


def pack_entry(attr: Attr, valid_s: float) -> bytes:
    """The answer to what finds or makes an inode. Its number is never used twice: no generation."""
    seconds, ns = _parts(valid_s)
    return _ENTRY.pack(attr.ino, 0, seconds, seconds, ns, ns) + pack_attr(attr)


NO_ENTRY: Final = bytes(_ENTRY.size)
"""In a listing with attributes: this one is not to be remembered."""


def pack_dirent(entry: DirectoryEntry) -> bytes:
    head = _DIRENT.pack(entry.attr.ino, entry.cookie, len(entry.name), TYPE_BITS[entry.attr.type] >> 12)
    return head + entry.name + bytes(-len(entry.name) % 8)


def pack_statfs(space: Space) -> bytes:
    return _STATFS.pack(
        space.total // _BLOCK, space.free // _BLOCK, space.available // _BLOCK, space.files + space.free_files,
        space.free_files, _BLOCK, NAME_MAX, _BLOCK, 0, 0, 0, 0, 0, 0, 0,
    )  # fmt: skip


def _parts(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * _NS)
