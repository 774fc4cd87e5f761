"""The records of a store's history, and what all of its keys add up to: written with each commit, in its transaction.

The digest is the sum of a hash of every key with its value, but for the two keys of this module. It is kept by adding
and subtracting what a commit changes, so that one scan tells whether a store is what its commits made it.

A release that keeps no such records goes on without them. Then they end at another number than the store does, and are
begun anew.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from dfslib.errors import InputOutput
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn, Writes
from dfslib.namenode.metadata.history import UNKNOWN_RUN, History, Lineage, Run
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.metadata")

LINEAGE: Final = b"sklineage"
RUNS: Final = b"skruns"
OWN_KEYS: Final = frozenset({LINEAGE, RUNS})
"""The engine writes them, nobody else; they are no part of the digest."""

RUN_BYTES: Final = 8
HASH_BYTES: Final = 16
RUNS_MAX: Final = 1000
"""Starts that are remembered: 30 KB, written once a start."""
_DIGESTS: Final = 1 << 8 * HASH_BYTES
_NUMBER_BYTES: Final = 8
_SCAN_STEP: Final = 10_000
"""Keys between two rests of a scan: some 20 ms."""


class Step(NamedTuple):
    """What a commit makes of a history, and the records that say so."""

    history: History
    records: dict[bytes, bytes]


_encode = msgspec.msgpack.Encoder().encode
_decode_lineage = msgspec.msgpack.Decoder(Lineage).decode
_decode_runs = msgspec.msgpack.Decoder(tuple[Run, ...]).decode


def decode_lineage(data: bytes) -> Lineage:
    """Of a LINEAGE key's value. Raises InputOutput."""
    try:
        return _decode_lineage(data)
    except msgspec.MsgspecError as error:
        raise InputOutput(f"the metadata's lineage cannot be read: {error}") from None


def lineage_of(txn: ReadTxn) -> Lineage | None:
    """The last commit that a snapshot has; None where a release without these records made it. Raises InputOutput."""
    data = txn.get(LINEAGE)
    found = None if data is None else decode_lineage(data)
    return found if found is not None and found.number == txn.number else None


def runs_of(txn: ReadTxn) -> tuple[Run, ...]:
    """The runs that a snapshot has commits of. Raises InputOutput."""
    data = txn.get(RUNS)
    return () if data is None else decode_runs(data)


def decode_runs(data: bytes) -> tuple[Run, ...]:
    """Of a RUNS key's value. Raises InputOutput."""
    try:
        return _decode_runs(data)
    except msgspec.MsgspecError as error:
        raise InputOutput(f"the metadata's runs cannot be read: {error}") from None


