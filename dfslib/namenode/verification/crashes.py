"""What ended the process before this one, where a signal did that tells of a bad page: SIGBUS, SIGSEGV and their like.

Python's faulthandler writes where that happened into a file while the process dies. SIGKILL and SIGTERM write nothing.
"""

from __future__ import annotations

import faulthandler
import os
from pathlib import Path
from typing import IO, Final

NAME: Final = "crash.txt"
LAST: Final = "crash-last.txt"


class Crashes:
    """Of the one process that serves this folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._file: IO[bytes] | None = None

    def told(self) -> str:
        """How the last process ended, in a line; empty where it was not by such a signal. Raises OSError."""
        try:
            text = self._path.read_text("utf-8", "replace").strip()
        except FileNotFoundError:
            return ""
        return f"the last process ended by this: {text.splitlines()[0]} (see {LAST})" if text else ""

    def arm(self) -> None:
        """From now on it is for this process; what the last one has told is kept under another name. Raises OSError."""
        if self.told():
            self._path.replace(self._path.with_name(LAST))
        self._file = self._path.open("wb", buffering=0)
        faulthandler.enable(self._file)

    def disarm(self) -> None:
        """This process ends in order."""
        if self._file is not None:
            faulthandler.disable()
            self._file.close()
            self._file = None
            if self._path.stat().st_size:  # else a disk that takes no writes needs none
                os.truncate(self._path, 0)
