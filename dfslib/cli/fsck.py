"""`dfs fsck`."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from dfslib.cli.command import Command, add_json
from dfslib.cli.session import Session


def _configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def _run(args: argparse.Namespace, session: Session) -> None:
    health = session.namenode.fsck()
    session.failed = session.failed or not health.healthy
    if args.json:
        session.json(asdict(health))
        return
    for problem in health.problems:
        places = [session.name(problem.path)] if problem.path else []
        places += [f"block {problem.block}"] if problem.block else []
        session.line(": ".join([problem.kind, *places, problem.detail]))
    left_out = health.problem_count - len(health.problems)
    if left_out > 0:
        session.line(f"... and {left_out} more")
    verdict = "healthy" if health.healthy else f"{health.problem_count} problems"
    session.line(f"{health.inodes} files and directories, {health.blocks} blocks: {verdict}")


COMMAND = Command(
    name="fsck",
    summary="check the metadata and count the copies of every block",
    examples="""\
  dfs fsck && echo all is well

The exit status is 1 where something is missing or broken. "lost" names each file that cannot be read whole at present,
and whether a datanode that is away has what it lacks.""",
    configure=_configure,
    run=_run,
)
