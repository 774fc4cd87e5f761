"""Names that another mount changes: a program never sees ESTALE or ENOENT for what is there, nor the wrong file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.deadline import DEADLINE_S
from tests.mount.real_mount import MakeSharedMount, Mount, run

CHANGERS = """
import ctypes, itertools, os, sys
what, here = sys.argv[1], sys.argv[2]
libc = ctypes.CDLL(None, use_errno=True)
def exchange(a, b):
    if libc.renameat2(-100, a.encode(), -100, b.encode(), 2): raise OSError(ctypes.get_errno(), a)
def script(path):
    with open(path, "w") as f: f.write("#!/bin/true\\n")
    os.chmod(path, 0o755)
own = f"{here}/{what}{os.getpid()}"
print("begun", flush=True)
for n in itertools.count():
    if what == "elsewhere":
        os.mkdir(own); os.rename(own, own + "-"); os.rmdir(own + "-")
    elif what == "beside":
        open(f"{here}/d/e/{os.getpid()}", "w").close()
        os.rename(f"{here}/d/e/{os.getpid()}", f"{here}/d/e/{os.getpid()}-")
    elif what == "replaced":
        script(own); os.rename(own, f"{here}/d/e/f")
    elif what == "link":
        os.symlink("f", own); os.rename(own, f"{here}/d/e/link")
    elif what == "directories":
        if not n:
            os.mkdir(own); os.mkdir(own + "/e"); script(own + "/e/f"); os.symlink("f", own + "/e/link")
        exchange(own, f"{here}/d")
    elif what == "swept":  # as "directories", and what was replaced is removed
        os.mkdir(own); os.mkdir(own + "/e"); script(own + "/e/f"); os.symlink("f", own + "/e/link")
        exchange(own, f"{here}/d")
        for folder, _, names in os.walk(own, topdown=False):
            for name in names: os.unlink(f"{folder}/{name}")
            os.rmdir(folder)
"""

USES = {
    "open": "os.close(os.open(f, os.O_RDONLY))",
    "write": "os.close(os.open(f, os.O_WRONLY))",
    "create": "os.close(os.open(f, os.O_RDWR | os.O_CREAT))",
    "through a link": "os.close(os.open(link, os.O_RDONLY))",
    "truncate": "os.close(os.open(f, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o755))",
    "new": "os.close(os.open(new, os.O_RDWR | os.O_CREAT)); os.unlink(new)",
    "exec": "subprocess.run([f], check=True)",
    "stat": "os.stat(f); os.stat(link); os.stat(e)",
    "chmod": "os.chmod(f, 0o755)",
    "list": "assert 'f' in os.listdir(e)",
    "attributes": "os.listxattr(f); os.utime(f)",
    "descriptor": "fd = os.open(f, os.O_RDONLY); os.close(os.open(f'/proc/self/fd/{fd}', os.O_RDONLY)); os.close(fd)",
    "read link": "os.readlink(link)",
}

USER = """
import os, subprocess, sys
there, use, turns = sys.argv[1:]
e = there + "/d/e"; f = e + "/f"; link = e + "/link"; new = f"{e}/new{os.getpid()}"
for n in range(int(turns)):
    try: exec(use)
    except OSError as error: raise SystemExit(f"turn {n}: {error}")
"""

Process = subprocess.Popen[str]


def begin(code: str, *arguments: str) -> Process:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


def run_beside(changers: Sequence[Process], users: Sequence[Process]) -> list[int]:
    """The exit codes of the users, while the changers go on."""
    try:
        for changer in changers:
            assert changer.stdout is not None
            assert changer.stdout.readline() == "begun\n"
        codes = [user.wait(3 * DEADLINE_S) for user in users]
        assert [changer.poll() for changer in changers] == [None] * len(changers)
        return codes
    finally:
        for process in (*changers, *users):
            process.kill()
            process.communicate(timeout=DEADLINE_S)


@pytest.fixture(scope="module")
def third_mount(other_mount: Mount, make_shared_mount: MakeSharedMount) -> Mount:
    return make_shared_mount()


@pytest.fixture
def places(folder: Path, mount: Mount, other_mount: Mount, third_mount: Mount) -> Iterator[list[Path]]:
    """The test's directory on each mount, with `d/e/f` in it, which can be executed, and a link to it."""
    run("mkdir -p d/e; printf '#!/bin/true\\n' > d/e/f; chmod 755 d/e/f; ln -s f d/e/link", folder)
    yield [one.path / folder.relative_to(mount.path) for one in (mount, other_mount, third_mount)]


