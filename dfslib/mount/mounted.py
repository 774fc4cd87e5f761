"""What is mounted at a directory, and whether the process behind it lives. Waits for no mount without a bound."""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

FSTYPE: Final = "fuse.dfs"
_ANSWER_S: Final = 10.0
"""What a mount is given to answer. For a dead one the kernel answers at once, but a child has to start first."""
_SILENT: Final = 256
"""No errno and no exit status."""
_ASK: Final = """
import os, sys
descriptor, user, group = map(int, sys.argv[1:])
if user >= 0:
    os.setgroups([]); os.setgid(group); os.setuid(user)
try:
    os.fstatvfs(descriptor)
except OSError as error:
    os._exit(error.errno)
"""

_late: Final[list[subprocess.Popen[bytes]]] = []
"""Children that still wait for a mount that was silent; reaped when the next one is asked."""


class Life(enum.Enum):
    """`ANSWERS`: as it should. `FAILS`: its process answers with an error. `DEAD`: its process is gone. `SILENT`: there
    is a process, which does not answer in time."""

    ANSWERS = enum.auto()
    FAILS = enum.auto()
    DEAD = enum.auto()
    SILENT = enum.auto()


class Mounted(NamedTuple):
    """One mount of DFS. `descriptor`: of its root, opened with O_PATH; means this mount whatever becomes of the path.
    `mount_id`, `device`: as in proc(5), mountinfo. `owner`: who alone may use it, user and group."""

    descriptor: int
    mount_id: int
    device: str
    owner: tuple[int, int] | None

    def life(self, answer_s: float = _ANSWER_S) -> Life:
        """Blocks for up to `answer_s` seconds."""
        code = self._ask(answer_s)
        if code == _SILENT:
            return Life.SILENT
        if code in (errno.ENOTCONN, errno.ECONNABORTED):
            return Life.DEAD
        return Life.FAILS if code else Life.ANSWERS

    def _ask(self, answer_s: float) -> int:
        """The errno of statvfs(3), 0, or _SILENT.

        statvfs always reaches the process; stat is answered from the kernel's cache of attributes, for a dead one too.
        A child asks: a thread that waits for a mount can keep its whole process from ending, even from SIGKILL. It
        asks as the owner, since for others the kernel makes up an answer.
        """
        user, group = self.owner if self.owner is not None and os.geteuid() == 0 else (-1, -1)
        _late[:] = [child for child in _late if child.poll() is None]
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ASK, str(self.descriptor), str(user), str(group)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[self.descriptor], cwd="/",
        )  # fmt: skip
        try:
            return child.wait(answer_s)
        except subprocess.TimeoutExpired:
            child.kill()
            _late.append(child)  # it ends when the mount answers, or is taken off
            return _SILENT

    def path(self) -> str:
        """For system calls that take a path and are to mean this mount."""
        return f"/proc/self/fd/{self.descriptor}"


@contextlib.contextmanager
def mounted(mountpoint: Path) -> Iterator[Mounted | None]:
    """The mount of DFS whose root is there, the uppermost; None without one. Asks the kernel's tables only."""
    try:
        descriptor = os.open(mountpoint, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield _find(descriptor)
    finally:
        os.close(descriptor)


def life_of(mountpoint: Path) -> Life | None:
    """Of the mount that is there, None without one. Blocks for up to 10 s."""
    with mounted(mountpoint) as found:
        return None if found is None else found.life()


def mount_id(descriptor: int) -> int:
    """Of the mount that an open file lies on: proc(5), fdinfo."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))


def is_mounted(mountpoint: Path) -> bool:
    """Whether a mount of DFS is there."""
    with mounted(mountpoint) as found:
        return found is not None


def _find(descriptor: int) -> Mounted | None:
    wanted = mount_id(descriptor)
    path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
    places = path, path.removesuffix(" (deleted)")  # said of a bound directory that has no name left
    for line in Path("/proc/self/mountinfo").read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]:
        fields = line.split(" ")
        kind, _, options = fields[fields.index("-") + 1 :]
        if int(fields[0]) == wanted and kind == FSTYPE and _unescaped(fields[4]) in places:
            return Mounted(descriptor, wanted, fields[2], _owner(options.split(",")))
    return None


def _owner(options: list[str]) -> tuple[int, int] | None:
    if "allow_other" in options:
        return None
    values = dict(option.split("=", 1) for option in options if "=" in option)
    return int(values.get("user_id", 0)), int(values.get("group_id", 0))


def _unescaped(text: str) -> str:
    """A path as mountinfo has it: blanks and backslashes in octal (proc(5))."""
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
