"""Reads and writes for `python -`, until LOAD_STOP (/tmp/stop) is there; prints what failed, and what is there then.

Arguments: the namenode's URL, and `plain` for GETs without any repetition, as curl -L makes them; or a directory of a
mount, which must be empty. Each file says which version of it was written; a reader never sees an older one than was
acknowledged, nor a mixture.
"""

import hashlib
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

TARGET, PLAIN = sys.argv[1], "plain" in sys.argv[2:]
PAUSE_S = float(os.environ.get("LOAD_PAUSE", "0"))
PATIENCE_S = float(os.environ.get("LOAD_PATIENCE", "180"))
"""How long one call may take, on a machine that has too much to do: it is not to fail, that is all."""
BEGAN = time.monotonic()
SIZE = 300_000
SMALL_FILES = 100
BIG_SIZE, BIG_WRITE = 8 << 20, 200_000
COLD_FILES, COLD_SIZE = 6, 4 << 20
"""More together than a mount with `-o cache=16` keeps: datanodes are asked all the while."""
STOP = Path(os.environ.get("LOAD_STOP", "/tmp/stop"))
counts: Counter[str] = Counter()
failures: list[str] = []
digests: dict[str, str] = {}
"""Of the files on a mount, as they are when this ends."""


def content(version: int) -> bytes:
    return random.Random(version).randbytes(SIZE) + version.to_bytes(8, "big")


def check(data: bytes, at_least: int) -> None:
    version = int.from_bytes(data[-8:], "big")
    if version < at_least or data != content(version):
        failures.append(f"read version {version} of {len(data)} bytes after {at_least} was acknowledged")


def expect(right: bool, what: str) -> None:
    if not right:
        failures.append(f"{what} is not what was written, at {time.monotonic() - BEGAN:.1f} s")


def digest(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


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
    with HttpNameNode(TARGET, timeout_s=PATIENCE_S) as dfs:
        for version in rounds():
            dfs.tee(path, content(version))
            counts["writes"] += 1
            check(dfs.cat(path), version)
            counts["reads"] += 1


def get_plainly() -> None:
    for _ in rounds():
        with urllib.request.urlopen(f"{TARGET}fs/fixed", timeout=PATIENCE_S) as answer:
            check(answer.read(), 7)
        counts["plain"] += 1


def save_files(top: Path) -> None:
    """As editors save: under another name, every third one with fsync, then renamed over the one before."""
    known: dict[str, str] = {}
    log = os.open(top / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    lines = b""
    for number in rounds():
        name = f"f{number % SMALL_FILES}"
        data = b"%d " % number * 2000
        with (top / "new").open("wb") as file:
            file.write(data)
            if number % 3 == 0:
                file.flush()
                os.fsync(file.fileno())
        (top / "new").rename(top / name)
        known[name] = digest(data)
        line = b"%07d\n" % number
        os.write(log, line)
        lines += line
        if number % 5 == 0:
            os.fsync(log)
        other = random.choice(list(known))
        expect(digest((top / other).read_bytes()) == known[other], other)
        expect(set(os.listdir(top)) == {*known, "log"}, "the directory")  # noqa: PTH208 names
        counts["saved"] += 1
    os.close(log)
    digests.update({f"{top.name}/{name}": known[name] for name in known} | {f"{top.name}/log": digest(lines)})


def write_in_place(path: Path) -> None:
    """As databases write: somewhere in a file that stays open, fsync, and read somewhere else."""
    data = bytearray(random.randbytes(BIG_SIZE))
    path.write_bytes(data)
    file = os.open(path, os.O_RDWR)
    for _ in rounds():
        at = random.randrange(BIG_SIZE - BIG_WRITE)
        data[at : at + BIG_WRITE] = piece = random.randbytes(BIG_WRITE)
        expect(os.pwrite(file, piece, at) == BIG_WRITE, "the length of a write")
        os.fsync(file)
        at = random.randrange(BIG_SIZE - BIG_WRITE)
        expect(os.pread(file, BIG_WRITE, at) == data[at : at + BIG_WRITE], "a part of the big file")
        counts["written in place"] += 1
    os.close(file)
    digests[path.name] = digest(data)


def read_cold(top: Path) -> None:
    """Files that are in no cache."""
    for number in range(COLD_FILES):
        data = random.randbytes(COLD_SIZE)
        (top / str(number)).write_bytes(data)
        digests[f"{top.name}/{number}"] = digest(data)
    for number in rounds():
        name = str(number % COLD_FILES)
        with (top / name).open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            expect(digest(file.read()) == digests[f"{top.name}/{name}"], name)
        counts["read cold"] += 1


def guarded(work: Callable[..., None], *arguments: object) -> None:
    try:
        work(*arguments)
    except Exception as error:  # noqa: BLE001 whatever it is, it is what this looks for
        failures.append(f"{work.__name__} at {time.monotonic() - BEGAN:.1f} s: {error!r}")


def work_on_mount(top: Path) -> list[threading.Thread]:
    for name in ("saved", "cold"):
        (top / name).mkdir()
    jobs = ((save_files, top / "saved"), (write_in_place, top / "big"), (read_cold, top / "cold"))
    return [threading.Thread(target=guarded, args=job) for job in jobs]


def work_over_http() -> list[threading.Thread]:
    with HttpNameNode(TARGET, timeout_s=PATIENCE_S) as first:
        first.tee("/fixed", content(7))
    threads = [threading.Thread(target=guarded, args=(write_and_read, number)) for number in range(2)]
    return threads + ([threading.Thread(target=guarded, args=(get_plainly,))] if PLAIN else [])


threads = work_over_http() if TARGET.startswith("http:") else work_on_mount(Path(TARGET))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"counts": counts, "failures": failures, "digests": digests}))