@pytest.mark.parametrize("change", ["elsewhere", "beside", "replaced", "link", "directories", "swept"])
def test_what_is_there_is_found_whatever_others_rename(change: str, places: list[Path]) -> None:
    here, there, third = map(str, places)
    # What makes or truncates a file, or opens it for writing, would disturb those that execute it.
    uses = {use: code for use, code in USES.items() if use not in ("write", "create", "truncate")}
    if change in ("directories", "swept"):
        del uses["new"]  # it may be made in one of them, and removed in another
    if change == "swept":
        del uses["list"]  # a directory that is opened first and swept then lists nothing, on a local disk as well
    changers = [begin(CHANGERS, change, here)] + ([begin(CHANGERS, change, third)] if change != "swept" else [])
    codes = run_beside(changers, [begin(USER, there, code, "60") for code in uses.values()])
    assert dict(zip(uses, codes, strict=True)) == dict.fromkeys(uses, 0)


@pytest.mark.parametrize("change", ["elsewhere", "replaced", "directories"])
def test_what_is_there_is_written_whatever_others_rename(change: str, places: list[Path]) -> None:
    here, there, third = map(str, places)
    uses = [use for use in ("open", "write", "create", "truncate", "stat") for _ in range(2)]
    changers = [begin(CHANGERS, change, place) for place in (here, third)]
    codes = run_beside(changers, [begin(USER, there, USES[use], "100") for use in uses])
    assert codes == [0] * len(uses), uses


FRESH = """
import os, shutil, sys
here, there = sys.argv[1:]
def make(path, n):
    with open(path, "w") as f: f.write(str(n))
def read(path):
    with open(path) as f: return f.read()
def is_gone(path):
    try: read(path)
    except FileNotFoundError: return True
os.makedirs(here + "/x/y"); make(here + "/x/y/f", -1)
for n in range(60):
    # replaced
    make(here + "/g", n); os.rename(here + "/g", here + "/f"); assert read(there + "/f") == str(n)
    os.stat(there + "/f")
    # moved, and moved back
    os.rename(here + "/f", here + "/h"); assert is_gone(there + "/f")
    os.stat(there + "/h")
    os.rename(here + "/h", here + "/f"); assert is_gone(there + "/h"); assert read(there + "/f") == str(n)
    # one of two names
    os.link(here + "/f", here + "/k"); assert read(there + "/k") == str(n)
    os.unlink(here + "/k"); assert is_gone(there + "/k")
    # a directory on the way
    assert read(there + "/x/y/f") == str(n - 1)
    os.makedirs(here + "/z/y"); make(here + "/z/y/f", n)
    os.rename(here + "/x", here + "/old"); os.rename(here + "/z", here + "/x")
    assert read(there + "/x/y/f") == str(n)
    assert read(there + "/old/y/f") == str(n - 1)
    shutil.rmtree(here + "/old")
    assert is_gone(there + "/old/y/f")
    # the same, to be listed
    os.mkdir(here + "/l"); make(f"{here}/l/{n}", n); assert os.listdir(there + "/l") == [str(n)]
    os.rename(here + "/l", here + "/m"); os.mkdir(here + "/l"); assert os.listdir(there + "/l") == []
    assert os.listdir(there + "/m") == [str(n)]
    shutil.rmtree(here + "/l"); shutil.rmtree(here + "/m")
"""


def test_an_open_that_follows_a_change_finds_what_is_there_then(places: list[Path]) -> None:
    here, there, third = map(str, places)
    noise = [begin(USER, there, USES[use], "1000000") for use in ("open", "stat", "list")]
    changer = begin(CHANGERS, "replaced", third)
    assert run_beside([changer], [begin(FRESH, here, there)]) == [0]
    for process in noise:
        assert process.poll() is None
        process.kill()
        process.communicate(timeout=DEADLINE_S)
