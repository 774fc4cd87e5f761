"""The bar of a transfer, on a terminal only: bytes, rate and the time that is left."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Final

from dfslib.cli.session import Session
from dfslib.client.parallel import Progress

_REDRAW_S: Final = 0.1


@contextlib.contextmanager
def progress_bar(session: Session, what: str) -> Iterator[Progress | None]:
    """A callback that moves the bar, or None where standard error is no terminal.

    While it is shown, the session's errors appear above it.
    """
    if not sys.stderr.isatty():
        yield None
        return
    # imported here: it takes as long to load as a small command takes to run
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    drawn = 0.0
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int, _path: str) -> None:
            nonlocal drawn
            now = time.monotonic()
            if now - drawn >= _REDRAW_S or done == total:
                drawn = now
                bar.update(task, completed=done, total=total)

        before = session.write_error
        session.write_error = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
        try:
            yield show
        finally:
            session.write_error = before
