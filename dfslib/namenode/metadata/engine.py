"""The port between the namespace and whatever keeps its keys.

A transaction is a plain function of a `Txn` without other side effects: an engine may run it again, may
run it together with others, and commits all or nothing of it. Keys are 1 to KEY_MAX bytes (LMDB's bound),
values any bytes; order is that of the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from dfslib.namenode.metadata.history import History

T = TypeVar("T")

KEY_MAX: Final = 511
"""Bytes in a key: LMDB's bound."""

Writes = Mapping[bytes, bytes | None]
"""What a commit changed: new values by key, None for a key that was deleted."""
Journal = Callable[[int, Writes], None]
"""Is told a commit's number and what it changed, the records of its lineage (lineage.py) among it."""
Watch = Callable[[Sequence[tuple[object, Writes]]], None]
"""Is told who made the transactions of a commit, and what each of them wrote, in their order."""


class DamagedMetadata(Exception):
    """What a transaction has read cannot have been written; says what. An engine gives Unavailable to those who asked:
    it is going to be mended, or found to be our own mistake."""


class ReadTxn(Protocol):
    """A consistent snapshot, valid inside the function it is given to."""

    @property
    def number(self) -> int:
        """Of the last commit that this snapshot contains. In a `Txn`: of the one that it is going to be."""
        ...

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys in [start, end) and their values, in order, as they are when the scan begins."""
        ...


class Txn(ReadTxn, Protocol):
    """A snapshot that sees its own writes."""

    def put(self, key: bytes, value: bytes) -> None:
        """Raises ValueError for a key that is empty, too long or the engine's own (lineage.OWN_KEYS)."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove a key; one that is not there is fine. Raises as `put`."""
        ...


class MetadataEngine(Protocol):
    def read(self, fn: Callable[[ReadTxn], T]) -> T:
        """`fn`'s result on the last committed state. From any thread; a long one should not be the event
        loop's. Raises what `fn` raises, Unavailable after `close` and where the store is damaged."""
        ...

    async def transact(self, fn: Callable[[Txn], T], by: object = None) -> T:
        """`fn`'s result, once its writes are durable. Serializable, in the order in which one event loop asks: whoever
        asks after another's call, answered or not, sees what that one's did, or it is never done. `by` is for who
        watches.

        What `fn` raises is raised here and nothing of it is written. NoSpace or InputOutput where the
        store fails, Unavailable after `close`. If the caller is cancelled, the transaction may still commit.
        """
        ...

    def journal(self, listener: Journal | None) -> None:
        """Tell `listener` of every commit that changes something, from now on.

        Commits are numbered one by one, over restarts too; one that changes nothing has no number. The listener
        is called in their order, after the commit is durable and before those who wait for it are answered, in
        whatever thread commits: it must be quick. What it raises is logged; the commit stands, others are told of
        it, and it is for the listener to know, by the numbers, that it has missed one.
        """
        ...

    def watch(self, listener: Watch) -> None:
        """Tell `listener` of every transaction that wrote something, from now on; when, and in which thread, is as
        with `journal`."""
        ...

    @property
    def history(self) -> History:
        """Up to the last durable commit; this run is in it from its first commit on."""
        ...

    def close(self) -> None:
        """Finish what was queued and the reads that run, then release the store."""
        ...


def prefix_end(prefix: bytes) -> bytes:
    """The smallest key after all keys that start with `prefix` (which is not all 0xff)."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1])
