"""The process that checks a store, so that a damage that ends whoever reads it ends this one.

Its standard input begins with an `Order`, and is held open by the process that started it: it ends when that one does,
however that came. What it has to say are lines of JSON on its standard output.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Final

import msgspec

from dfslib.namenode.checkpoint.format import Header
from dfslib.namenode.verification.store_check import Verdict, check_store, look_at_store

_NICE: Final = 10
"""Requests come first."""
_READ_BYTES: Final = 1 << 16


class Order(msgspec.Struct, frozen=True):
    """What is to be checked; not `whole`: what is read to open it. `checkpoint` is where a file of it is to be made,
    about which `header` tells; `in_turn`: others are served meanwhile, and come first."""

    folder: str
    whole: bool
    at_rest: bool
    in_turn: bool
    checkpoint: str = ""
    header: Header | None = None


class Progress(msgspec.Struct, frozen=True, tag=True):
    """So many keys were read."""

    keys: int


class Done(msgspec.Struct, frozen=True, tag=True):
    verdict: Verdict


class Refused(msgspec.Struct, frozen=True, tag=True):
    """It could not be found out: the disk takes no checkpoint, for example."""

    reason: str


Line = Progress | Done | Refused


def main() -> None:
    order = msgspec.json.decode(_read_line(), type=Order)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    if order.in_turn:
        with contextlib.suppress(OSError):
            os.nice(_NICE)
    try:
        checkpoint = (order.header, Path(order.checkpoint)) if order.header is not None else None
        folder = Path(order.folder)
        if order.whole:
            verdict = check_store(folder, _tell_keys, at_rest=order.at_rest, checkpoint=checkpoint)
        else:
            verdict = look_at_store(folder)
    except OSError as error:
        _tell(Refused(str(error)))
    else:
        _tell(Done(verdict))


def _read_line() -> bytes:
    """Past Python's own buffer, whose lock the thread below would hold when this process ends."""
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(0, _READ_BYTES)):
        line += piece
    return line


def _tell_keys(keys: int) -> None:
    _tell(Progress(keys))


def _tell(line: Line) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_the_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
