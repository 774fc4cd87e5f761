"""Requests that are sent again because their answer was lost: done once, answered alike.

A client gives a request an id and uses it again for the repetition. The answer is kept in the very
transaction that did the work, for ten minutes. A request that failed has changed nothing and is tried anew. With the
answer goes what was asked for: another request under the same id is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from dfslib.errors import InvalidArgument
from dfslib.model import Attr
from dfslib.namenode.files.asked import Asked, IdentifiedRequest
from dfslib.namenode.metadata.engine import ReadTxn, Txn, prefix_end
from dfslib.namenode.namespace import keys, records
from dfslib.wire.features import LEVELS

T = TypeVar("T")

_ID_MAX: Final = 64
KEEP_S: Final = 600.0
"""Longer than any client goes on trying."""


class Done(NamedTuple):
    """What a request came to: the attributes it answers with, if any, and whether it made something."""

    attr: Attr | None
    created: bool = False


class Outcome(NamedTuple):
    """`repeated`: the request was done before, and nothing of this attempt is used, least of all bytes that came with
    it."""

    done: Done
    repeated: bool


class Remembered(NamedTuple):
    """As it is kept. The first level's builds read the two fields of Done and no more, so that in a cluster of that
    level, and in what is left of that time, `asked` is missing."""

    attr: Attr | None
    created: bool = False
    asked: Asked | None = None

    @property
    def done(self) -> Done:
        return Done(self.attr, self.created)


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Remembered).decode


def check_request_id(text: str | None) -> bytes | None:
    """The id in a request's header. Raises InvalidArgument."""
    if text is None:
        return None
    if not 0 < len(text) <= _ID_MAX or not text.isascii() or not text.isprintable():
        raise InvalidArgument(f"a request's id has 1 to {_ID_MAX} printable ASCII characters")
    return text.encode()


def find_remembered(txn: ReadTxn, request_id: bytes) -> Remembered | None:
    """What is known of the request that was done under this id."""
    data = txn.get(keys.request(request_id))
    return None if data is None else _decode(data)


def find_done(txn: ReadTxn, request_id: bytes) -> Done | None:
    """What this request came to when it was done before."""
    found = find_remembered(txn, request_id)
    return None if found is None else found.done


def once(
    request_id: bytes | None, fn: Callable[[Txn], Done], stamp: Callable[[], int], earlier: Sequence[bytes] = ()
) -> Callable[[Txn], Outcome]:
    """`fn`, unless this request was done before: then what it came to. Without an id it is done each time. `stamp`
    gives those of runtime.stamps. `earlier`: ids under which it was asked for before, and is not any more."""

    def run(txn: Txn) -> Outcome:
        if request_id is None:
            return Outcome(fn(txn), False)
        if (before := find_done(txn, request_id)) is not None:
            return Outcome(before, True)
        before = next((done for one in earlier if (done := find_done(txn, one)) is not None), None)
        done = fn(txn) if before is None else before
        _remember(txn, request_id, _encode(done), stamp())
        return Outcome(done, before is not None)

    return run


def once_as_asked(
    request: IdentifiedRequest, fn: Callable[[Txn], Done], stamp: Callable[[], int]
) -> Callable[[Txn], Outcome]:
    """The same for a request whose sender chose the id: in the transaction RequestIdReused is raised, and nothing is
    done, where the id was another request's."""

    def run(txn: Txn) -> Outcome:
        if (before := find_remembered(txn, request.id)) is not None:
            request.check(before.asked)
            return Outcome(before.done, True)
        done = fn(txn)
        kept = Remembered(*done, request.asked) if records.get_level(txn) >= LEVELS.level else done
        _remember(txn, request.id, _encode(kept), stamp())
        return Outcome(done, False)

    return run


def _remember(txn: Txn, request_id: bytes, record: bytes, stamp: int) -> None:
    txn.put(keys.request(request_id), record)
    records.put_state(txn, keys.request_time(stamp, request_id))


def expire(txn: Txn, limit: int, horizon: int) -> int:
    """Forget up to `limit` requests whose stamps are at most `horizon`; how many."""
    expired = 0
    for key, _ in txn.scan(keys.REQUEST_TIMES, keys.request_time(horizon + 1, b"")):
        if expired == limit:
            break
        txn.delete(key)
        txn.delete(keys.request(keys.request_of(key)))
        expired += 1
    return expired


def last_stamp(txn: ReadTxn, since: int) -> int:
    """The greatest stamp of a remembered request, or `since` where that is greater."""
    last = since
    for key, _ in txn.scan(keys.request_time(since, b""), prefix_end(keys.REQUEST_TIMES)):
        last = keys.request_stamp(key)
    return last
