"""Imports dfslib and its faces from the checkout that a script lies in, and nothing else from there.

Python puts a script's folder first on `sys.path`, so a download that is called `copy` or `json.py` would hide the
standard library's module, and run. Imported before anything else: this module itself imports nothing but `sys`.
"""

import sys

FROM_THE_CHECKOUT = frozenset({"dfslib", "http_client", "name_node", "data_node"})


class CheckoutFinder:
    """Finds the modules of `FROM_THE_CHECKOUT` in one folder, before any that is installed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        """Where `name` is, or None for whatever is not ours."""
        if path is not None or name not in FROM_THE_CHECKOUT:
            return None
        from importlib.machinery import PathFinder

        return PathFinder.find_spec(name, [self._folder])


def import_only_ours(folder: str) -> None:
    """Takes `folder` off `sys.path`; only `FROM_THE_CHECKOUT` is imported from it from now on."""
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    sys.meta_path.insert(0, CheckoutFinder(folder))  # type: ignore[arg-type]
