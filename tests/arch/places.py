"""Where values lie that others can reach, in the syntax tree: attributes, items, variables of outer functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator

_READERS = frozenset({"get", "pop", "setdefault"})
"""Of an item, named by their first argument."""
CHANGERS = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "move_to_end", "pop", "popitem", "popleft",
     "remove", "setdefault", "subtract", "update", "difference_update", "intersection_update"}
)  # fmt: skip
_DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_WALKS = frozenset({"items", "values", "keys"})
_LAZY = frozenset({"enumerate", "filter", "iter", "map", "reversed", "zip"})


def outer_names(function: ast.AsyncFunctionDef) -> frozenset[str]:
    """The variables that it shares with others: those of outer functions that it writes, and its own that functions
    within it write."""
    return frozenset(
        name for node in ast.walk(function) if isinstance(node, ast.Nonlocal | ast.Global) for name in node.names
    )


def own_names(function: ast.AsyncFunctionDef) -> frozenset[str]:
    """Its variables for containers that it makes itself, which nobody else has as long as it only fills them."""
    made: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(function):
        match node:
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, value):
                (made if isinstance(value, _DISPLAYS) else others).add(name)
            case ast.For(ast.Name(name)) | ast.withitem(_, ast.Name(name)):
                others.add(name)
    return frozenset(made - others)


def changed_attributes(tree: ast.Module) -> Iterator[str]:
    """The names of attributes whose contents are changed somewhere."""
    for node in ast.walk(tree):
        target: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            target = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGERS:
            target = node.func.value
        if isinstance(target, ast.Attribute):
            yield target.attr


def place_of(node: ast.expr) -> str | None:
    """How an attribute or an item is written, however it is read."""
    match node:
        case ast.Attribute():
            return ast.unparse(node) if is_path(node) else None
        case ast.Subscript(value, key) if is_path(value):
            return f"{ast.unparse(value)}[{ast.unparse(key)}]"
        case ast.Call(ast.Attribute(value, method), [key, *_]) if method in _READERS and is_path(value):
            return f"{ast.unparse(value)}[{ast.unparse(key)}]"
        case ast.Compare(key, [ast.In() | ast.NotIn()], [container]) if is_path(container):
            return f"{ast.unparse(container)}[{ast.unparse(key)}]"
    return None


def is_path(node: ast.expr) -> bool:
    """A name, or attributes of one."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name)


def walked(over: ast.expr, aliases: dict[str, ast.expr]) -> Iterator[ast.Attribute]:
    """The attributes that are iterated over themselves, and not a copy of them."""
    match over:
        case ast.Attribute():
            yield over
        case ast.Name(name) if name in aliases and not isinstance(aliases[name], ast.Name):
            yield from walked(aliases[name], {})
        case ast.Call(ast.Attribute(value, method), []) if method in _WALKS:
            yield from walked(value, aliases)
        case ast.Call(ast.Name(function), arguments) if function in _LAZY:
            for argument in arguments:
                yield from walked(argument, aliases)
