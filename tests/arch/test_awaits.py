"""No value that was read before an `await` is written after it, and what was looked at before one decides nothing
after it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.arch.awaits import find

ROOT = Path(__file__).parents[2]
PACKAGE = sorted((ROOT / "dfslib").rglob("*.py"))

EXCEPTIONS = {
    ("dfslib/mount/directories.py", "OpenDirectory._entries"): "its caller has the directory's lock",
    ("dfslib/mount/directories.py", "OpenDirectory._read"): "its caller has the directory's lock",
    ("dfslib/mount/volumes/driver.py", "Driver.mount"): "whoever changes a volume has the driver's lock",
}
"""Functions that are right all the same, and why."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PACKAGE, ids=named)
def test_no_await_splits_what_belongs_together(path: Path) -> None:
    excepted = {function for file, function in EXCEPTIONS if file == named(path)}
    found = find(path.read_text())
    assert [f"{named(path)}:{one.line}: {one.what}" for one in found if one.function not in excepted] == []
    assert excepted == {one.function for one in found}, "an exception that is not needed any more"


BAD = {
    "a sum whose old value is read first": "self.total += await f()",
    "the same, of an item": "self.held[node] += await f(node)",
    "the same, within an expression": "self.total += 1 + len(await f())",
    "the same, of a variable of an outer function": """
        nonlocal total
        total += await f()
    """,
    "written out": "self.total = self.total + await f()",
    "in a call": "self.seen = merged(self.seen, await f())",
    "of what it is read from": "self.seen = await merged(self.seen)",
    "into a dictionary": "self.held[node] = self.held.get(node, 0) + await f()",
    "several at once": "self.first, self.second = self.first + await f(), 0",
    "by a copy": """
        count = self.count
        await f()
        self.count = count + 1
    """,
    "by a copy of a copy": """
        count = self.count
        following = count + 1
        await f()
        self.count = following
    """,
    "by a copy that only one way makes": """
        count = 0
        if known:
            count = self.count
        await f()
        self.count = count + 1
    """,
    "on only one way": """
        count = self.count
        if known:
            await f()
        else:
            self.other = 1
        self.count = count + 1
    """,
    "in the next turn of a loop": """
        count = self.count
        while True:
            self.count = count + 1
            await f()
    """,
    "through async for": """
        count = self.count
        async for one in f():
            count += one
        self.count = count
    """,
    "through async with": """
        old = self.held[node]
        async with lock:
            self.held[node] = old + 1
    """,
    "through a yield": """
        before = self.users
        yield
        self.users = before - 1
    """,
    "after a failure": """
        old = self.state
        try:
            await f()
        except OSError:
            self.state = old
    """,
    "looked at, and made": """
        if self.session is None:
            self.session = await f()
    """,
    "looked at by a guard": """
        if node in self.held:
            return
        data = await f()
        self.held[node] = data
    """,
    "looked at, and deleted": """
        while (writer := self.writers.get(ino)) is not None:
            await writer.flush()
            if writer.idle:
                del self.writers[ino]
    """,
    "looked at, and taken out": """
        if self.sessions.get(name) is not session:
            return
        await f()
        self.sessions.pop(name)
    """,
    "looked at before a lock was had": """
        if self.state is not OPEN:
            async with self.lock:
                self.state = OPEN
    """,
    "iterated over": """
        for one in self.waiting:
            await f(one)
        self.waiting.append(1)
    """,
    "items iterated over": """
        for node, run in enumerate(self.runs.items()):
            async with run:
                pass
        self.runs[node] = 1
    """,
    "iterated over by another name": """
        runs = self.runs
        for run in runs.values():
            await run
        self.runs.pop(1)
    """,
    "iterated over in a comprehension": """
        self.waiting.append(1)
        return [await f(one) for one in self.waiting]
    """,
}

GOOD = {
    "the await first": """
        size = await f()
        self.total += size
    """,
    "read after the await": "self.total = (await f()) + self.total",
    "a variable of its own": """
        total = 0
        total += await f()
        return total
    """,
    "a container of its own": """
        found = {}
        for node in nodes:
            if node not in found:
                found[node] = await f(node)
        return found
    """,
    "what was read is merged with what is there": """
        taken, self.held = self.held, {}
        await f(taken)
        self.held = {**taken, **self.held}
    """,
    "the difference": """
        before = self.total
        counted = await f()
        self.total += counted - before
    """,
    "a copy that is made anew": """
        count = self.count
        await f()
        count = self.count
        self.count = count + 1
    """,
    "another way": """
        if known:
            count = await f()
        else:
            self.count = self.count + 1
    """,
    "a way that has ended": """
        count = self.count
        if known:
            await f()
            return
        self.count = count + 1
    """,
    "looked at again": """
        if self.session is None:
            made = await f()
            if self.session is None:
                self.session = made
    """,
    "looked at where it was waited for": """
        async with self.lock:
            if self.state is not OPEN:
                self.state = OPEN
    """,
    "taken in the step in which it was looked at": """
        if self.making is not None:
            made, self.making = self.making, None
            await made
    """,
    "on both sides, each whole": """
        self.users += 1
        try:
            await f()
        finally:
            self.users -= 1
    """,
    "a copy iterated over": """
        for one in list(self.waiting):
            await f(one)
        self.waiting.append(1)
    """,
    "iterated over, and waited after": """
        for one in self.waiting:
            g(one)
        await f()
        self.waiting.append(1)
    """,
    "iterated over, and changed by nobody": """
        for one in self.parts:
            await f(one)
    """,
    "in a function that is called later": """
        def later():
            self.total += 1
        await f(later)
        self.total = 0
    """,
}


def function(body: str) -> str:
    lines = textwrap.indent(textwrap.dedent(body), "    ")
    return f"def outer():\n    total = 0\n    async def inner(self, node, ino):\n{textwrap.indent(lines, '    ')}\n"


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_what_an_await_splits_is_found(body: str) -> None:
    assert find(function(body))


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_what_it_does_not_split_is_not(body: str) -> None:
    assert find(function(body)) == []
