"""Files opened for writing: what failed stops what comes behind it, and the file is as it was."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator

import pytest

from dfslib.client.file_objects import SPOOL_MEMORY_BYTES
from dfslib.client.namenode import HttpNameNode
from tests.unit.client.fake_cluster import FakeCluster
from tests.unit.client.fake_time import Connect


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process can grow beyond a mebibyte: the kernel answers EFBIG."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("mode", ["w", "a", "wb", "ab"])
@pytest.mark.usefixtures("small_disk")
def test_a_write_that_failed_ends_the_file(dfs: HttpNameNode, cluster: FakeCluster, mode: str) -> None:
    cluster.put("/f", b"old")
    file = dfs.open("/f", mode)
    piece = bytes(SPOOL_MEMORY_BYTES + 1) if "b" in mode else "x" * (SPOOL_MEMORY_BYTES + 1)
    with pytest.raises(OSError) as first:
        file.write(piece)
        file.flush()
    assert first.value.errno == errno.EFBIG
    for call in (lambda: file.write(piece[:1]) and file.flush(), file.flush, file.truncate, file.close):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EFBIG
    assert file.closed
    file.close()
    assert cluster.data[b"f"] == b"old"


@pytest.mark.usefixtures("small_disk")
def test_an_error_that_was_passed_over_inside_with_is_raised_at_its_end(
    dfs: HttpNameNode, cluster: FakeCluster
) -> None:
    cluster.put("/f", b"old")
    with pytest.raises(OSError) as caught, dfs.open("/f", "wb") as file:
        for _ in range(3):
            try:
                file.write(bytes(SPOOL_MEMORY_BYTES))
            except OSError:
                continue
    assert caught.value.errno == errno.EFBIG
    assert cluster.data[b"f"] == b"old"


def test_an_argument_that_was_refused_ends_nothing(dfs: HttpNameNode, cluster: FakeCluster) -> None:
    with dfs.open("/f", "wb") as file:
        file.write(b"a")
        for wrong in ("text", 5):
            with pytest.raises(TypeError):
                file.write(wrong)  # type: ignore[call-overload]
        file.write(b"b")
    assert cluster.data[b"f"] == b"ab"


@pytest.mark.parametrize("mode", ["w", "a"])
def test_a_namenode_that_is_gone_at_close_is_an_error_of_close(
    cluster: FakeCluster, connect: Connect, mode: str
) -> None:
    cluster.put("/f", b"old")
    file = connect(cluster.namenode.url).open("/f", mode)
    file.write("new")
    cluster.namenode.close()
    with pytest.raises(ConnectionError):
        file.close()
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.write("more")
    assert cluster.data[b"f"] == b"old"
