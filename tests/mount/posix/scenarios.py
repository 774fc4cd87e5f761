"""What calls answer, errno by errno: python scenarios.py DIRECTORY, as root; prints JSON, a result by scenario.

Run on a local directory and on a mount, the results must be the same. A scenario is a generator of results: numbers,
text, and for calls that fail the name of the errno (`got`). Those that end in `_as_user` run as an unprivileged user
in a directory of that user's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import mmap
import os
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

_DEADLINE_S = 180
USER, GROUP, OTHER_GROUP, STRANGER = 41001, 41002, 41003, 41009
MAKERS: dict[str, Callable[[str], object]] = {
    "regular": lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644)),
    "dir": lambda path: os.mkdir(path, 0o755),
    "fifo": lambda path: os.mkfifo(path, 0o644),
    "block": lambda path: os.mknod(path, stat.S_IFBLK | 0o644, os.makedev(1, 2)),
    "char": lambda path: os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(300, 70000)),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o644),
    "symlink": lambda path: os.symlink("target", path),
}
SCENARIOS: dict[str, Callable[[], Iterator[object]]] = {}


def scenario(function: Callable[[], Iterator[object]]) -> Callable[[], Iterator[object]]:
    SCENARIOS[function.__name__] = function
    return function


def got(call: Callable[..., object], *args: object, **named: object) -> object:
    """What a call returns, or the name of its errno."""
    try:
        result = call(*args, **named)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return result if isinstance(result, int | str | list) else "ok"


def look(path: str) -> list[object]:
    """What does not differ between file systems."""
    try:
        found = os.lstat(path)
    except OSError as error:
        return [errno.errorcode[error.errno or 0]]
    size = found.st_size if not stat.S_ISDIR(found.st_mode) else 0
    return [oct(found.st_mode), found.st_nlink, found.st_uid, found.st_gid, size, found.st_rdev]


def times(path: str) -> tuple[int, int, int]:
    found = os.lstat(path)
    return found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns


def changes(call: Callable[[], object], *paths: str) -> list[object]:
    """What a call answers, and which of mtime and ctime of each path it moves on."""
    before = [times(path) for path in paths]
    end = min(max(max(one[1:]) for one in before), time.time_ns())  # some are in the future
    while time.time_ns() < end + 20_000_000:  # local file systems take times from a clock with ticks
        time.sleep(0.005)
    answer = got(call)
    moved = []
    for path, old in zip(paths, before, strict=True):
        try:
            new = times(path)
            moved.append("".join(letter for letter, a, b in zip("mc", old[1:], new[1:], strict=True) if a != b))
        except FileNotFoundError:
            moved.append("gone")
    return [answer, *moved]


def touch(path: str | bytes, data: bytes = b"") -> None:
    with open(path, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def opened(path: str, flags: int = os.O_RDWR, mode: int = 0o644) -> Iterator[int]:
    file = os.open(path, flags, mode)
    try:
        yield file
    finally:
        os.close(file)


def remove(path: str) -> None:
    (os.rmdir if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink)(path)


@scenario
def every_type_is_made() -> Iterator[object]:
    for kind, make in MAKERS.items():
        make(kind)
        yield [kind, look(kind), got(make, kind)]
        yield changes(partial(remove, kind), ".")


@scenario
def making_moves_the_times_of_the_directory() -> Iterator[object]:
    for kind, make in MAKERS.items():
        yield [kind, *changes(partial(make, kind), ".")]
        yield [kind, *changes(partial(make, kind), ".")]


@scenario
def the_umask_applies() -> Iterator[object]:
    for mask in (0o000, 0o022, 0o077, 0o151):
        old = os.umask(mask)
        os.close(os.open(f"f{mask}", os.O_CREAT, 0o777))
        os.mkdir(f"d{mask}", 0o777)
        os.mkfifo(f"p{mask}", 0o666)
        os.umask(old)
        yield [look(f"{kind}{mask}") for kind in "fdp"]


@scenario
def chmod_of_every_type() -> Iterator[object]:
    for kind, make in MAKERS.items():
        if kind == "symlink":
            continue
        make(kind)
        for mode in (0o000, 0o111, 0o7777, 0o644):
            yield [kind, *changes(partial(os.chmod, kind, mode), kind, "."), look(kind)]
    yield got(os.chmod, "missing", 0o644)
    yield got(os.chmod, "regular/x", 0o644)


@scenario
def chown_of_every_type() -> Iterator[object]:
    for kind, make in MAKERS.items():
        make(kind)
        yield [kind, got(os.lchown, kind, 123, 456), look(kind)]
        yield [kind, got(os.lchown, kind, -1, 457), look(kind)]
        yield [kind, *changes(partial(os.lchown, kind, 124, -1), kind), look(kind)]
    yield got(os.chown, "missing", 1, 1)


@scenario
def chown_by_root_and_set_ids() -> Iterator[object]:
    for mode in (0o6555, 0o6444, 0o2755, 0o4711):
        touch("f")
        os.chmod("f", mode)
        os.chown("f", 5, 6)
        yield look("f")
        os.unlink("f")


@scenario
def truncation() -> Iterator[object]:
    touch("f", b"0123456789")
    for size in (5, 8, 0, 100_000, 99_999):
        yield [*changes(partial(os.truncate, "f", size), "f"), os.stat("f").st_size]
        yield Path("f").read_bytes()[:16].hex()
    os.mkdir("d")
    os.mkfifo("p")
    os.symlink("loop", "loop")
    for path in ("d", "missing", "f/x", "loop", "x" * 256):
        yield got(os.truncate, path, 1)
    yield got(os.truncate, "f", -1)
    with opened("f", os.O_RDONLY) as file:
        yield got(os.ftruncate, file, 1)
    with opened("f") as file:
        yield got(os.ftruncate, file, -1)
        yield changes(lambda: os.ftruncate(file, 7), "f")


@scenario
def names_may_be_255_bytes_long() -> Iterator[object]:
    for kind, make in MAKERS.items():
        yield [kind, got(make, "n" * 255), got(make, "n" * 256)]
        remove("n" * 255)
    touch("f")
    for call in (os.stat, os.unlink, os.rmdir, os.listdir, os.readlink):
        yield got(call, "x" * 256)
        yield got(call, "x" * 255)
    yield got(os.rename, "f", "y" * 256)
    yield got(os.link, "f", "y" * 256)
    yield got(os.rename, "f", "y" * 255)
    yield got(os.stat, "./" * 2100 + "f")
    raw = b"\xff\xfe\x80 \n"
    touch(raw)
    yield os.listdir(b".")[0].hex() if len(os.listdir(b".")) == 1 else sorted(name.hex() for name in os.listdir(b"."))


@scenario
def paths_that_lead_nowhere() -> Iterator[object]:
    touch("f")
    os.symlink("l2", "l1")
    os.symlink("l1", "l2")
    os.symlink("nothing", "dangling")
    os.mkdir("d")
    for path in ("f/x", "missing/x", "l1", "l1/x", "dangling", "dangling/x", "", "f/", "d/f/.."):
        for call in (
            os.stat, os.lstat, os.unlink, os.rmdir, os.listdir, lambda p: os.open(p, os.O_RDONLY),
            lambda p: os.mkdir(p), lambda p: os.mkfifo(p), lambda p: os.link("f", p), lambda p: os.rename("f", p),
            lambda p: os.chmod(p, 0o600), lambda p: os.truncate(p, 0), os.readlink,
        ):  # fmt: skip
            if path == "dangling" and call.__name__ == "<lambda>":
                continue
            yield [path, got(call, path)]
            if not os.path.lexists("f"):
                touch("f")


@scenario
def open_and_its_flags() -> Iterator[object]:
    touch("f", b"content")
    os.mkdir("d")
    os.symlink("f", "to_f")
    os.symlink("d", "to_d")
    os.symlink("new", "to_new")
    for path in ("f", "d", "to_f", "to_d", "missing", "f/x"):
        for flags in (
            os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_CREAT | os.O_EXCL | os.O_WRONLY, os.O_DIRECTORY, os.O_NOFOLLOW,
            os.O_CREAT | os.O_DIRECTORY, os.O_WRONLY | os.O_TRUNC, os.O_PATH | os.O_NOFOLLOW, os.O_APPEND | os.O_RDWR,
        ):  # fmt: skip
            answer = got(os.open, path, flags, 0o600)
            if isinstance(answer, int):
                os.close(answer)
                answer = "opened"
            yield [path, flags, answer, look(path)]
            if path == "missing" and answer == "opened":
                remove("missing")
    yield got(lambda: os.close(os.open("to_new", os.O_CREAT | os.O_WRONLY, 0o640)))
    yield [look("new"), got(os.open, "to_new", os.O_CREAT | os.O_EXCL)]
    yield changes(lambda: os.close(os.open("new2", os.O_CREAT | os.O_WRONLY)), ".")
    yield changes(lambda: os.close(os.open("new2", os.O_CREAT | os.O_WRONLY)), ".", "new2")
    touch("new2", b"x")
    yield changes(lambda: os.close(os.open("new2", os.O_TRUNC | os.O_WRONLY)), ".", "new2")


@scenario
def files_without_write_permission_can_be_made_and_written() -> Iterator[object]:
    file = os.open("f", os.O_CREAT | os.O_RDWR, 0o000)
    yield os.write(file, b"data")
    yield os.pread(file, 10, 0).decode()
    os.close(file)
    yield look("f")


@scenario
def links() -> Iterator[object]:
    for kind, make in MAKERS.items():
        make(kind)
        linked = changes(partial(os.link, kind, kind + "2", follow_symlinks=False), kind, ".")
        yield [kind, *linked, look(kind)]
        yield [kind, got(os.link, kind, kind + "2", follow_symlinks=False)]
        if kind != "dir":
            yield [kind, *changes(partial(os.unlink, kind), kind + "2", "."), look(kind + "2")]
    yield got(os.link, "missing", "x")
    yield got(os.link, "regular2/x", "y")
    yield got(os.link, "regular2", "missing/y")


@scenario
def unlink_and_rmdir() -> Iterator[object]:
    for kind, make in MAKERS.items():
        make(kind)
        yield [kind, got(os.rmdir, kind) if kind != "dir" else got(os.unlink, kind)]
        yield [kind, *changes(partial(remove, kind), "."), look(kind)]
    os.makedirs("d/sub")
    touch("d/f")
    yield got(os.rmdir, "d") in ("ENOTEMPTY", "EEXIST")
    yield got(os.rmdir, "d/.")
    yield got(os.rmdir, "d/sub/..") in ("ENOTEMPTY", "EEXIST")
    yield changes(lambda: os.rmdir("d/sub"), "d")
    yield look("d")
    yield got(os.rmdir, "missing")
    yield got(os.rmdir, "d/f/x")
    yield got(os.unlink, "d/f/")


@scenario
def a_removed_file_that_is_open_goes_on() -> Iterator[object]:
    with opened("f", os.O_RDWR | os.O_CREAT) as file:
        os.write(file, b"before")
        os.unlink("f")
        yield os.fstat(file).st_nlink
        yield os.write(file, b" and after")
        yield os.pread(file, 100, 0).decode()
        os.fsync(file)
        os.ftruncate(file, 3)
        yield [os.fstat(file).st_size, os.pread(file, 100, 0).decode(), got(os.stat, "f")]
        os.fchmod(file, 0o600)
        yield oct(os.fstat(file).st_mode)
        yield got(os.link, f"/proc/self/fd/{file}", "again", follow_symlinks=True)
        touch("f", b"another")
        yield [os.pread(file, 100, 0).decode(), Path("f").read_text()]
    yield sorted(os.listdir("."))


@scenario
def a_directory_that_is_removed_while_open() -> Iterator[object]:
    os.mkdir("d")
    with opened("d", os.O_RDONLY) as directory:
        os.rmdir("d")
        yield os.listdir(directory)
        yield got(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=directory)
        yield got(os.mkdir, "x", dir_fd=directory)


@scenario
def renames_of_all_pairs() -> Iterator[object]:
    for kind, make in MAKERS.items():
        for other, make_other in MAKERS.items():
            os.mkdir("a")
            os.mkdir("b")
            make("a/x")
            make_other("b/y")
            inode = os.lstat("a/x").st_ino
            yield [kind, other, *changes(lambda: os.rename("a/x", "b/y"), "a", "b"), look("a/x")]
            yield [look("b/y"), os.lstat("b/y").st_ino == inode, look("a"), look("b")]
            for path in ("a/x", "b/y", "a", "b"):
                if os.path.lexists(path):
                    remove(path)


@scenario
def renames_that_cannot_be() -> Iterator[object]:
    os.makedirs("d/sub/deep")
    os.makedirs("full/x")
    touch("f")
    os.link("f", "g")
    for old, new in (
        ("d", "d/sub"), ("d", "d/sub/deep/x"), ("d", "d"), ("d/.", "x"), ("d", "full"), ("f", "d"), ("d", "f"),
        ("missing", "x"), ("f", "missing/x"), ("f/x", "y"), ("f", "f/x"), ("d/sub/..", "x"), ("f", "g"), ("d", "x/"),
        ("f", "x2/"), ("f", ""), ("", "f"),
    ):  # fmt: skip
        yield [old, new, got(os.rename, old, new), sorted(os.listdir("."))]
        for path in ("d", "f"):
            if not os.path.lexists(path) and os.path.lexists("x"):
                os.rename("x", path)


@scenario
def a_rename_over_an_open_file() -> Iterator[object]:
    touch("old", b"old content")
    touch("new", b"new")
    with opened("old") as file:
        os.rename("new", "old")
        yield [os.pread(file, 100, 0).decode(), os.fstat(file).st_nlink, Path("old").read_text()]
        os.pwrite(file, b"still", 0)
    yield Path("old").read_text()


@scenario
def directories_count_their_subdirectories() -> Iterator[object]:
    os.mkdir("d")
    for name in "abc":
        os.mkdir(f"d/{name}")
    yield os.stat("d").st_nlink
    os.mkdir("e")
    os.rename("d/a", "e/a")
    yield [os.stat("d").st_nlink, os.stat("e").st_nlink]
    os.rmdir("d/b")
    yield os.stat("d").st_nlink
    touch("d/f")
    yield [os.stat("d").st_nlink, os.stat("d/c/..").st_ino == os.stat("d").st_ino]


@scenario
def symbolic_links() -> Iterator[object]:
    for target in ("x", "a/b/../c", "y" * 4095, "", "z" * 4096):
        yield [target[:3], got(os.symlink, target, "l")]
        if os.path.lexists("l"):
            yield [os.readlink("l") == target, os.lstat("l").st_size]
            os.unlink("l")
    os.mkdir("d")
    touch("d/f", b"through")
    os.symlink("d", "l")
    yield Path("l/f").read_text()
    yield got(os.readlink, "d")
    yield got(os.readlink, "d/f")


@scenario
def times_are_set_to_the_nanosecond() -> Iterator[object]:
    for kind, make in MAKERS.items():
        make(kind)
        os.utime(kind, ns=(1_234_567_890_123_456_789, 987_654_321_000_000_001), follow_symlinks=False)
        yield [kind, *times(kind)[:2]]
    for value in (0, -1, -1_500_000_000, 2**32 * 1_000_000_000 + 5):
        os.utime("regular", ns=(value, value))
        yield times("regular")[:2]
    before = times("regular")
    yield changes(lambda: os.utime("regular"), "regular")
    yield all(new > old for new, old in zip(times("regular"), before, strict=True))
    yield got(os.utime, "missing")


@scenario
def writes_move_the_times() -> Iterator[object]:
    touch("f")
    with opened("f") as file:
        yield changes(lambda: os.write(file, b"x"), "f")
        yield changes(lambda: os.write(file, b""), "f")
        yield changes(lambda: os.pread(file, 1, 0) and 0, "f")
        yield changes(lambda: os.fsync(file), "f")
        os.utime("f", ns=(5_000_000_000, 6_000_000_000))
        yield times("f")[:2]
    yield times("f")[1]
    with opened("f", os.O_WRONLY) as file:
        os.write(file, b"more")
        os.utime(file, ns=(7_000_000_000, 8_000_000_000))
    yield times("f")[:2]


@scenario
def holes_and_sparse_files() -> Iterator[object]:
    with opened("f", os.O_RDWR | os.O_CREAT) as file:
        os.pwrite(file, b"end", 100 * 2**30)
        yield os.fstat(file).st_size
        yield os.pread(file, 5, 50 * 2**30).hex()
        yield os.lseek(file, 100 * 2**30, os.SEEK_DATA) == 100 * 2**30
        yield os.lseek(file, 0, os.SEEK_HOLE)
        yield got(os.lseek, file, 101 * 2**30, os.SEEK_DATA)
        yield got(os.lseek, file, 101 * 2**30, os.SEEK_HOLE)
    yield os.stat("f").st_blocks * 512 < 1 << 20


@scenario
def fallocate_and_its_modes() -> Iterator[object]:
    touch("f", b"x" * 10_000)
    with opened("f") as file:
        yield got(os.posix_fallocate, file, 0, 20_000)
        yield os.fstat(file).st_size
        yield got(os.posix_fallocate, file, 0, 0)
        yield got(os.posix_fallocate, file, -1, 5)
    with opened("f", os.O_RDONLY) as file:
        yield got(os.posix_fallocate, file, 0, 5)


@scenario
def appends_go_to_the_end() -> Iterator[object]:
    touch("f", b"one")
    with opened("f", os.O_WRONLY | os.O_APPEND) as appending, opened("f") as other:
        os.write(appending, b" two")
        os.pwrite(other, b"ONE", 0)
        os.lseek(appending, 0, os.SEEK_SET)
        os.write(appending, b" three")
        yield os.pread(other, 100, 0).decode()
        yield os.lseek(appending, 0, os.SEEK_CUR)
        os.ftruncate(other, 2)
        os.write(appending, b"!")
        yield os.pread(other, 100, 0).decode()
    yield Path("f").read_text()


@scenario
def maps_and_files_are_the_same() -> Iterator[object]:
    touch("f", b"a" * 10_000)
    with opened("f") as file, mmap.mmap(file, 10_000) as view:
        view[5000:5003] = b"MAP"
        yield os.pread(file, 5, 4999).decode()
        os.pwrite(file, b"pwrite", 9000)
        yield bytes(view[9000:9006]).decode()
        view.flush()
    yield Path("f").read_bytes()[4999:5004].decode()


@scenario
def listings() -> Iterator[object]:
    names = [f"entry{number:05}" for number in range(3000)]
    for name in names:
        os.mkdir(name) if name.endswith("7") else touch(name)
    yield sorted(os.listdir(".")) == names
    seen = {entry.name: entry.is_dir() for entry in os.scandir(".")}
    yield all(seen[name] == name.endswith("7") for name in names)
    gone = 0
    for entry in os.scandir("."):
        remove(entry.name)
        gone += 1
    yield [gone, os.listdir(".")]


@scenario
def extended_attributes() -> Iterator[object]:
    for kind in ("regular", "dir"):
        MAKERS[kind](kind)
        yield got(os.getxattr, kind, "user.none")
        os.setxattr(kind, "user.one", b"1")
        os.setxattr(kind, "user.empty", b"")
        yield [os.getxattr(kind, "user.one").decode(), os.getxattr(kind, "user.empty").decode()]
        yield sorted(name for name in os.listxattr(kind) if name.startswith("user."))
        yield got(os.setxattr, kind, "user.one", b"2", os.XATTR_CREATE)
        yield got(os.setxattr, kind, "user.new", b"2", os.XATTR_REPLACE)
        yield changes(partial(os.setxattr, kind, "user.one", b"3", os.XATTR_REPLACE), kind)
        yield os.getxattr(kind, "user.one").decode()
        yield changes(partial(os.removexattr, kind, "user.one"), kind)
        yield got(os.removexattr, kind, "user.one")
        yield got(os.setxattr, kind, "user." + "n" * 251, b"x")
        yield got(os.setxattr, kind, "nonsense", b"x")
        yield got(os.getxattr, kind, "security.capability")
    os.mkfifo("fifo")
    os.symlink("regular", "l")
    yield got(os.setxattr, "fifo", "user.x", b"1")
    yield got(os.setxattr, "l", "user.x", b"1", follow_symlinks=False)
    yield got(os.getxattr, "missing", "user.x")


@scenario
def sockets_and_fifos_are_served_by_the_kernel() -> Iterator[object]:
    os.mkfifo("p")
    reading = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open("p", os.O_WRONLY)
    os.write(writing, b"through")
    yield os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("s")
        server.listen()
        client.connect("s")
        yield look("s")[0]


@scenario
def locks_of_one_process() -> Iterator[object]:
    touch("f", b"x" * 100)
    with opened("f") as file, opened("f") as other:
        yield got(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
        yield got(fcntl.lockf, other, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
        yield got(fcntl.flock, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield got(fcntl.flock, other, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
        yield got(fcntl.flock, other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with opened("f", os.O_RDONLY) as file:
        yield got(fcntl.lockf, file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield got(fcntl.lockf, file, fcntl.LOCK_SH | fcntl.LOCK_NB)


@scenario
def statvfs_makes_sense() -> Iterator[object]:
    found = os.statvfs(".")
    yield [found.f_namemax, found.f_blocks >= found.f_bfree >= found.f_bavail > 0, found.f_files > found.f_ffree > 0]


@scenario
def permissions_as_user() -> Iterator[object]:
    touch("mine")
    for mode in range(0o1000):
        if mode % 0o7:  # a seventh of all
            continue
        os.chmod("mine", mode)
        yield [oct(mode), *(got(os.access, "mine", wanted) for wanted in (os.R_OK, os.W_OK, os.X_OK))]
        answers = []
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            answer = got(os.open, "mine", flags)
            if isinstance(answer, int):
                os.close(answer)
                answer = "opened"
            answers.append(answer)
        yield answers


@scenario
def the_files_of_others_as_user() -> Iterator[object]:
    """`roots` and what is in it was made by root beforehand."""
    for name in ("readable", "grouped", "private"):
        path = f"roots/{name}"
        for call in (
            lambda p: os.close(os.open(p, os.O_RDONLY)), lambda p: os.close(os.open(p, os.O_WRONLY)),
            lambda p: os.chmod(p, 0o777), lambda p: os.chown(p, USER, -1), os.utime, os.unlink,
            lambda p: os.utime(p, (1, 1)), lambda p: os.truncate(p, 0), lambda p: os.rename(p, "stolen"),
            lambda p: os.link(p, "linked"), lambda p: os.setxattr(p, "user.x", b"1"),
            lambda p: os.getxattr(p, "user.x"),
        ):  # fmt: skip
            yield [name, got(call, path)]
    changing: list[Callable[[str], object]] = [
        lambda p: sorted(os.listdir(p)), os.rmdir, lambda p: os.mkdir(p + "/new"),
        lambda p: os.close(os.open(p + "/f", os.O_CREAT)),
    ]  # fmt: skip
    for change in changing:
        yield [got(change, "roots/closed"), got(change, "roots")]
    yield got(os.stat, "roots/closed/inside")


@scenario
def sticky_directories_as_user() -> Iterator[object]:
    """`sticky` was made by root, 1777, with files of root, a stranger and the user."""
    for name in ("roots", "strangers", "users"):
        path = f"sticky/{name}"
        yield [name, got(os.rename, path, path + "2"), got(os.rename, "mine", path), got(os.unlink, path)]
        touch("mine")
    yield [got(os.rmdir, "sticky/rootdir"), got(os.rmdir, "sticky/userdir")]


@scenario
def set_ids_as_user() -> Iterator[object]:
    touch("f", b"x")
    for mode in (0o6777, 0o6711, 0o2744, 0o4700):
        os.chmod("f", mode)
        before = look("f")[0]
        with opened("f") as file:
            os.write(file, b"y")
            yield [before, look("f")[0], oct(os.fstat(file).st_mode)]
        os.chmod("f", mode)
        os.truncate("f", 0)
        yield look("f")[0]
        os.chmod("f", mode)
        os.chown("f", -1, OTHER_GROUP)
        yield look("f")
        os.chown("f", -1, GROUP)
    yield got(os.chown, "f", -1, 0)
    yield got(os.chown, "f", STRANGER, -1)
    yield got(os.chown, "f", USER, GROUP)
    os.mkdir("d")
    os.chmod("d", 0o2755)
    yield look("d")
    yield got(os.mknod, "device", stat.S_IFCHR | 0o600, 5)


@scenario
def setgid_directories_as_user() -> Iterator[object]:
    """`grouped` was made by root: 2777, of the other group."""
    touch("grouped/f")
    os.mkdir("grouped/d")
    os.mkdir("grouped/d/e")
    os.symlink("x", "grouped/l")
    yield [look(f"grouped/{name}")[:4] for name in ("f", "d", "d/e", "l")]
    os.chmod("grouped/f", 0o2755)
    yield look("grouped/f")[0]


def prepare() -> None:
    """What the scenarios of the user find, made by root."""
    os.mkdir("roots", 0o755)
    for name, mode in (("readable", 0o644), ("grouped", 0o660), ("private", 0o600)):
        touch(f"roots/{name}")
        os.chown(f"roots/{name}", 0, OTHER_GROUP)
        os.chmod(f"roots/{name}", mode)
    os.mkdir("roots/closed", 0o700)
    touch("roots/closed/inside")
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    for name, uid in (("roots", 0), ("strangers", STRANGER), ("users", USER)):
        touch(f"sticky/{name}")
        os.chmod(f"sticky/{name}", 0o666)
        os.chown(f"sticky/{name}", uid, uid)
    os.mkdir("sticky/rootdir")
    os.mkdir("sticky/userdir")
    os.chown("sticky/userdir", USER, GROUP)
    os.mkdir("grouped")
    os.chown("grouped", 0, OTHER_GROUP)
    os.chmod("grouped", 0o2777)


def run(name: str, top: str) -> list[object]:
    """In a process of its own, so that nothing of it stays: user, directory, umask."""
    folder = f"{top}/{name}"
    os.mkdir(folder)
    as_user = name.endswith("_as_user")
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return json.loads(said) if said else ["no answer"]
    try:
        signal.alarm(_DEADLINE_S)
        os.umask(0o022)
        os.chdir(folder)
        if as_user:
            prepare()
            os.chown(".", USER, GROUP)
            touch("mine")
            os.chown("mine", USER, GROUP)
            os.setgroups([OTHER_GROUP])
            os.setresgid(GROUP, GROUP, GROUP)
            os.setresuid(USER, USER, USER)
        try:
            results = list(SCENARIOS[name]())
        except Exception as error:  # noqa: BLE001 - it is the result
            where = traceback.extract_tb(error.__traceback__)[1]
            results = [f"{type(error).__name__}: {error}", where.lineno]
        with os.fdopen(writing, "w") as pipe:
            json.dump(results, pipe)
    finally:
        os._exit(0)


if __name__ == "__main__":
    os.chmod(sys.argv[1], 0o755)
    wanted = sys.argv[2:] or list(SCENARIOS)
    print(json.dumps({name: run(name, sys.argv[1]) for name in wanted}))
