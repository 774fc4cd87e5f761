"""One tree of errors, from the metadata engine to the command line.

    DfsError
     ├─ a class for each errno that a file operation can answer with (NotFound, Exists, ...)
     ├─ ConditionFailed, RequestIdReused, RangeNotSatisfiable, ChecksumMismatch,
     │  IncompleteBody                                                            HTTP's own
     └─ NotEnoughDatanodes, Unavailable, UnknownNode, ForeignVolume, Fenced       the cluster's own

Each class carries what every boundary needs: the errno for FUSE and `OSError`, the HTTP status, the
code on the wire, and whether the same request may succeed later. Message text is never matched.
"""

from __future__ import annotations

import errno as _errno
import os
from typing import ClassVar, Self


class DfsError(Exception):
    """Base of all errors. `path` names the file concerned as the user wrote it, or is empty."""

    code: ClassVar[str] = "EIO"
    errno: ClassVar[int] = _errno.EIO
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "", path: str = "") -> None:
        self.message = message or os.strerror(self.errno)
        self.path = path
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def again(self) -> Self:
        """The same error, to be raised to one more of those whom it concerns: an exception grows with each raise."""
        return type(self)(self.message, self.path)

    def as_os_error(self) -> OSError:
        """The error Python raises for the same failure on a local file."""
        if self.path:
            return OSError(self.errno, self.message, self.path)
        return OSError(self.errno, self.message)


class NotFound(DfsError):
    code, errno, http_status = "ENOENT", _errno.ENOENT, 404


class Exists(DfsError):
    code, errno, http_status = "EEXIST", _errno.EEXIST, 409


class NotEmpty(DfsError):
    code, errno, http_status = "ENOTEMPTY", _errno.ENOTEMPTY, 409


class IsADirectory(DfsError):
    code, errno, http_status = "EISDIR", _errno.EISDIR, 409


class NotADirectory(DfsError):
    code, errno, http_status = "ENOTDIR", _errno.ENOTDIR, 409


class AccessDenied(DfsError):
    code, errno, http_status = "EACCES", _errno.EACCES, 403


class NotPermitted(DfsError):
    code, errno, http_status = "EPERM", _errno.EPERM, 403


class InvalidArgument(DfsError):
    code, errno, http_status = "EINVAL", _errno.EINVAL, 400


class NameTooLong(DfsError):
    code, errno, http_status = "ENAMETOOLONG", _errno.ENAMETOOLONG, 400


class TooManySymlinks(DfsError):
    code, errno, http_status = "ELOOP", _errno.ELOOP, 400


class TooManyLinks(DfsError):
    code, errno, http_status = "EMLINK", _errno.EMLINK, 400


class FileTooLarge(DfsError):
    code, errno, http_status = "EFBIG", _errno.EFBIG, 400


class NoAttribute(DfsError):
    """The extended attribute is not there."""

    code, errno, http_status = "ENODATA", _errno.ENODATA, 404


class Stale(DfsError):
    """The name that led to this inode leads elsewhere by now, or the session that opened it has ended."""

    code, errno, http_status = "ESTALE", _errno.ESTALE, 410


class WouldBlock(DfsError):
    """Somebody else holds the lock."""

    code, errno, http_status = "EAGAIN", _errno.EAGAIN, 409


class LockLost(DfsError):
    """The lock under which this was written is somebody else's by now, or may have been meanwhile."""

    code, errno, http_status = "ELOCKLOST", _errno.EIO, 409


class Deadlock(DfsError):
    """Waiting for this lock would never end."""

    code, errno, http_status = "EDEADLK", _errno.EDEADLK, 409


class BadHandle(DfsError):
    """No open file has this handle."""

    code, errno, http_status = "EBADF", _errno.EBADF, 400


class NotSupported(DfsError):
    code, errno, http_status = "EOPNOTSUPP", _errno.EOPNOTSUPP, 501


class NoSuchOffset(DfsError):
    """No data, or no hole, lies at or behind this offset: lseek(2)."""

    code, errno, http_status = "ENXIO", _errno.ENXIO, 416


class BlockGone(DfsError):
    """A block that was to be committed is not held for this session any more: its bytes have to be sent again."""

    code, errno, http_status = "EBLOCKGONE", _errno.EIO, 409


class NoSpace(DfsError):
    code, errno, http_status = "ENOSPC", _errno.ENOSPC, 507


class InputOutput(DfsError):
    """No good replica could be read, or an unforeseen failure; never wrong bytes instead."""


class ConditionFailed(DfsError):
    """`If-Match` or `If-None-Match` did not hold (RFC 9110, 13.1). Nothing has changed."""

    code, errno, http_status = "ECONDITION", _errno.EEXIST, 412


class RequestIdReused(DfsError):
    """Another request was done under this one's id. Nothing has changed."""

    code, errno, http_status = "EREQUESTID", _errno.EINVAL, 422


class RangeNotSatisfiable(DfsError):
    code, errno, http_status = "ERANGE", _errno.EINVAL, 416


class ChecksumMismatch(DfsError):
    """The bytes received are not those whose checksum was announced. Nothing was stored."""

    code, errno, http_status = "EBADMSG", _errno.EBADMSG, 400


class IncompleteBody(DfsError):
    """The request's body ended or stalled before its end. Nothing has changed."""

    code, errno, http_status, retryable = "EINCOMPLETE", _errno.EIO, 400, True


class NotEnoughDatanodes(DfsError):
    """Fewer datanodes took a write than `DFS_MIN_REPLICAS`, or none can serve a read. Nothing changed."""

    code, errno, http_status, retryable = "ENODATANODES", _errno.EIO, 503, True


class Unavailable(DfsError):
    """The peer is not reachable, starting or stopping."""

    code, errno, http_status, retryable = "EUNAVAILABLE", _errno.EIO, 503, True


class SessionLost(Unavailable):
    """A mount's session ended while a request was under way: whether that was done is not known. `request`: how it may
    be asked after (wire.session.Commit.repeats), or ""."""

    code = "ESESSIONLOST"

    def __init__(self, message: str = "", path: str = "", request: str = "") -> None:
        super().__init__(message, path)
        self.request = request


class UnknownNode(DfsError):
    """The namenode does not know this datanode (any more): it must join again."""

    code, errno, http_status = "EUNKNOWNNODE", _errno.ESTALE, 410


class ForeignVolume(DfsError):
    """A datanode's volume belongs to another cluster, or is in use by another process."""

    code, errno, http_status = "EFOREIGN", _errno.EPERM, 409


class Fenced(DfsError):
    """Another process with this datanode's id belongs to the cluster, and this one does not (any more)."""

    code, errno, http_status = "EFENCED", _errno.ESTALE, 409


def _tree(cls: type[DfsError]) -> list[type[DfsError]]:
    found = [cls]
    for child in cls.__subclasses__():
        found += _tree(child)
    return found


def error_classes() -> dict[str, type[DfsError]]:
    """Every code on the wire and its class. `EIO` is `InputOutput`."""
    return {cls.code: cls for cls in _tree(DfsError)}


def from_code(code: str, message: str, path: str = "") -> DfsError:
    """The error a peer sent. A code unknown here (a newer peer) is an `InputOutput`."""
    return _BY_CODE.get(code, InputOutput)(message, path)


_BY_CODE = error_classes()
