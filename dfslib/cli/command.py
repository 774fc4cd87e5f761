"""What a command's file exports."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from dfslib.cli.session import Session


@dataclass(frozen=True)
class Command:
    """A subcommand. `configure` adds its arguments; `run` works, and reports what fails to the session.

    `examples` are shown at the end of its help.
    """

    name: str
    summary: str
    examples: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Session], None]


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_human(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-h", "--human-readable", dest="human", action="store_true", help="sizes such as 1.5G")
