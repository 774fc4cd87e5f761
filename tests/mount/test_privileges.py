"""Setuid and setgid are cleared as on a local file system, and the mount that cleared them does not show them on."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from tests.cluster.real_cluster import wait_until
from tests.mount.real_mount import Mount, attempt, run

CALLS = """
import ctypes, os, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
def check(done):
    if done: raise OSError(ctypes.get_errno(), "failed")
class Shown(ctypes.Structure):
    _fields_ = [("mask", ctypes.c_uint32), ("blksize", ctypes.c_uint32), ("attributes", ctypes.c_uint64),
                ("nlink", ctypes.c_uint32), ("uid", ctypes.c_uint32), ("gid", ctypes.c_uint32),
                ("mode", ctypes.c_uint16), ("rest", ctypes.c_char * 222)]
def shown(path):
    # The mode alone: nothing else that is out of date makes the kernel ask for it.
    found = Shown(); check(libc.statx(-100, path.encode(), 0x100, 2, ctypes.byref(found))); return found.mode
def fallocate(path, mode, start, length):
    fd = os.open(path, os.O_RDWR); check(libc.fallocate(fd, mode, ctypes.c_long(start), ctypes.c_long(length)))
def write(path, flags=0):
    fd = os.open(path, os.O_WRONLY | flags); os.write(fd, b"x" * 4096)
def copy(path):
    source, fd = os.open("source", os.O_RDONLY), os.open(path, os.O_WRONLY)
    assert os.copy_file_range(source, fd, 100, 0, 10) == 100
def cut(path):
    fd = os.open(path, os.O_WRONLY); os.ftruncate(fd, 5)
CALLS = {
    "write": write,
    "append": lambda path: write(path, os.O_APPEND),
    "cut and write": lambda path: write(path, os.O_TRUNC),
    "cut": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
    "cut or make": lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT)),
    "truncate": lambda path: os.truncate(path, 5),
    "ftruncate": cut,
    "grow": lambda path: fallocate(path, 0, 0, 100_000),
    "reserve": lambda path: fallocate(path, 1, 0, 100_000),
    "punch": lambda path: fallocate(path, 3, 0, 10),
    "zero": lambda path: fallocate(path, 0x10, 0, 10),
    "copy": copy,
    "read": lambda path: open(path, "rb").read(),
    "chgrp": lambda path: os.chown(path, -1, os.getgid(), follow_symlinks=False),
}
MODES = (0o6777, 0o4755, 0o2775, 0o2767, 0o6767)
"""

PREPARE = f"""{CALLS}
os.umask(0)
open("source", "wb").write(b"s" * 1000)
for call in CALLS:
    for mode in MODES:
        path = f"{{call}} {{mode:o}}"
        open(path, "wb").write(b"x" * 10_000)
        os.chown(path, 1000, 1000)
        os.chmod(path, mode)
for kind, bits in dict(fifo=stat.S_IFIFO, char=stat.S_IFCHR, block=stat.S_IFBLK, socket=stat.S_IFSOCK).items():
    for mode in MODES:
        path = f"{{kind}} {{mode:o}}"
        os.mknod(path, bits, os.makedev(1, 3)); os.chown(path, 1000, 1000); os.chmod(path, mode)
for mode in MODES:
    path = f"folder {{mode:o}}"
    os.mkdir(path); os.chown(path, 1000, 1000); os.chmod(path, mode)
    os.symlink("nowhere", f"link {{mode:o}}"); os.chown(f"link {{mode:o}}", 1000, 1000, follow_symlinks=False)
"""

ACT = f"""{CALLS}
for name in sorted(os.listdir(".")):
    if name == "source": continue
    what, mode = name.rsplit(" ", 1)
    CALLS[what if what in CALLS else "chgrp"](name)
    if what in CALLS: shown(name)
"""

LOOK = f"""{CALLS}
for name in sorted(os.listdir(".")):
    kept = stat.S_IMODE(os.lstat(name).st_mode)
    if not name.startswith(("link", "socket", "source")): assert shown(name) & 0o7777 == kept, name
    print(name, oct(kept))
"""

WHO = {
    "a user": ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups"],
    "root": [],
    "root that may not keep them": ["setpriv", "--bounding-set=-fsetid", "--groups=1000"],
}
"""All in the files' group: the kernel does not tell a file system of setgid that goes although nobody may execute."""


@pytest.fixture
def there(folder: Path, mount: Mount, other_mount: Mount) -> Path:
    return other_mount.path / folder.relative_to(mount.path)


@pytest.mark.parametrize("who", WHO)
def test_setuid_and_setgid_go_as_on_a_local_file_system(who: str, folder: Path, there: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files are to belong to others")
    for place in (folder, tmp_path):
        run([sys.executable, "-c", PREPARE], place)
        place.chmod(0o777)
        run([*WHO[who], "/usr/bin/env", "python3", "-c", ACT], place)
    expected = run([sys.executable, "-c", LOOK], tmp_path)
    # What is written is committed in a moment, and what the kernel has cached is dropped in a moment.
    for place in (folder, there):

        def is_same(place: Path = place) -> bool:
            return attempt([sys.executable, "-c", LOOK], place).stdout == expected

        try:
            wait_until(is_same, f"the modes in {place}")
        finally:
            found = attempt([sys.executable, "-c", LOOK], place)
            print(found.stderr, *sorted(set(found.stdout.splitlines()) ^ set(expected.splitlines())), sep="\n")


def test_trusted_attributes_are_for_administrators_only(folder: Path) -> None:
    run("touch f; chmod 777 . f", folder)
    setting = "import os; os.setxattr('f', 'user.u', b'1'); os.setxattr('f', 'trusted.t', b'2')"
    run([sys.executable, "-c", setting], folder)
    look = (
        "import os\ndef get(name):\n try: return os.getxattr('f', name)\n except OSError as error: return error.errno\n"
        "print(sorted(os.listxattr('f')), get('user.u'), get('trusted.t'))"
    )
    python = ["/usr/bin/env", "python3", "-c", look]
    assert run(python, folder) == "['trusted.t', 'user.u'] b'1' b'2'\n"
    for hidden in (WHO["a user"], ["setpriv", "--bounding-set=-sys_admin"]):
        assert run([*hidden, *python], folder) == f"['user.u'] b'1' {errno.ENODATA}\n"
