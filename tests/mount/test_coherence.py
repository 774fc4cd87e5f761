"""Two mounts of one tree: what one does, the other sees."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.cluster.real_cluster import Cluster, wait_until
from tests.deadline import DEADLINE_S
from tests.mount.real_mount import Mount, attempt, run, run_python


@pytest.fixture
def there(folder: Path, mount: Mount, other_mount: Mount) -> Path:
    """The test's directory, on the other mount."""
    return other_mount.path / folder.relative_to(mount.path)


CLOSE_TO_OPEN = """
import os, random, sys
here, there, seed = sys.argv[1:]
rng = random.Random(seed)
model = {}
places = [here, there]
held = os.open(f"{there}/f0", os.O_RDWR | os.O_CREAT)
for turn in range(400):
    name, writer = f"f{rng.randrange(4)}", rng.randrange(2)
    how = rng.choice(["replace", "append", "truncate", "rename"])
    path = f"{places[writer]}/{name}"
    data = rng.randbytes(rng.choice([10, 5000, 200_000]))
    if how == "append":
        with open(path, "ab") as f: f.write(data)
        model[name] = model.get(name, b"") + data
    elif how == "rename":
        with open(path + ".tmp", "wb") as f: f.write(data)
        os.rename(path + ".tmp", path)
        model[name] = data
    elif how == "truncate" and name in model:
        os.truncate(path, len(model[name]) // 2)
        model[name] = model[name][: len(model[name]) // 2]
    else:
        with open(path, "wb") as f: f.write(data)
        model[name] = data
    reader = f"{places[rng.randrange(2)]}/{name}"
    with open(reader, "rb") as f: found = f.read()
    assert found == model[name], (turn, how, name, writer, reader, len(found), len(model[name]))
    assert os.path.getsize(reader) == len(found)
"""


def test_what_was_closed_is_what_the_next_open_finds(folder: Path, there: Path) -> None:
    seed = os.environ.get("DFS_SEED", str(random.SystemRandom().randrange(1 << 30)))
    print(f"DFS_SEED={seed}")
    run([sys.executable, "-c", CLOSE_TO_OPEN, str(folder), str(there), seed])


def test_what_was_synced_is_seen_by_an_open_that_follows(folder: Path, there: Path) -> None:
    run_python(
        f"import os\nf = os.open('f', os.O_RDWR | os.O_CREAT)\nother = {str(there)!r} + '/f'\n"
        "for n in range(100):\n os.pwrite(f, b'%06d' % n, 6 * n)\n os.fsync(f)\n"
        " data = open(other, 'rb').read()\n assert len(data) == 6 * n + 6, (n, len(data))\n"
        " assert data[-6:] == b'%06d' % n, (n, data[-12:])\n",
        folder,
    )


def seen(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, what)


def has_size(path: Path, size: int) -> bool:
    return run(["stat", "-c", "%s", str(path)]) == f"{size}\n"


def has_line(path: Path, line: str) -> bool:
    return line in run(["cat", str(path)]).splitlines()


def test_names_and_modes_are_seen_without_opening(folder: Path, there: Path) -> None:
    run("touch f; mkdir d; touch d/inside", folder)
    assert run("ls; stat -c %a f; ls d", there).split() == ["d", "f", "644", "inside"]
    run("chmod 600 f; mv d e; rm e/inside; ln f g", folder)
    seen(lambda: run("stat -c %a.%h f", there) == "600.2\n", "the mode and the links")
    seen(lambda: run("ls", there).split() == ["e", "f", "g"], "the names")
    seen(lambda: attempt("stat d/inside", there).returncode == 1, "the directory's name is gone")
    seen(lambda: run("ls e", there) == "", "the file in it is gone")


def test_names_are_seen_at_once_by_open(folder: Path, there: Path) -> None:
    run_python(
        f"import os\nthere = {str(there)!r}\n"
        "for n in range(100):\n"
        " open('f', 'w').write(f'old{n}')\n open('g', 'w').write(f'new{n}')\n"
        " assert open(there + '/f').read() == f'old{n}'\n"
        " os.rename('g', 'f')\n"
        " assert open(there + '/f').read() == f'new{n}', n\n"
        " os.rename('f', 'h')\n"
        " try: open(there + '/f'); raise SystemExit(f'still there {n}')\n"
        " except FileNotFoundError: pass\n"
        " assert open(there + '/h').read() == f'new{n}'\n"
        " os.unlink('h')\n"
        " try: open(there + '/h'); raise SystemExit(f'h still there {n}')\n"
        " except FileNotFoundError: pass\n",
        folder,
    )


def test_a_directory_that_was_replaced_leads_elsewhere(folder: Path, there: Path) -> None:
    run("mkdir one two; echo 1 > one/f; echo 2 > two/f", folder)
    for _ in range(20):
        before = run("cat one/f", there)
        run("mv one x; mv two one; mv x two", folder)
        assert run("cat one/f", there) != before


