"""The architecture's rules about modules: who imports whom, that each can be imported by itself, sizes."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FACES = ["server.py", "dfs.py", "name_node.py", "data_node.py", "http_client.py"]
PACKAGE = sorted((ROOT / "dfslib").rglob("*.py"))
SOURCES = [*PACKAGE, *(ROOT / face for face in FACES)]
LINES_MAX = 600

LOADED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(*(name for name, module in sys.modules.items() if getattr(module, "__spec__", None)))
"""
ALONE = """
import importlib, os, sys
names, others = (text.split() for text in sys.argv[1:])
for other in others:
    importlib.import_module(other)
for name in names:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
        except BaseException as error:
            print(f"{name}: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    os.waitpid(child, 0)
"""
"""Imports each module in a child of its own that has imported nothing of ours before; what is not ours is there."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_run_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_module_can_be_imported_first() -> None:
    modules = [module_of(path) for path in SOURCES]
    ours = {name.partition(".")[0] for name in modules}
    others = [name for name in python(LOADED, *modules).split() if name.partition(".")[0] not in ours]
    python(ALONE, " ".join(modules), " ".join(others))


def python(code: str, *arguments: str) -> str:
    """What it prints."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_a_module_says_what_it_is_and_is_not_too_long(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert len(text.splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", [path for path in PACKAGE if path.name != "__init__.py"], ids=named)
def test_no_name_shadows_the_standard_library(path: Path) -> None:
    """Inside a package that is harmless to Python, and still confusing; a verb of the namespace is excepted."""
    assert path.stem not in sys.stdlib_module_names - {"copy"}


@pytest.mark.parametrize("folder", sorted({path.parent for path in PACKAGE}), ids=named)
def test_every_folder_is_a_package(folder: Path) -> None:
    assert (folder / "__init__.py").is_file()
