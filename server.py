#!/usr/bin/env python3
"""Runs the node that `DFS_NODE_CLASS` names, with the settings in its `DFS_*` variables.

`--new-cluster` is `DFS_NEW_CLUSTER=true`.

Any importable class with `from_env(env)` and `app()` will do; see dfslib.runtime.serving.Node.
Exit status: 0 after SIGTERM or Ctrl-C, 1 when the node cannot start, 2 for a wrong variable.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from dfslib.runtime.virtualenv import use_project_virtualenv


def load_class(name: str) -> type:
    """The class that `module.Class` names. Raises ConfigError."""
    from dfslib.config import ConfigError

    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"DFS_NODE_CLASS={name!r} cannot be loaded: {error}") from error
    for method in ("from_env", "app"):
        if not callable(getattr(found, method, None)):
            raise ConfigError(f"DFS_NODE_CLASS={name!r} has no {method}()")
    return found  # type: ignore[no-any-return]


def main() -> int:
    from dfslib.config import ConfigError, load_for
    from dfslib.errors import DfsError
    from dfslib.runtime.logs import configure_logging
    from dfslib.runtime.serving import StartAgain, serve

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--new-cluster", action="store_true", help="a namenode without metadata begins a new cluster, and restores none"
    )
    if parser.parse_args().new_cluster:
        os.environ["DFS_NEW_CLUSTER"] = "true"
    here = str(Path(__file__).resolve().parent)
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        settings = load_for("server", os.environ)
        configure_logging(settings["DFS_LOG_LEVEL"])
        node = load_class(settings["DFS_NODE_CLASS"]).from_env(os.environ)  # type: ignore[attr-defined]
    except ConfigError as error:
        print(f"server.py: {error}", file=sys.stderr)  # noqa: T201
        return 2
    try:
        serve(node, settings["DFS_HOST"], settings["DFS_PORT"], settings["DFS_STOP_TIMEOUT"])
    except StartAgain:
        # The same process to whoever watches it, and nothing that is out of date left in memory.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except (DfsError, OSError) as error:
        print(f"server.py: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    use_project_virtualenv(__file__)
    sys.exit(main())
