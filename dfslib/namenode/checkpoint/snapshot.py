"""All of the metadata at one commit, written to a file as a checkpoint. For a thread or a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from dfslib.namenode.checkpoint.format import RUNS_KEPT, Encoder, Header, Record
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn
from dfslib.namenode.metadata.lineage import lineage_of, runs_of
from dfslib.namenode.namespace import records
from dfslib.runtime.durable_files import sync_directory

_FRAME_RECORDS: Final = 1000
"""Of some 200 bytes each."""


def write_snapshot(txn: ReadTxn, about: Header, path: Path) -> Header:
    """Durable when it returns, its name too; the header is `about` with the snapshot's number, level and history. A
    file that was begun and could not be ended is deleted. Raises OSError, InputOutput where the store's history cannot
    be read."""
    level, head, runs = records.get_level(txn), lineage_of(txn), runs_of(txn)[-RUNS_KEPT:]
    header = replace(about, first=0, last=txn.number, level=level, head=head, runs=runs)
    try:
        with path.open("wb") as file:
            for piece in _encoded(txn, header):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return header


def _encoded(txn: ReadTxn, header: Header) -> Iterator[bytes]:
    encoder = Encoder()
    yield encoder.header(header)
    batch: list[Record] = []
    for key, value in txn.scan(b"", b"\xff" * KEY_MAX):
        batch.append((bytes(key), bytes(value)))
        if len(batch) == _FRAME_RECORDS:
            yield encoder.records(batch)
            batch = []
    yield encoder.records(batch)
    yield encoder.end()