class Digest:
    """What keys with their values add up to, in whatever order they come and go."""

    def __init__(self, value: bytes = bytes(HASH_BYTES)) -> None:
        self._total = _number_of(value)

    def change(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """A key's value was `old` and is `new`; None where there is none. This module's own keys do not count."""
        if key in OWN_KEYS:
            return
        if old is not None:
            self._total -= _number_of(_hash(key, old))
        if new is not None:
            self._total += _number_of(_hash(key, new))

    def add(self, other: bytes) -> None:
        """What other keys add up to."""
        self._total += _number_of(other)

    @property
    def value(self) -> bytes:
        return _digest_of(self._total)


def scan_digest(txn: ReadTxn, rest: Callable[[], object] = lambda: None) -> bytes:
    """What all keys of a store add up to: equal to `lineage_of(txn).digest` unless something has damaged it. Two
    seconds for a million keys. `rest` is called every some 20 ms; what it raises ends the scan."""
    digest = Digest()
    for count, (key, value) in enumerate(txn.scan(b"", b"\xff" * KEY_MAX), 1):
        digest.change(key, None, value)
        if count % _SCAN_STEP == 0:
            rest()
    return digest.value


def _hash(key: bytes, value: bytes) -> bytes:
    return blake2b(b"%d:%b%b" % (len(key), key, value), digest_size=HASH_BYTES).digest()


def _number_of(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


def _digest_of(total: int) -> bytes:
    return (total % _DIGESTS).to_bytes(HASH_BYTES, "little")


class Recorder:
    """The history of one open store. For the thread that commits; `history` may be read from any."""

    def __init__(
        self, history: History, run: bytes, wall_ns: Callable[[], int], record: bytes | None = None
    ) -> None:
        """`record` is what LINEAGE is in the store."""
        self.history = history
        self._run = run
        self._wall_ns = wall_ns
        self._record = record

    @classmethod
    def load(
        cls,
        txn: ReadTxn,
        *,
        new_run: Callable[[], bytes] = lambda: secrets.token_bytes(RUN_BYTES),
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> Recorder:
        """A new run of the store. Reads all of it where its records do not end where it does. Raises InputOutput where
        they cannot be read."""
        head = lineage_of(txn)
        runs = runs_of(txn)
        data = txn.get(LINEAGE)
        if head is None:
            head, runs = _begun_anew(txn, None if data is None else decode_lineage(data), runs)
        return cls(History(head, runs), new_run(), wall_ns, data)

    @property
    def run(self) -> bytes:
        """This run's id; it is in the history from its first commit on."""
        return self._run

    def agrees(self, txn: ReadTxn) -> bool:
        """Whether a transaction goes on from the last commit that is known here; else somebody has put another store in
        the place of the one that is open."""
        data = txn.get(LINEAGE)
        return data == self._record and txn.number == self.history.head.number + 1

    def step(self, number: int, written: Writes, before: Writes) -> Step:
        """What this commit makes of the history; `before` has the keys' values before it. The records are to be
        written in its transaction, and the history is `adopted` once that is durable."""
        head, runs = self.history
        records: dict[bytes, bytes] = {}
        if not runs or runs[-1].id != self._run:
            runs = (*runs, Run(self._run, number, head.chain))[-RUNS_MAX:]
            records[RUNS] = _encode(runs)
        total = _number_of(head.digest)
        parts = [head.chain, number.to_bytes(_NUMBER_BYTES, "big")]
        for key, new in written.items():
            old = before[key]
            if old is not None:
                total -= _number_of(_hash(key, old))
            if new is None:
                parts.append(b"-" + _hash(key, b""))
            else:
                digest = _hash(key, new)
                total += _number_of(digest)
                parts.append(b"+" + digest)
        chain = blake2b(b"".join(parts), digest_size=HASH_BYTES).digest()
        after = Lineage(self._run, number, chain, _digest_of(total), self._wall_ns())
        records[LINEAGE] = _encode(after)
        return Step(History(after, runs), records)

    def adopted(self, step: Step) -> None:
        """The commit is durable."""
        self.history = step.history
        self._record = step.records[LINEAGE]


def _begun_anew(txn: ReadTxn, last: Lineage | None, runs: tuple[Run, ...]) -> tuple[Lineage, tuple[Run, ...]]:
    """For a store that was changed without these records, or never had them: its commits behind `last`, the last one
    that was recorded, are of an unknown run."""
    number = txn.number
    if number == 0:
        return Lineage(UNKNOWN_RUN, 0, bytes(HASH_BYTES), bytes(HASH_BYTES), 0), ()
    recorded = last.number if last is not None else 0
    log.warning(event("lineage of the metadata begins", commits=number, recorded=recorded, action="reading all keys"))
    digest = scan_digest(txn)
    if last is None or recorded > number:  # its numbers began anew, too: LMDB's compacting copy does that
        runs = (Run(UNKNOWN_RUN, 1, b""),)
    else:
        runs = (*runs, Run(UNKNOWN_RUN, recorded + 1, last.chain))
    chain = blake2b(digest, digest_size=HASH_BYTES).digest()
    return Lineage(UNKNOWN_RUN, number, chain, digest, 0), runs

