"""What a disk answers to a writer, as errors of DFS."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from dfslib.errors import InputOutput, NoSpace


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Raises NoSpace or InputOutput for an OSError of the body."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace("the datanode's disk is full") from error
        raise InputOutput(f"the datanode's disk failed: {error}") from error
