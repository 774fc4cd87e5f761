"""Has a process of its own check a store (child.py), and waits for what it finds, within a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

import dfslib
from dfslib.namenode.checkpoint.format import Header
from dfslib.namenode.metadata.lmdb_engine import DATA
from dfslib.namenode.verification import child
from dfslib.namenode.verification.child import Done, Line, Order, Progress, Refused
from dfslib.namenode.verification.store_check import Verdict

_PATIENCE_S: Final = 300.0
_SLOWEST_BYTES: Final = 1 << 20
"""A second: a disk on which every page is a seek, and a machine that has other things to do."""
_LINE_BYTES: Final = 1 << 24
"""A verdict may carry the header of a checkpoint, which names all datanodes."""

_DAMAGE_SIGNALS: Final = frozenset({signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL})
"""What ends a process that reads damaged pages; SIGKILL and SIGTERM are somebody's will."""


class CheckFailed(Exception):
    """Whether the store is damaged could not be found out; says why."""


class Checker:
    def __init__(self, folder: Path, after_end: Callable[[], object] = lambda: None) -> None:
        """`folder` is the store's. `after_end` is called when a check's process has ended, however that came: it may
        have left a snapshot open, which the engine is to give up."""
        self._folder = folder
        self._after_end = after_end

    async def check(
        self,
        progress: Callable[[int], object] = lambda _: None,
        *,
        whole: bool = True,
        at_rest: bool = False,
        in_turn: bool = True,
        checkpoint: tuple[Header, Path] | None = None,
    ) -> Verdict:
        """As `store_check.check_store`, or `look_at_store` where not `whole`. `in_turn`: others are served meanwhile,
        and come first. Raises CheckFailed."""
        header, path = checkpoint if checkpoint is not None else (None, "")
        order = Order(str(self._folder), whole, at_rest, in_turn, str(path), header)
        try:
            patience_s = _PATIENCE_S + (self._folder / DATA).stat().st_size / _SLOWEST_BYTES
            async with asyncio.timeout(patience_s):
                return await self._run(order, progress)
        except TimeoutError:
            raise CheckFailed(f"the check of the store has not ended within {patience_s:.0f} s") from None
        except OSError as error:
            raise CheckFailed(f"the store cannot be checked: {error}") from error

    async def _run(self, order: Order, progress: Callable[[int], object]) -> Verdict:
        environment = dict(os.environ)
        places = [str(Path(dfslib.__path__[0]).parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            child.__name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
            limit=_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is for this process
        )
        verdict: Verdict | None = None
        reason = ""
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            async for text in process.stdout:
                line = msgspec.json.decode(text, type=Line)
                if isinstance(line, Progress):
                    progress(line.keys)
                elif isinstance(line, Done):
                    verdict = line.verdict
                elif isinstance(line, Refused):
                    reason = line.reason
            status = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
            self._after_end()
        if verdict is not None:
            return verdict
        if status < 0 and -status in _DAMAGE_SIGNALS:
            return Verdict(f"a process that reads it is ended by {signal.Signals(-status).name}")
        raise CheckFailed(f"the store cannot be checked: {reason or _how_it_ended(status)}")


def _how_it_ended(status: int) -> str:
    return f"its process was ended by signal {-status}" if status < 0 else f"its process ended with status {status}"
