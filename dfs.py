#!/usr/bin/env python3
"""The command line of DFS: see `dfs.py --help`, or dfslib.cli."""

import sys

from dfslib.runtime.virtualenv import use_project_virtualenv

if __name__ == "__main__":
    use_project_virtualenv(__file__)

    from dfslib.cli.main import main

    sys.exit(main())
