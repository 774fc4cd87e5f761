"""Lets `./dfs.py` and `./server.py` run from a checkout without activating `.venv` first."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def use_project_virtualenv(script: str) -> None:
    """Replace this process by the same command under the `.venv` beside `script`, where there is one.

    Does nothing inside of any virtual environment already: the user chose that one.
    """
    interpreter = Path(script).resolve().parent / ".venv" / "bin" / "python"
    if sys.prefix == sys.base_prefix and interpreter.exists():
        os.execv(interpreter, [str(interpreter), script, *sys.argv[1:]])
