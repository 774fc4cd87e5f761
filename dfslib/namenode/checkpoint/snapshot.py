"""All of the metadata at one commit, written to a file as a checkpoint. For a thread of its own."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from dfslib.namenode.checkpoint.cluster import Cluster
from dfslib.namenode.checkpoint.format import Encoder, Header, Record
from dfslib.namenode.metadata.engine import KEY_MAX, ReadTxn

_FRAME_RECORDS: Final = 1000
"""Of some 200 bytes each: a frame takes about two milliseconds, for which the event loop's thread waits."""


def write_snapshot(txn: ReadTxn, cluster: Cluster, path: Path, rest: float) -> Header:
    """Durable when it returns. For each unit of time that is worked, `rest` are rested, so that requests, which
    share the interpreter's lock, come first."""
    header = Header("checkpoint", cluster.id, cluster.epoch, 0, txn.number, time.time_ns())
    with path.open("wb") as file:
        encoder = Encoder()
        file.write(encoder.header(header))
        batch: list[Record] = []
        began = time.perf_counter()
        for key, value in txn.scan(b"", b"\xff" * KEY_MAX):
            batch.append((bytes(key), bytes(value)))
            if len(batch) == _FRAME_RECORDS:
                file.write(encoder.records(batch))
                batch = []
                if rest:
                    time.sleep(rest * (time.perf_counter() - began))  # a pace: nothing is waited for
                    began = time.perf_counter()
        file.write(encoder.records(batch))
        file.write(encoder.end())
        file.flush()
        os.fsync(file.fileno())
    return header