APPEND = """
import os, sys
f = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for n in range(200):
    os.write(f, (f"{sys.argv[2]} {n:04} " + "x" * 50 + "\\n").encode())
    if n % 7 == 0: os.fsync(f)
os.close(f)
"""


def test_appends_from_both_are_all_there_and_whole(folder: Path, there: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", APPEND, str(place / "log"), name])
        for place, name in ((folder, "a"), (there, "b"), (folder, "c"))
    ]
    assert [writer.wait(DEADLINE_S) for writer in writers] == [0, 0, 0]
    for place in (folder, there):
        lines = run("cat log", place).splitlines()
        for name in "abc":
            own = [line for line in lines if line.startswith(name)]
            assert own == [f"{name} {n:04} " + "x" * 50 for n in range(200)]
        assert len(lines) == 600


def test_appending_is_turned_on_and_off(folder: Path, there: Path) -> None:
    """By fcntl(2) with F_SETFL, which a file system does not hear of; with O_DIRECT, too."""
    run_python(
        "import fcntl, os\n"
        f"there = {str(there)!r} + '/f'\n"
        "def appends(fd, on):\n"
        " flags = fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_APPEND\n"
        " fcntl.fcntl(fd, fcntl.F_SETFL, flags | (os.O_APPEND if on else 0))\n"
        "for first in (0, os.O_APPEND):\n"
        " for direct in (0, os.O_DIRECT):\n"
        "  open('f', 'wb').write(b'old')\n"
        "  fd = os.open('f', os.O_RDWR | first | direct)\n"
        "  appends(fd, not first)\n"
        "  with open(there, 'ab') as other: other.write(b'-other')\n"
        "  os.pwrite(fd, b'new', 0)\n"
        "  os.fsync(fd)\n"
        "  expected = b'new-other' if first else b'old-othernew'\n"
        "  assert open(there, 'rb').read() == expected, (first, direct, open(there, 'rb').read())\n"
        "  appends(fd, first)\n"
        "  os.pwrite(fd, b'NEW', 0)\n"
        "  os.close(fd)\n"
        "  expected = expected + b'NEW' if first else b'NEW' + expected[3:]\n"
        "  assert open(there, 'rb').read() == expected, (first, direct, open(there, 'rb').read())\n",
        folder,
    )


EXCLUSIVE = """
import os, sys
won = 0
for n in range(200):
    try:
        os.close(os.open(f"{sys.argv[1]}/lock{n}", os.O_CREAT | os.O_EXCL))
        won += 1
    except FileExistsError:
        pass
print(won)
"""


def test_one_of_two_makes_a_file_that_must_be_new(folder: Path, there: Path) -> None:
    makers = [
        subprocess.Popen([sys.executable, "-c", EXCLUSIVE, str(place)], stdout=subprocess.PIPE)
        for place in (folder, there)
    ]
    assert sum(int(maker.communicate(timeout=DEADLINE_S)[0]) for maker in makers) == 200


def test_changes_over_http_are_seen(folder: Path, cluster: Cluster, mount: Mount) -> None:
    path = folder.relative_to(mount.path)
    url = f"{cluster.url}fs/{path}/f"
    for content in ("one", "and two", "3"):
        requests.put(url, data=content, timeout=DEADLINE_S).raise_for_status()
        assert run("cat f", folder) == content
        seen(partial(has_size, folder / "f", len(content)), "its size")
    requests.delete(url, timeout=DEADLINE_S).raise_for_status()
    assert attempt("cat f", folder).returncode == 1


def test_a_file_that_grows_is_followed(folder: Path, there: Path) -> None:
    (folder / "log").touch()
    with (folder / "out").open("w") as out:
        tail = subprocess.Popen(["tail", "-f", "-s", "0.2", str(there / "log")], stdout=out)
    try:
        with (folder / "log").open("a") as log:
            writer = subprocess.Popen(
                [sys.executable, "-uc", "import sys\nfor line in sys.stdin: print(line, end='')"],
                stdin=subprocess.PIPE,
                stdout=log,
                text=True,
            )
        assert writer.stdin is not None
        for number in range(3):
            writer.stdin.write(f"line {number}\n")
            writer.stdin.flush()
            seen(partial(has_line, folder / "out", f"line {number}"), f"line {number}")
        writer.stdin.close()
        writer.wait(DEADLINE_S)
    finally:
        tail.kill()
        tail.wait()


def test_names_are_exchanged(folder: Path, there: Path) -> None:
    run("echo a > a; echo b > b", folder)
    assert run("cat a b", there) == "a\nb\n"
    run_python(
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.renameat2(-100, b'a', -100, b'b', 2) == 0, os.strerror(ctypes.get_errno())\n"
        "assert libc.renameat2(-100, b'a', -100, b'b', 1) == -1 and ctypes.get_errno() == 17\n",
        folder,
    )
    assert run("cat a b", there) == "b\na\n"
