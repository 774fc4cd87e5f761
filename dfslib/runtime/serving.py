"""Runs one node: its application on a socket, until SIGTERM or SIGINT, then a graceful stop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from aiohttp import web

from dfslib.runtime.logs import event
from dfslib.wire import routes

log = logging.getLogger("dfs.server")

READ_BUFFER_BYTES = 1 << 20
"""How much of a body may wait in memory; at aiohttp's 64 KiB a fast upload stops and starts all the time."""
_BACKLOG = 1024


class StartAgain(Exception):
    """Raised by `run_while_serving`: the process is to stop as at SIGTERM, and then to begin anew."""


class Node(Protocol):
    """What `DFS_NODE_CLASS` names. All but `from_env` and `app` may be left out."""

    event_loop: ClassVar[str]
    """`uvloop`, or `asyncio` (the default) whose `sendfile` is real."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Node:
        """The node as its variables say. Raises ConfigError; touches nothing."""
        ...

    def app(self) -> web.Application:
        """The application, before any event loop runs. What runs beside it starts and stops in its cleanup_ctx."""
        ...

    async def run_while_serving(self) -> None:
        """Runs from when the socket accepts until it is cancelled at SIGTERM. Whatever it raises ends the
        process: DfsError and OSError with one line, anything else with its traceback, both with status 1; StartAgain
        has it begin anew, with the same arguments and variables."""
        ...

    def connection(self, inner: asyncio.Protocol) -> asyncio.Protocol:
        """The protocol for a connection, of which `inner` is the framework's."""
        ...

    async def before_stop(self) -> None:
        """Called at SIGTERM while the socket still accepts: tell others to go elsewhere."""
        ...


def tune_malloc() -> None:
    """Tell glibc to keep freed buffers rather than map and unmap one for each chunk of a body.

    Untuned, receiving a body costs three times the CPU time, in page faults (mallopt(3)).
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        for option, value in ((-3, 64 << 20), (-1, 256 << 20), (-2, 16 << 20)):  # MMAP_, TRIM_THRESHOLD, TOP_PAD
            mallopt(option, value)


def serve(node: Node, host: str, port: int, stop_timeout_s: float) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError where the address cannot be had, DfsError where the
    node cannot start, StartAgain where the process is to begin anew."""
    tune_malloc()
    factory = None
    if getattr(node, "event_loop", "asyncio") == "uvloop":
        import uvloop  # only the nodes that ask for it need it installed

        factory = uvloop.new_event_loop
    app = node.app()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve(node, app, host, port, stop_timeout_s))


class _Runner(web.AppRunner):
    """The framework's, with what a node puts before it on each connection."""

    __slots__ = ("_front",)

    def __init__(
        self, app: web.Application, front: Callable[[asyncio.Protocol], asyncio.Protocol], **options: Any
    ) -> None:
        super().__init__(app, **options)
        self._front = front

    @property
    def server(self) -> Any:
        """What makes the protocol of each connection."""
        inner = super().server
        return None if inner is None else lambda: self._front(inner())


async def _serve(node: Node, app: web.Application, host: str, port: int, stop_timeout_s: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = _Runner(
        app,
        getattr(node, "connection", lambda inner: inner),
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=stop_timeout_s,
        read_bufsize=READ_BUFFER_BYTES,
        max_line_size=routes.MAX_LINE_BYTES,
        max_field_size=routes.MAX_HEADER_BYTES,
    )
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port, backlog=_BACKLOG).start()
        log.info(event("serving", node=type(node).__name__, host=host, port=port))
        await _run_until(stop, node)
        log.info(event("stopping", node=type(node).__name__))
        if hasattr(node, "before_stop"):
            await node.before_stop()
    finally:
        await runner.cleanup()
    log.info(event("stopped", node=type(node).__name__))


async def _run_until(stop: asyncio.Event, node: Node) -> None:
    """Wait for `stop`, with the node's own work beside; raise what that raises."""
    stopped = asyncio.create_task(stop.wait())
    work = asyncio.create_task(node.run_while_serving()) if hasattr(node, "run_while_serving") else None
    try:
        await asyncio.wait({stopped, work} if work else {stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work is not None and work.done() and not stop.is_set():
            await work
            await stopped  # it ended by itself, which is its right
    finally:
        for task in filter(None, (stopped, work)):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def serve_unix(app: web.Application, path: Path, stop_signals: Sequence[signal.Signals]) -> None:
    """Serve an application on a unix socket, for root alone, until one of the signals comes. Raises OSError."""
    stop = asyncio.Event()
    for number in stop_signals:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        path.unlink(missing_ok=True)  # of a process that was killed
        await web.UnixSite(runner, str(path)).start()
        path.chmod(0o600)
        await stop.wait()
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)
