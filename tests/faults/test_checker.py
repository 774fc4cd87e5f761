"""The checker finds what it is there to find: histories that no sound cluster can have."""

from __future__ import annotations

import errno
import io

import pytest

from tests.faults.checker import Client, File, Violation


class Broken:
    """Stands in for HttpNameNode: a file system in a dict that loses, mixes or doubles on demand."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fault = ""

    def mkdir(self, path: str, parents: bool) -> None:
        pass

    def tee(self, path: str, data: bytes) -> None:
        if self.fault == "unknown":
            raise ConnectionError("who knows")
        if self.fault == "refused":
            raise OSError(errno.EINVAL, "no")
        if self.fault != "lost write":
            self.files[path] = data
        if self.fault == "mixed":
            self.files[path] = data[:-1] + b"?"

    def append(self, path: str, data: bytes) -> None:
        self.files[path] += data * (2 if self.fault == "doubled" else 1)

    def rm(self, path: str) -> None:
        if self.fault != "returned":
            del self.files[path]

    def truncate(self, path: str, size: int) -> None:
        self.files[path] = self.files[path][:size].ljust(size, b"\0")

    def mv(self, src: str, dst: str) -> None:
        self.files[dst] = self.files.pop(src)

    def cp(self, src: str, dst: str) -> None:
        self.files[dst] = self.files[src]

    def cat(self, path: str) -> bytes:
        try:
            return io.BytesIO(self.files[path]).read()
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "gone", path) from None

    def close(self) -> None:
        pass


def client_of(broken: Broken, seed: int) -> Client:
    return Client(1, broken, seed)


@pytest.mark.parametrize("seed", range(5))
def test_a_sound_file_system_passes(seed: int) -> None:
    client = client_of(Broken(), seed)
    for _ in range(300):
        client.step()
    assert client.counts["read"] > 30
    assert client.counts["put"] > 30


@pytest.mark.parametrize("fault", ["lost write", "mixed", "doubled", "returned", "refused"])
def test_a_broken_one_does_not(fault: str) -> None:
    broken = Broken()
    client = client_of(broken, 1)
    for _ in range(30):
        client.step()
    broken.fault = fault
    with pytest.raises(Violation):
        for _ in range(500):
            client.step()


def test_what_nobody_knows_may_be_either() -> None:
    file = File()
    file.acknowledged({b"old"})
    file.unknown({b"new"})
    file.check("/f", b"old", "now")
    file.check("/f", b"new", "now")
    for wrong in (None, b"ne", b"oldnew"):
        with pytest.raises(Violation):
            file.check("/f", wrong, "now")
    assert not file.settled


def test_unknown_outcomes_are_survived() -> None:
    broken = Broken()
    client = client_of(broken, 2)
    for number in range(400):
        broken.fault = "unknown" if number % 7 == 0 else ""
        client.step()
    assert client.counts["put unknown"] > 3
