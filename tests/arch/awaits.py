"""What an `await` may split, found in the syntax tree: values that were read before it and are written after it.

Between the two everybody else has a turn, and what they wrote is lost. Each async function is walked in the order in
which it runs; of every value it is known which places it was read from, and whether there was an `await` since (or a
`yield`). A place is an attribute (`self.count`), an item of something (`self.held[node]`, `self.held.get(node)`) or a
variable of an outer function. Found are, in places that others can reach,

    self.count += await f()            read, then waited, then written
    self.count = self.count + await f()
    n = self.count; await f(); self.count = n + 1
    if self.x is None: self.x = await f()      nobody knows whether that still holds
    if one not in self.all: return
    await f(one); self.all.remove(one)         the same
    for one in self.all: await f(one)          while others change it

and none that reads or looks at the place once more after the last `await`: `self.count += n`, `{**old, **self.held}`.
It knows nothing of locks, of what other functions do, and of places that have two names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.arch.places import CHANGERS, changed_attributes, is_path, outer_names, own_names, place_of, walked

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


class Finding(NamedTuple):
    function: str
    line: int
    what: str


Reads = dict[str, bool]
"""By place: whether there was an `await` since it was read last."""


def find(source: str) -> list[Finding]:
    """What an `await` may split in a module, in its order."""
    tree = ast.parse(source)
    changed = frozenset(changed_attributes(tree))
    found: list[Finding] = []
    for name, function in _functions(tree, ""):
        if isinstance(function, ast.AsyncFunctionDef):
            walk = _Walk(name, outer_names(function), own_names(function), changed)
            walk.block(function.body, _State())
            found += walk.found
    return sorted(set(found), key=lambda one: (one.line, one.what))


def _functions(node: ast.AST, inside: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}{child.name}"
            yield name, child
            yield from _functions(child, f"{name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{inside}{child.name}.")
        else:
            yield from _functions(child, inside)


@dataclass
class _State:
    """`copies`: by local variable, what it was read from. `checks`: the places on whose state depends what runs."""

    copies: dict[str, Reads] = field(default_factory=dict)
    checks: Reads = field(default_factory=dict)
    ended: bool = False
    """Nothing runs behind this."""

    def copy(self) -> _State:
        copies = {name: dict(reads) for name, reads in self.copies.items()}
        return _State(copies, dict(self.checks), self.ended)

    def awaited(self) -> None:
        for reads in (*self.copies.values(), self.checks):
            _age(reads)


def _age(reads: Reads) -> None:
    for place in reads:
        reads[place] = True


def _add(into: Reads, more: Reads) -> None:
    """One value is made of both: what was read last is in it."""
    for place, is_old in more.items():
        into[place] = is_old and into.get(place, True)


def _meet(into: Reads, more: Reads) -> None:
    """It is the one or the other."""
    for place, is_old in more.items():
        into[place] = is_old or into.get(place, False)


def _joined(states: Sequence[_State], checks: Reads) -> _State:
    """Where ways meet again: any of them may have been taken. `checks` are those from before they parted; of the others
    only those count that every way depends on."""
    live = [state for state in states if not state.ended]
    if not live:
        return _State(ended=True)
    joined = _State()
    for state in live:
        for name, reads in state.copies.items():
            _meet(joined.copies.setdefault(name, {}), reads)
        _meet(joined.checks, {p: old for p, old in state.checks.items() if p in checks or len(live) == 1})
    return joined


class _Walk:
    """One function, in the order in which it runs."""

    def __init__(self, name: str, outer: frozenset[str], own: frozenset[str], changed: frozenset[str]) -> None:
        self._name = name
        self._outer = outer
        self._own = own
        self._changed = changed
        self._aliases: dict[str, ast.expr] = {}
        self.found: list[Finding] = []

    def _note(self, node: ast.AST, what: str) -> None:
        self.found.append(Finding(self._name, getattr(node, "lineno", 0), what))

    # ------------------------------------------------------------------------------------------- statements

    def block(self, body: Sequence[ast.stmt], state: _State) -> _State:
        for statement in body:
            if state.ended:
                break
            state = self._statement(statement, state)
        return state

    def _statement(self, node: ast.stmt, state: _State) -> _State:
        match node:
            case ast.Assign(targets, value):
                self._assign(targets, value, state)
            case ast.AnnAssign(target, _, value) if value is not None:
                self._assign([target], value, state)
            case ast.AugAssign(target, _, value):
                reads = self._read_target(target, state)
                self._evaluate(value, state, reads)
                self._store(target, reads, state)
            case ast.Delete(deleted):
                for one in deleted:
                    self._store(one, {}, state)
            case ast.Return() | ast.Raise() | ast.Continue() | ast.Break():
                self._expressions(node, state)
                state.ended = True
            case ast.If(test, body, orelse):
                return self._if(test, body, orelse, state)
            case ast.While(test, body, orelse):
                return self._while(node, state)
            case ast.For() | ast.AsyncFor():
                return self._for(node, state)
            case ast.With(items, body) | ast.AsyncWith(items, body):
                return self._with(node, items, body, state)
            case ast.Try():
                return self._try(node, state)
            case ast.Match(subject, cases):
                self._evaluate(subject, state, {})
                ways = [self.block(case.body, state.copy()) for case in cases]
                return _joined([*ways, state], state.checks)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                pass
            case _:
                self._expressions(node, state)
        return state

    def _expressions(self, node: ast.AST, state: _State) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._evaluate(child, state, {})

    def _assign(self, targets: Sequence[ast.expr], value: ast.expr, state: _State) -> None:
        if len(targets) == 1 and isinstance(targets[0], ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = list(zip(targets[0].elts, value.elts, strict=False))
            reads = [self._read(part, state) for _, part in pairs]
            for (target, _), read in zip(pairs, reads, strict=True):
                self._store(target, read, state)
            return
        reads_all = self._read(value, state)
        for target in targets:
            self._store(target, reads_all, state)
            if isinstance(target, ast.Name):
                self._aliases[target.id] = value

    def _if(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], state: _State) -> _State:
        before = dict(state.checks)
        self._check(test, state)
        ways = [self.block(body, state.copy()), self.block(orelse, state.copy())]
        return _joined(ways, before)

    def _while(self, node: ast.While, state: _State) -> _State:
        before = dict(state.checks)
        for _ in range(2):  # what the first turn leaves, the second one finds
            self._check(node.test, state)
            turned = self.block(node.body, state.copy())
            turned.ended = False
            state = _joined([state, turned], state.checks)
        state.checks = {place: old for place, old in state.checks.items() if place in before}
        return self.block(node.orelse, state)

    def _for(self, node: ast.For | ast.AsyncFor, state: _State) -> _State:
        reads = self._read(node.iter, state)
        if isinstance(node, ast.AsyncFor):
            state.awaited()
            _age(reads)
        elif self._waits(node.body):
            self._iterates(node.iter)
        for _ in range(2):
            turn = state.copy()
            self._store(node.target, dict(reads), turn)
            turned = self.block(node.body, turn)
            turned.ended = False
            if isinstance(node, ast.AsyncFor):
                turned.awaited()
            state = _joined([state, turned], state.checks)
        return self.block(node.orelse, state)

    def _with(
        self, node: ast.With | ast.AsyncWith, items: list[ast.withitem], body: list[ast.stmt], state: _State
    ) -> _State:
        for item in items:
            reads = self._read(item.context_expr, state)
            if isinstance(node, ast.AsyncWith):
                state.awaited()
                _age(reads)
            if item.optional_vars is not None:
                self._store(item.optional_vars, reads, state)
        state = self.block(body, state)
        if isinstance(node, ast.AsyncWith):
            state.awaited()
        return state

    def _try(self, node: ast.Try, state: _State) -> _State:
        before = state.copy()
        after = self.block(node.body, state.copy())
        broken_off = _joined([before, _ran(after)], before.checks)
        if self._waits(node.body):
            broken_off.awaited()
        ways = [self.block(node.orelse, after)]
        ways += [self.block(handler.body, broken_off.copy()) for handler in node.handlers]
        if not node.finalbody:
            return _joined(ways, before.checks)
        self.block(node.finalbody, broken_off.copy())
        return self.block(node.finalbody, _joined(ways, before.checks))

    # ------------------------------------------------------------------------------------------ expressions

    def _read(self, node: ast.expr, state: _State) -> Reads:
        reads: Reads = {}
        self._evaluate(node, state, reads)
        return reads

    def _evaluate(self, node: ast.expr, state: _State, reads: Reads) -> None:
        """Add what the value was read from."""
        match node:
            case ast.Await(value) | ast.Yield(value) | ast.YieldFrom(value):
                if value is not None:
                    self._evaluate(value, state, reads)
                state.awaited()
                _age(reads)
                return
            case ast.Lambda():
                return
            case ast.Name(name):
                _add(reads, state.copies.get(name, {}))
                if name in self._outer:
                    reads[name] = False
                return
            case ast.NamedExpr(target, value):
                inner = self._read(value, state)
                self._store(target, inner, state)
                self._aliases[target.id] = value
                _add(reads, inner)
                return
            case ast.IfExp(test, body, orelse):
                for part in (test, body, orelse):
                    self._evaluate(part, state, reads)
                return
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self._comprehension(node, state, reads)
                return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._evaluate(child, state, reads)
            elif isinstance(child, ast.keyword):
                self._evaluate(child.value, state, reads)
        self._changes(node, state)
        if (place := place_of(node)) is not None:
            reads[place] = False

    def _changes(self, node: ast.expr, state: _State) -> None:
        """A method call that changes a container is as good as an assignment to what is in it."""
        match node:
            case ast.Call(ast.Attribute(ast.Attribute() as container, method), arguments) if method in CHANGERS:
                if not is_path(container):
                    return
                whole = ast.unparse(container)
                for place in (whole, *(f"{whole}[{ast.unparse(argument)}]" for argument in arguments[:1])):
                    self._act(node, place, state)

    def _act(self, node: ast.AST, place: str, state: _State) -> None:
        if state.checks.pop(place, False):
            self._note(node, f"{place} was looked at before an await and is changed after it")

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp, state: _State, reads: Reads
    ) -> None:
        parts: list[ast.expr] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        for generator in node.generators:
            self._evaluate(generator.iter, state, reads)
            parts += generator.ifs
            if generator.is_async:
                state.awaited()
                _age(reads)
        if any(isinstance(inner, ast.Await) for part in parts for inner in ast.walk(part)):
            self._iterates(node.generators[0].iter)
        for part in parts:
            self._evaluate(part, state, reads)

    def _check(self, test: ast.expr, state: _State) -> None:
        """What runs next depends on the places that were looked at, as they are now."""
        state.checks.update(self._read(test, state))

    def _read_target(self, target: ast.expr, state: _State) -> Reads:
        """Of an augmented assignment, before its value is evaluated."""
        place = self._shared(target)
        return {} if place is None else {place: False}

    # -------------------------------------------------------------------------------------------- findings

    def _store(self, target: ast.expr, reads: Reads, state: _State) -> None:
        match target:
            case ast.Tuple(elts) | ast.List(elts):
                for element in elts:
                    self._store(element, dict(reads), state)
                return
            case ast.Starred(value):
                self._store(value, reads, state)
                return
            case ast.Name(name) if name not in self._outer:
                state.copies[name] = dict(reads)
                return
        place = self._shared(target)
        if place is None or place.partition("[")[0] in self._own:
            return
        if reads.get(place):
            self._note(target, f"{place} was read before an await and is written after it")
        elif place not in reads:
            self._act(target, place, state)

    def _shared(self, target: ast.expr) -> str | None:
        if isinstance(target, ast.Name):
            return target.id if target.id in self._outer else None
        return place_of(target)

    def _iterates(self, over: ast.expr) -> None:
        """A loop whose body waits."""
        for place in walked(over, self._aliases):
            if place.attr in self._changed:
                self._note(over, f"{ast.unparse(place)} is iterated over while others may change it")

    @staticmethod
    def _waits(body: Sequence[ast.stmt]) -> bool:
        return any(_waits(statement) for statement in body)


def _ran(state: _State) -> _State:
    """As far as it got, though it was left."""
    ran = state.copy()
    ran.ended = False
    return ran


def _waits(node: ast.AST) -> bool:
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.Yield):
        return True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return False
    return any(_waits(child) for child in ast.iter_child_nodes(node))
