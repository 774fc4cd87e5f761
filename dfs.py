#!/usr/bin/env python3
"""The command line of DFS: see `dfs.py --help`, or dfslib.cli."""

import sys

from dfslib.runtime.checkout import import_only_ours

if __name__ == "__main__":
    import_only_ours(sys.path[0])

    from dfslib.runtime.virtualenv import use_project_virtualenv

    use_project_virtualenv(__file__)

    from dfslib.cli.main import main

    sys.exit(main())
