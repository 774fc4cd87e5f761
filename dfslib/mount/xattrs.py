"""Extended attributes through a mount: which names there are, and for whom."""

from __future__ import annotations

from typing import Final

from dfslib.errors import NoAttribute, NotPermitted, NotSupported
from dfslib.model import InodeId
from dfslib.mount.capabilities import Capability, has_capability
from dfslib.mount.filesystem import Caller
from dfslib.mount.session import Session
from dfslib.wire import session as wire

_CREATE: Final = 1
_REPLACE: Final = 2
_TRUSTED: Final = b"trusted."
"""Who has no CAP_SYS_ADMIN does not see these (xattr(7)); in a list the kernel leaves that to the file system."""


class Xattrs:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def get(self, caller: Caller, ino: InodeId, name: bytes) -> bytes:
        if name.startswith(b"security."):
            raise NoAttribute  # asked at every write; none can be set
        _check(name)
        if name.startswith(_TRUSTED) and not has_capability(caller, Capability.SYS_ADMIN):
            raise NoAttribute
        answer = await self._session.call(wire.GetXattr(ino, name))
        assert isinstance(answer, wire.Value)
        return answer.value

    async def set(self, caller: Caller, ino: InodeId, name: bytes, value: bytes, flags: int) -> None:
        _check_change(caller, name)
        operation = wire.SetXattr(ino, name, value, bool(flags & _CREATE), bool(flags & _REPLACE))
        await self._session.call(operation)

    async def list(self, caller: Caller, ino: InodeId) -> list[bytes]:
        answer = await self._session.call(wire.ListXattrs(ino))
        assert isinstance(answer, wire.Names)
        trusted = [name for name in answer.names if name.startswith(_TRUSTED)]
        if not trusted or has_capability(caller, Capability.SYS_ADMIN):
            return answer.names
        return [name for name in answer.names if name not in trusted]

    async def remove(self, caller: Caller, ino: InodeId, name: bytes) -> None:
        _check_change(caller, name)
        await self._session.call(wire.RemoveXattr(ino, name))


def _check_change(caller: Caller, name: bytes) -> None:
    _check(name)
    if name.startswith(_TRUSTED) and not has_capability(caller, Capability.SYS_ADMIN):
        raise NotPermitted


def _check(name: bytes) -> None:
    if not name.startswith((b"user.", _TRUSTED)):
        raise NotSupported("no ACLs, capabilities or labels")
