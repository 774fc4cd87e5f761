"""Several transfers at once, the count of their bytes, and how they are stopped together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Final

Task = Callable[[], None]
Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, path) of the whole call, after each piece, by one thread at a time."""

_JOIN_S: Final = 2.0
"""What a worker has to notice a stop. One that waits for a dead server is left behind: it is a daemon."""


class Stopped(Exception):
    """The user, or an error elsewhere, ended all transfers. Not an error of this one."""


class Tally:
    """Counts bytes for `progress`, and carries the order to stop into every transfer."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._done = 0
        self._total = 0
        self._stop = threading.Event()

    def expect(self, count: int) -> None:
        """`count` more bytes are to come, or fewer where negative."""
        with self._lock:
            self._total += count

    def add(self, count: int, path: str) -> None:
        """`count` bytes of `path` are done; negative where they start over. Raises Stopped."""
        self.check()
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total, path)

    def check(self) -> None:
        """Raise Stopped where that was ordered."""
        if self._stop.is_set():
            raise Stopped

    def stop(self) -> None:
        self._stop.set()


def run_all(tasks: Iterable[Task], jobs: int, tally: Tally) -> None:
    """Run `tasks` in `jobs` threads. Raises the first exception of any, when the others have stopped.

    An exception in this thread (KeyboardInterrupt) stops them as well.
    """
    todo: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
    failures: list[BaseException] = []
    count = 0
    for task in tasks:
        todo.put(task)
        count += 1
    # Not Thread.join: one that KeyboardInterrupt ends takes a thread that still runs for stopped (Python 3.11).
    ended = threading.Semaphore(0)
    started = 0
    for _ in range(min(jobs, count)):
        todo.put(None)
    try:
        for _ in range(min(jobs, count)):
            threading.Thread(target=_work, args=(todo, failures, tally, ended), daemon=True).start()
            started += 1
        while started:
            ended.acquire()
            started -= 1
    except BaseException:
        tally.stop()
        for _ in range(started):
            ended.acquire(timeout=_JOIN_S)
        raise
    if failures:
        raise failures[0]


def _work(
    todo: queue.SimpleQueue[Task | None],
    failures: list[BaseException],
    tally: Tally,
    ended: threading.Semaphore,
) -> None:
    try:
        while (task := todo.get()) is not None:
            tally.check()
            task()
    except Stopped:
        pass
    except BaseException as error:  # noqa: BLE001  run_all raises it in the caller's thread
        failures.append(error)
        tally.stop()
    finally:
        ended.release()
