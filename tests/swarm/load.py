"""Reads and writes for `python -` in a container, until LOAD_STOP (/tmp/stop) is there; prints what failed.

Arguments: the namenode's URL, and `plain` for GETs without any repetition, as curl -L makes them. Each file says which
version of it was written; a reader never sees an older one than was acknowledged, nor a mixture.
"""

import json
import os
import random
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from http_client import HttpNameNode

URL, PLAIN = sys.argv[1], "plain" in sys.argv[2:]
PAUSE_S = float(os.environ.get("LOAD_PAUSE", "0"))
BEGAN = time.monotonic()
SIZE = 300_000
STOP = Path(os.environ.get("LOAD_STOP", "/tmp/stop"))
counts: Counter[str] = Counter()
failures: list[str] = []


def content(version: int) -> bytes:
    return random.Random(version).randbytes(SIZE) + version.to_bytes(8, "big")


def check(data: bytes, at_least: int) -> None:
    version = int.from_bytes(data[-8:], "big")
    if version < at_least or data != content(version):
        failures.append(f"read version {version} of {len(data)} bytes after {at_least} was acknowledged")


def rounds() -> Iterator[int]:
    """The last one begins when it is known that this is to stop: what went on meanwhile goes on at the end, too."""
    for number in count(1):
        last = STOP.exists()
        yield number
        if number == 1:
            print("running", flush=True)
        if last:
            return
        time.sleep(PAUSE_S)


def write_and_read(number: int) -> None:
    path = f"/load{number}"
    with HttpNameNode(URL) as dfs:
        for version in rounds():
            dfs.tee(path, content(version))
            counts["writes"] += 1
            check(dfs.cat(path), version)
            counts["reads"] += 1


def get_plainly() -> None:
    for _ in rounds():
        with urllib.request.urlopen(f"{URL}fs/fixed", timeout=30) as answer:
            check(answer.read(), 7)
        counts["plain"] += 1


def guarded(work: Callable[..., None], *arguments: int) -> None:
    try:
        work(*arguments)
    except Exception as error:  # noqa: BLE001 whatever it is, it is what this looks for
        failures.append(f"{work.__name__} at {time.monotonic() - BEGAN:.1f} s: {error!r}")


with HttpNameNode(URL) as first:
    first.tee("/fixed", content(7))
threads = [threading.Thread(target=guarded, args=(write_and_read, number)) for number in range(2)]
threads += [threading.Thread(target=guarded, args=(get_plainly,))] if PLAIN else []
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"counts": counts, "failures": failures}))
