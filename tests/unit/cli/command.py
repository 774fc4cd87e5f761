"""A command line that was run, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Result:
    """`status` is the exit status, `raw` what went to standard output, `err` to standard error."""

    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode("utf-8", "surrogateescape")

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class Run(Protocol):
    """Runs a command line against the fake cluster."""

    def __call__(self, *arguments: str) -> Result: ...
