"""Attaching a mount to the tree and taking it off: mount(2) for root, `fusermount3` for everybody else."""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from dfslib.errors import (
    DfsError,
    Exists,
    InputOutput,
    NotADirectory,
    NotFound,
    NotPermitted,
    NotSupported,
    Unavailable,
)
from dfslib.mount.mount_options import MS_REMOUNT, flags_of, for_fusermount
from dfslib.mount.mounted import FSTYPE, Life, Mounted, mounted
from dfslib.runtime.logs import event

log = logging.getLogger("dfs.mount")

_DEVICE: Final = "/dev/fuse"
_MNT_DETACH: Final = 2
_FUSERMOUNT_S: Final = 30
_TURN_S: Final = 60.0
"""More than the 10 s that a silent mount is given to answer, and the 30 s of fusermount3."""
_TURN_POLL_S: Final = 0.1
_LAYERS_MAX: Final = 16
"""Mounts upon each other at one place; more are nobody's intention."""
_READ_AHEAD_KIB: Final = 512
"""Of the kernel, for a file that is read in order. Each request costs as much as the bytes in it: with its default of
128 KiB a sixth less is read in a second. FUSE itself can only agree on less than what is set here."""


class MountOptions(NamedTuple):
    """`source`: what mount(8) shows as the device. `kernel_options`: of KERNEL_OPTIONS. `allow_other`: users other than
    who mounts may use it."""

    source: str
    kernel_options: tuple[str, ...] = ()
    allow_other: bool = False


def attach(mountpoint: Path, options: MountOptions) -> int:
    """Mount where nothing is mounted: the descriptor on which the kernel's requests come. Raises what check_mountpoint
    and mount raise, and Unavailable where somebody else mounts there for long."""
    with _turn(mountpoint):
        check_mountpoint(mountpoint)
        return mount(mountpoint, options)


