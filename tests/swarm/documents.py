"""The commands that docs/swarm.md shows: run as they stand there, but for names and addresses of this machine."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.real_cluster import ROOT
from tests.swarm import engine

_DOCUMENT = ROOT / "docs" / "swarm.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks() -> list[list[str]]:
    """Commands without prompts and comments, by block."""
    texts = _BLOCK.findall(_DOCUMENT.read_text())
    return [[line[2:].split("  #")[0].rstrip() for line in text.splitlines() if line[:2] == "$ "] for text in texts]


def block(beginning: str) -> list[str]:
    """The commands of the one block whose first command begins so."""
    (found,) = [commands for commands in blocks() if commands[0].startswith(beginning)]
    return found


def run(commands: Sequence[str], here: Mapping[str, str], folder: Path = ROOT, **variables: str) -> str:
    """What bash prints for them, in `folder`. `here`: patterns in the commands, and what stands for them here."""
    text = "\n".join(commands)
    for shown, real in here.items():
        assert re.search(shown, text, re.MULTILINE), f"{shown!r} is not in {text!r}"
        text = re.sub(shown, real, text, flags=re.MULTILINE)
    variables["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return engine.run(["bash", "-euo", "pipefail", "-c", text], env=variables, folder=folder)
