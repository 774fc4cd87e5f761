"""`dfs release`."""

from __future__ import annotations

import argparse
import time

from dfslib.cli.command import Command
from dfslib.cli.session import Session
from dfslib.cli.status import describe_metadata


def _configure(parser: argparse.ArgumentParser) -> None:
    del parser  # it takes no arguments of its own


def _run(args: argparse.Namespace, session: Session) -> None:
    del args
    held = session.namenode.status().metadata.held
    status = session.namenode.release()
    if held:
        session.line("released: blocks that no file uses are deleted from the datanodes again")
    else:
        session.line("nothing was held: blocks that no file uses are deleted from the datanodes as ever")
    for line in describe_metadata(status.metadata, time.time()):
        session.line(line)


COMMAND = Command(
    name="release",
    summary="end the time after a restore in which nothing is deleted",
    examples="""\
  dfs fsck && dfs release

After a restore the datanodes keep every block, also those of changes that the restored metadata does not know.
Release when the files are as they should be: what no file uses is deleted then, for good.""",
    configure=_configure,
    run=_run,
)