@contextlib.contextmanager
def _turn(mountpoint: Path) -> Iterator[None]:
    """One after the other, so that two who find the same dead mount do not mount over one another. A lock on the
    directory above: what is below a mount cannot be reached. Who may not read that goes without."""
    try:
        above = os.open(mountpoint.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + _TURN_S
        while True:
            try:
                fcntl.flock(above, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    break  # a file system without locks
                if time.monotonic() > deadline:
                    raise Unavailable("somebody else is mounting there", str(mountpoint)) from None
                time.sleep(_TURN_POLL_S)
        yield
    finally:
        os.close(above)


def check_mountpoint(mountpoint: Path) -> None:
    """Raises NotSupported without FUSE, NotFound, NotADirectory, Exists where something is mounted there. What is
    left of a mount whose process died is taken off; one that lives or may live never is."""
    if not Path(_DEVICE).exists():
        raise NotSupported(f"no FUSE here: {_DEVICE} is missing")
    for _ in range(_LAYERS_MAX):
        with mounted(mountpoint) as found:
            if found is None:
                break
            _take_off_dead(mountpoint, found)
    try:
        is_directory = stat.S_ISDIR(mountpoint.stat().st_mode)
    except FileNotFoundError:
        raise NotFound("there is no such directory", str(mountpoint)) from None
    except OSError as error:
        raise InputOutput(error.strerror or str(error), str(mountpoint)) from error
    if not is_directory:
        raise NotADirectory("a mount needs a directory", str(mountpoint))


def _take_off_dead(mountpoint: Path, found: Mounted) -> None:
    """Raises Exists where it is not dead."""
    life = found.life()
    if life is Life.SILENT:
        raise Exists("already mounted, and does not answer: `dfs umount --lazy` takes it off", str(mountpoint))
    if life is not Life.DEAD:
        raise Exists("already mounted", str(mountpoint))
    log.warning(event("taking off a mount whose process has died", mountpoint=mountpoint))
    try:
        if os.geteuid() == 0:
            _umount2(found.path(), _MNT_DETACH)  # not by name: somebody may have replaced it meanwhile
            return
        with mounted(mountpoint) as now:
            if now is not None and now.mount_id == found.mount_id:
                unmount(mountpoint, lazy=True)
    except DfsError as error:
        with mounted(mountpoint) as now:
            if now is not None and now.mount_id == found.mount_id:
                raise
        log.info(event("somebody else has taken it off", mountpoint=mountpoint, reason=error))


def mount(mountpoint: Path, options: MountOptions) -> int:
    """The descriptor on which the kernel's requests come. Raises NotPermitted, NotSupported, InputOutput."""
    if os.geteuid() != 0:
        return _mount_with_helper(mountpoint, options)
    device = _mount_as_root(mountpoint, options)
    _raise_read_ahead(mountpoint)
    return device


def remount(mountpoint: Path, flags: int) -> None:
    """Give a mount of DFS other flags of mount(2), as root. Raises NotFound where there is none, InputOutput."""
    with mounted(mountpoint) as found:
        if found is None:
            raise NotFound("no mount of DFS is there", str(mountpoint))
        libc = ctypes.CDLL(None, use_errno=True)
        path = found.path().encode()
        if libc.mount(None, path, None, ctypes.c_ulong(MS_REMOUNT | flags), None) != 0:
            raise InputOutput(f"cannot be changed: {os.strerror(ctypes.get_errno())}", str(mountpoint))


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Raises NotPermitted, InvalidArgument's like where nothing is mounted; `lazy`: although it is in use."""
    if os.geteuid() == 0:
        _umount2(str(mountpoint), _MNT_DETACH if lazy else 0)
        return
    command = [_helper(), "-u", *(["-z"] if lazy else []), "--", str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_FUSERMOUNT_S, check=False)
    if done.returncode:
        raise InputOutput(done.stderr.strip() or "cannot be unmounted", str(mountpoint))


def _umount2(path: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(path), flags) != 0:
        raise InputOutput(f"cannot be unmounted: {os.strerror(ctypes.get_errno())}", path)


def _data(options: MountOptions) -> list[str]:
    return ["default_permissions", *(["allow_other"] if options.allow_other else [])]


def _mount_as_root(mountpoint: Path, options: MountOptions) -> int:
    device = _open_device()
    data = [
        f"fd={device}", "rootmode=40000", f"user_id={os.getuid()}", f"group_id={os.getgid()}", *_data(options)
    ]  # fmt: skip
    flags = flags_of(options.kernel_options)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.mount(
        options.source.encode(),
        os.fsencode(mountpoint),
        FSTYPE.encode(),
        ctypes.c_ulong(flags),
        ",".join(data).encode(),
    )
    if result != 0:
        code = ctypes.get_errno()
        os.close(device)
        raise _mount_error(code, str(mountpoint))
    return device


def _raise_read_ahead(mountpoint: Path) -> None:
    """As far as this is allowed: in a container /sys is read-only."""
    try:
        with mounted(mountpoint) as found:
            if found is None:
                return  # taken off already
            setting = Path(f"/sys/class/bdi/{found.device}/read_ahead_kb")
        if int(setting.read_text()) < _READ_AHEAD_KIB:
            setting.write_text(str(_READ_AHEAD_KIB))
    except OSError as error:
        log.info(event("the kernel's read-ahead stays as it is", reason=error))


def _mount_error(code: int, path: str) -> DfsError:
    if code == errno.EPERM:
        return NotPermitted("mounting is not permitted here", path)
    if code == errno.ENODEV:
        return NotSupported("the kernel has no FUSE", path)
    return InputOutput(f"cannot be mounted: {os.strerror(code)}", path)


def _open_device() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NotSupported(f"no FUSE here: {error}") from None


def _mount_with_helper(mountpoint: Path, options: MountOptions) -> int:
    """`fusermount3` is setuid, checks what the user may, and hands the descriptor over a socket."""
    words = [*_data(options), f"fsname={options.source}", "subtype=dfs", *for_fusermount(options.kernel_options)]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        command = [_helper(), "-o", ",".join(word.replace(",", "\\,") for word in words), "--", str(mountpoint)]
        done = subprocess.run(
            command,
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=_FUSERMOUNT_S,
            check=False,
        )
        theirs.close()
        if done.returncode:
            raise NotPermitted(done.stderr.strip() or "fusermount3 failed", str(mountpoint))
        _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptor = array.array("i", data[:4])[0]
                os.set_inheritable(descriptor, False)
                return descriptor
    raise InputOutput("fusermount3 gave no descriptor", str(mountpoint))


def _helper() -> str:
    found = shutil.which("fusermount3") or shutil.which("fusermount")
    if found is None:
        raise NotSupported("fusermount3 is not installed: only root can mount (Debian: apt-get install fuse3)")
    return found
