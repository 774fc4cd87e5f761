"""What files may contain after operations of which some failed and of some nobody knows the outcome.

Each client works on paths of its own, one operation at a time. An acknowledged operation leaves exactly its result;
one that definitely failed leaves what was before; one whose outcome is unknown leaves both possible, and the path is
not written any more: what the servers still do with that request may happen late.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

_FILES_MAX = 300
"""Paths of one client: all are read from every datanode at the end."""
Content = bytes | None
"""None: there is no such file."""

_DEFINITE = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOSPC, errno.EISDIR, errno.ENOTDIR, errno.EINVAL})
"""Errors after which nothing has changed, whatever happened to earlier attempts: requests carry ids."""


class Files(Protocol):
    """What clients call of HttpNameNode."""

    def mkdir(self, path: str, parents: bool) -> object: ...
    def tee(self, path: str, data: bytes) -> object: ...
    def append(self, path: str, data: bytes) -> object: ...
    def truncate(self, path: str, size: int) -> object: ...
    def rm(self, path: str) -> object: ...
    def mv(self, src: str, dst: str) -> object: ...
    def cp(self, src: str, dst: str) -> object: ...
    def cat(self, path: str) -> bytes: ...
    def close(self) -> None: ...


class Violation(AssertionError):
    """The cluster has broken a promise."""


@dataclass
class File:
    """`possible`: what it may contain now. `settled`: it can be used for further operations."""

    possible: set[Content] = field(default_factory=lambda: {None})
    settled: bool = True
    log: list[str] = field(default_factory=list)

    def acknowledged(self, contents: set[Content]) -> None:
        self.possible = contents

    def unknown(self, contents: set[Content]) -> None:
        self.possible |= contents
        self.settled = False

    def check(self, path: str, found: Content, where: str) -> None:
        if found not in self.possible:
            raise Violation(
                f"{path} read {where} is {_short(found)}, possible are {[_short(one) for one in self.possible]}; "
                f"what was done with it: {'; '.join(self.log[-12:])}"
            )


def _short(content: Content) -> str:
    return "missing" if content is None else f"{len(content)} bytes {content[:24]!r}"


class Client:
    """One client's random operations, and what follows from their answers."""

    def __init__(self, number: int, dfs: Files, seed: int) -> None:
        self.files: dict[str, File] = {}
        self.counts: dict[str, int] = {}
        self._folder = f"/client{number}"
        self._random = random.Random(f"{seed}-{number}")
        self._dfs = dfs
        self._made = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self.step()
        self._dfs.close()

    def step(self) -> None:
        """One operation. Raises Violation."""
        settled = [path for path, file in self.files.items() if file.settled]
        existing = [path for path in settled if self.files[path].possible != {None}]
        room = len(self.files) < _FILES_MAX
        choices: list[Callable[[], None]] = [self._put_new, self._put_new] if room or not existing else []
        if existing:
            path = self._random.choice(existing)
            choices += [
                lambda: self._put(path),
                lambda: self._append(path),
                lambda: self._delete(path),
                lambda: self._truncate(path),
            ]
            choices += [lambda: self._rename(path), lambda: self._copy(path)] if room else []
        if self.files:
            read = self._random.choice(list(self.files))
            choices += [lambda: self._read(read)] * 5
        self._random.choice(choices)()

    def _data(self) -> bytes:
        self._made += 1
        size = self._random.choice([1, 100, 4096, 70_000, 300_000])
        stamp = f"{self._folder}-{self._made};".encode()
        return (stamp * (size // len(stamp) + 1))[: max(size, len(stamp))]

    def _new_path(self) -> str:
        self._made += 1
        path = f"{self._folder}/{self._made}"
        self.files[path] = File()
        return path

    def _put_new(self) -> None:
        self._put(self._new_path())

    def _put(self, path: str) -> None:
        data = self._data()

        def put() -> None:
            if self.files[path].possible == {None}:
                self._dfs.mkdir(self._folder, parents=True)
            self._dfs.tee(path, data)

        self._change("put", put, {path: {data}})

    def _append(self, path: str) -> None:
        data = self._data()
        after = {(before or b"") + data for before in self.files[path].possible}
        self._change("append", lambda: self._dfs.append(path, data), {path: set(after)})

    def _truncate(self, path: str) -> None:
        size = self._random.randrange(5000)
        after: set[Content] = {(before or b"")[:size].ljust(size, b"\0") for before in self.files[path].possible}
        self._change(f"truncate {size}", lambda: self._dfs.truncate(path, size), {path: after})

    def _delete(self, path: str) -> None:
        self._change("delete", lambda: self._dfs.rm(path), {path: {None}})

    def _rename(self, path: str) -> None:
        new = self._new_path()
        after: dict[str, set[Content]] = {path: {None}, new: set(self.files[path].possible)}
        self._change(f"rename to {new}", lambda: self._dfs.mv(path, new), after)

    def _copy(self, path: str) -> None:
        new = self._new_path()
        self._change(f"copy of {path}", lambda: self._dfs.cp(path, new), {new: set(self.files[path].possible)})

    def _change(self, what: str, call: Callable[[], object], after: dict[str, set[Content]]) -> None:
        try:
            call()
        except OSError as error:
            definite = error.errno in _DEFINITE
            outcome = "failed" if definite else "unknown"
            for path, contents in after.items():
                if not definite:
                    self.files[path].unknown(contents)
                self.files[path].log.append(f"{what}: {outcome} ({error})")
            self._count(f"{what.split()[0]} {outcome}")
            if definite and error.errno != errno.ENOSPC:
                raise Violation(f"{what} of {sorted(after)} is refused: {error}") from error
            return
        for path, contents in after.items():
            self.files[path].acknowledged(contents)
            self.files[path].log.append(f"{what}: done")
        self._count(what.split()[0])

    def _read(self, path: str) -> None:
        found: Content
        try:
            found = self._dfs.cat(path)
        except FileNotFoundError:
            found = None
        except OSError:
            self._count("read failed")
            return
        self.files[path].check(path, found, "during the run")
        self._count("read")

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
