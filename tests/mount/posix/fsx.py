"""Random operations on one file, compared with a model in memory: python fsx.py FILE SEED OPERATIONS [MIRROR]

With a MIRROR, the file's path on another mount, the content is also read from there after each fsync or close.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import random
import sys

LARGEST = 1 << 20
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
LIBC = ctypes.CDLL(None, use_errno=True)


class Exerciser:
    def __init__(self, path: str, seed: int, mirror: str | None) -> None:
        self.path = path
        self.mirror = mirror
        self.random = random.Random(seed)
        self.model = bytearray()
        self.log: list[str] = []
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)

    def run(self, count: int) -> None:
        operations = [
            self.write, self.write, self.write, self.read, self.read, self.append, self.truncate, self.map_write,
            self.map_read, self.punch, self.zero, self.copy, self.reopen, self.fsync, self.second_handle,
            self.extend, self.seek_data, self.stat,
        ]  # fmt: skip
        for number in range(count):
            operation = self.random.choice(operations)
            self.log.append(f"{number} {operation.__name__}")
            operation()
        self.fsync()
        self.compare_whole()

    def note(self, *values: object) -> None:
        self.log[-1] += f" {values}"

    def span(self) -> tuple[int, int]:
        start = self.random.randrange(LARGEST)
        length = self.random.choice([1, 7, 511, 4096, 5000, 65536, self.random.randrange(1, 200_000)])
        if self.random.random() < 0.5:
            start = start // 4096 * 4096
        return start, min(LARGEST, start + length)

    def put(self, start: int, data: bytes) -> None:
        if len(self.model) < start:
            self.model += bytes(start - len(self.model))
        self.model[start : start + len(data)] = data

    def write(self) -> None:
        start, end = self.span()
        self.note(start, end)
        data = self.random.randbytes(end - start)
        assert os.pwrite(self.file, data, start) == len(data)
        self.put(start, data)

    def append(self) -> None:
        if len(self.model) > LARGEST * 2:
            return
        data = self.random.randbytes(self.random.choice([1, 100, 4096, 70_000]))
        self.note(len(data))
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        assert os.write(file, data) == len(data)
        os.close(file)
        self.model += data

    def read(self) -> None:
        start, end = self.span()
        self.note(start, end)
        assert os.pread(self.file, end - start, start) == self.model[start:end]

    def truncate(self) -> None:
        size = self.random.randrange(LARGEST) if self.random.random() < 0.8 else 0
        self.note(size)
        if self.random.random() < 0.5:
            os.ftruncate(self.file, size)
        else:
            os.truncate(self.path, size)
        del self.model[size:]
        self.model += bytes(size - len(self.model))

    def map_write(self) -> None:
        if not self.model:
            return
        start = self.random.randrange(len(self.model))
        data = self.random.randbytes(min(self.random.randrange(1, 9000), len(self.model) - start))
        self.note(start, len(data))
        with mmap.mmap(self.file, len(self.model)) as view:
            view[start : start + len(data)] = data
            if self.random.random() < 0.5:
                view.flush()
        self.model[start : start + len(data)] = data

    def map_read(self) -> None:
        if not self.model:
            return
        start = self.random.randrange(len(self.model))
        with mmap.mmap(self.file, len(self.model), prot=mmap.PROT_READ) as view:
            assert view[start : start + 9000] == self.model[start : start + 9000]

    def fallocate(self, mode: int, start: int, length: int) -> None:
        done = LIBC.fallocate(self.file, mode, ctypes.c_int64(start), ctypes.c_int64(length))
        if done:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def punch(self) -> None:
        start, end = self.span()
        self.note(start, end)
        self.fallocate(PUNCH_HOLE | KEEP_SIZE, start, end - start)
        end = min(end, len(self.model))
        if start < end:
            self.model[start:end] = bytes(end - start)

    def zero(self) -> None:
        start, end = self.span()
        self.note(start, end)
        self.fallocate(ZERO_RANGE, start, end - start)
        self.put(start, bytes(end - start))

    def extend(self) -> None:
        start, end = self.span()
        self.note(start, end)
        self.fallocate(0, start, end - start)
        self.model += bytes(max(0, end - len(self.model)))

    def copy(self) -> None:
        start, end = self.span()
        target = self.random.randrange(LARGEST)
        length = min(end, len(self.model)) - start
        if length <= 0 or abs(target - start) < length:
            return
        self.note(start, target, length)
        done = 0
        while done < length:
            done += os.copy_file_range(self.file, self.file, length - done, start + done, target + done)
        self.put(target, bytes(self.model[start : start + length]))

    def reopen(self) -> None:
        os.close(self.file)
        self.look_in_mirror()
        self.file = os.open(self.path, os.O_RDWR)
        if self.random.random() < 0.2:
            self.compare_whole()

    def second_handle(self) -> None:
        start, end = self.span()
        self.note(start, end)
        data = self.random.randbytes(end - start)
        file = os.open(self.path, os.O_RDWR)
        assert os.pwrite(file, data, start) == len(data)
        self.put(start, data)
        assert os.pread(self.file, 100, start) == self.model[start : start + 100]
        os.close(file)

    def fsync(self) -> None:
        os.fsync(self.file)
        self.look_in_mirror()

    def look_in_mirror(self) -> None:
        if self.mirror is not None and self.random.random() < 0.3:
            with open(self.mirror, "rb", buffering=0) as file:
                found = file.read(len(self.model) + 1)
                while more := file.read(1 << 20):
                    found += more
            self.check(found, self.model, "on the other mount")

    def seek_data(self) -> None:
        start = self.random.randrange(LARGEST)
        try:
            data = os.lseek(self.file, start, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO
            assert not any(self.model[start:])
            return
        assert not any(self.model[start:data])
        hole = os.lseek(self.file, data, os.SEEK_HOLE)
        assert data < hole <= len(self.model)

    def stat(self) -> None:
        assert os.fstat(self.file).st_size == os.stat(self.path).st_size == len(self.model)

    def compare_whole(self) -> None:
        with open(self.path, "rb", buffering=0) as file:
            found = b"".join(iter(lambda: file.read(1 << 20), b""))
        self.check(found, self.model, "read as a whole")

    def check(self, found: bytes, wanted: bytearray, what: str) -> None:
        if found != wanted:
            both = enumerate(zip(found, wanted, strict=False))
            at = next((i for i, (a, b) in both if a != b), min(len(found), len(wanted)))
            raise AssertionError(f"{what}: differs at {at}, sizes {len(found)} and {len(wanted)}")


def main() -> None:
    path, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    exerciser = Exerciser(path, seed, sys.argv[4] if len(sys.argv) > 4 else None)
    try:
        exerciser.run(count)
    except BaseException:
        print("\n".join(exerciser.log[-25:]))
        print(f"seed {seed}, after {len(exerciser.log)} operations")
        raise


if __name__ == "__main__":
    main()
