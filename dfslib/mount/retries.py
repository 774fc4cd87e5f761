"""Who was answered ESTALE, and so comes once more.

Where the kernel is told ESTALE, it walks the whole path again, asks for every name on it, and tries once more, in the
same system call of the same thread. If that fails, too, the program sees ESTALE. So a thread is refused once; its next
attempt is taken, whatever has changed meanwhile: the names that it came by were looked up after its call began. What it
finds on its second way is kept open for it, so that it is still there when it arrives.

Threads of which the kernel does not tell the number (0: they are in another PID namespace) cannot be told apart. For
them each lookup of an inode is good for one attempt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from dfslib.model import Attr, InodeId
from dfslib.mount.filesystem import Caller, Handle

OPEN_S: Final = 60.0
"""By then a refused open has come back, on the most loaded machine."""
LOOK_S: Final = 5.0
"""After a refused stat(2) the second way ends with a lookup, of which nothing tells what it was for."""


class Found(NamedTuple):
    """What a lookup led to. `handle`: by which it is kept, a file."""

    attr: Attr
    handle: Handle | None


class _Retry:
    def __init__(self, refused: InodeId, until_s: float) -> None:
        self.refused = refused
        self.until_s = until_s
        self.found: dict[InodeId, Found] = {}
        self.credits: Counter[InodeId] = Counter()
        self.may_make_in: set[InodeId] | None = None
        """The name is not there: the second attempt comes only if it is to make it, in one of these."""


class Retries:
    """`monotonic`: seconds. `release`: what is kept open is needed no more."""

    def __init__(self, monotonic: Callable[[], float], release: Callable[[Handle], None]) -> None:
        self._monotonic = monotonic
        self._release = release
        self._retries: dict[Caller, _Retry] = {}

    def refuse(
        self, caller: Caller, ino: InodeId, life_s: float, *, is_open: bool = False, making: bool = False
    ) -> bool:
        """Whether what the caller asks of this inode is to be answered ESTALE; False: it has been, and this is its
        second attempt. `is_open`: the inode is open in this mount. `making`: a name is to be made in it."""
        retry = self._find(caller)
        if retry is not None and self._is_second(retry, caller, ino, is_open=is_open, making=making):
            return False
        if retry is not None and not caller.pid:
            retry.refused, retry.until_s = ino, max(retry.until_s, self._monotonic() + life_s)
            return True
        self.end(caller)
        self._retries[caller] = _Retry(ino, self._monotonic() + life_s)
        return True

    def _is_second(self, retry: _Retry, caller: Caller, ino: InodeId, *, is_open: bool, making: bool) -> bool:
        if retry.may_make_in is not None:
            return making and ino in retry.may_make_in
        if caller.pid:
            # Without a name on the way, as from a working directory or an open descriptor, nothing is looked up.
            return ino in retry.found or (ino == retry.refused and not retry.found)
        if retry.credits[ino] > 0:
            retry.credits[ino] -= 1
            return True
        return ino == retry.refused and is_open

    def is_expected(self, caller: Caller) -> bool:
        """Whether a lookup may be on the second way of a call."""
        retry = self._find(caller)
        return retry is not None and retry.may_make_in is None

    def found(self, caller: Caller, found: Found) -> None:
        """A lookup led to this."""
        retry = self._find(caller)
        if retry is None or retry.may_make_in is not None:
            if found.handle is not None:
                self._release(found.handle)
            return
        if caller.pid:  # only the last file on a path can be what is opened
            self._give_up(retry)
        elif (before := retry.found.get(found.attr.ino)) is not None and before.handle is not None:
            self._release(before.handle)
        retry.found[found.attr.ino] = found
        retry.credits[found.attr.ino] += 1

    def not_found(self, caller: Caller, parent: InodeId) -> None:
        """A name is not there."""
        retry = self._find(caller)
        if caller.pid and retry is not None and retry.may_make_in is None:
            retry.may_make_in = {*retry.found, parent}
            self._give_up(retry)

    def attr(self, caller: Caller, ino: InodeId) -> Attr | None:
        """What the caller's second way has found of an inode."""
        retry = self._find(caller)
        found = None if retry is None else retry.found.get(ino)
        return None if found is None else found.attr

    def done(self, caller: Caller) -> None:
        """The caller has opened what it wanted."""
        if caller.pid:
            self.end(caller)

    def end(self, caller: Caller) -> None:
        if (retry := self._retries.pop(caller, None)) is not None:
            self._give_up(retry)

    def expire(self) -> None:
        now_s = self._monotonic()
        for caller in [caller for caller, retry in self._retries.items() if retry.until_s <= now_s]:
            self.end(caller)

    def _find(self, caller: Caller) -> _Retry | None:
        retry = self._retries.get(caller)
        return retry if retry is not None and self._monotonic() < retry.until_s else None

    def _give_up(self, retry: _Retry) -> None:
        for ino, found in list(retry.found.items()):
            if found.handle is not None:
                retry.found[ino] = Found(found.attr, None)
                self._release(found.handle)
