"""Locks of the kernel's: who is at work in a folder, and what did those leave that are no more."""

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

STATE = ".cascade"  # what the tool remembers of a folder, inside of it
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)  # of file systems that know none
_PATIENCE = 10  # tries, 30 ms apart: whoever leaves a folder holds it alone for a moment


class Busy(OSError):
    """Another process is at work in a folder; the message names the folder and the work."""


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Hold an output folder alone while working in it; it is made, and removed again if it stays empty.

    The lock is the kernel's: it ends with the process, however that dies, whatever its number and its host are called.

    what: who holds it, for the message that others get ("cascade prepare"). Raises Busy if another process is at work
    in the folder, OSError in one line if nothing can be written there.
    """
    with _held(Path(folder), fcntl.LOCK_EX, what):
        yield


@contextmanager
def shared(folder: Path, what: str) -> Iterator[None]:
    """Work in an output folder beside others that do the same; as `exclusive`, which it keeps out."""
    with _held(Path(folder), fcntl.LOCK_SH, what):
        yield


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait for the lock file `path`, hold it, and remove it."""
    descriptor = _take(path, fcntl.LOCK_EX, wait=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def scratch(parent: Path, name: str = "") -> Iterator[Path]:
    """A new folder in `parent` that is removed at the end; those that killed processes left there are removed, too.

    The folder of a process that is still at work is known by a file beside it, which that process holds locked.
    """
    remove_dead(parent)
    lock, descriptor = locked_file(parent, name, ".lock")
    folder = lock.with_suffix("")
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):  # another one is at work in it
            parent.rmdir()


def remove_dead(parent: Path) -> None:
    """Remove the `scratch` folders of processes that are no more, and `parent` if it is then empty."""
    if not parent.is_dir():
        return
    for path in sorted(parent.iterdir(), reverse=True):  # a lock is looked at before its folder
        if path.suffix == ".lock":
            remove_if_dead(path, path.with_suffix(""))
        elif not path.with_name(path.name + ".lock").exists():  # of a version without locks
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        parent.rmdir()


def unwritable(folder: Path, error: OSError) -> OSError:
    """The error of an output folder, in one short line."""
    name = str(folder) if len(str(folder)) < 160 else f"{str(folder)[:60]}…{str(folder)[-60:]}"
    return OSError(f"{name}: cannot be written to ({error.strerror}); name another folder")


@contextmanager
def _held(folder: Path, kind: int, what: str) -> Iterator[None]:
    path = folder / STATE / "lock"
    made = _missing(folder)
    try:
        descriptor = _take(path, kind)
    except BlockingIOError as error:
        raise Busy(f"{folder}: {_holder(path)} is at work in it; wait for its end, or name another folder") from error
    except OSError as error:
        _remove_empty(path.parent, *made)
        raise unwritable(folder, error) from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, what.encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):  # others are at work beside this one
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            _remove_empty(path.parent, *made)
        os.close(descriptor)


def _take(path: Path, kind: int, wait: bool = False) -> int:
    """The descriptor of a lock file that is held; raises BlockingIOError if another process holds it."""
    for left in reversed(range(_PATIENCE)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):  # whoever left it has just removed the folder, before or after
            if not left:
                raise
            continue
        try:
            fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
            if _same(descriptor, path):
                return descriptor
        except OSError as error:
            if error.errno in _NO_LOCKS:
                log.warning("%s: its file system knows no locks; start nothing else there meanwhile", path.parent)
                return descriptor
            if not left:
                os.close(descriptor)
                raise
        os.close(descriptor)  # it was removed by whoever held it, or is held for a moment: once more
        time.sleep(0.03)
    raise BlockingIOError(errno.EAGAIN, "held by another process", str(path))


def locked_file(folder: Path, before: str, after: str) -> tuple[Path, int]:
    """A new file with a name that no other process has, held locked; its path and descriptor."""
    for left in reversed(range(_PATIENCE)):
        path = folder / f"{before}{secrets.token_hex(8)}{after}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except (FileNotFoundError, FileExistsError):  # whoever left the folder has just removed it, before or after
            if not left:
                raise
            continue
        with contextlib.suppress(OSError):  # a file system without locks: then nothing is taken for dead
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _same(descriptor, path):  # else it was taken for a dead one's before it was locked
            return path, descriptor
        os.close(descriptor)
    raise OSError(errno.EAGAIN, "files vanish as soon as they are made", str(folder))


def remove_if_dead(lock: Path, left: Path) -> None:
    """Remove what a process left that no longer holds `lock`, and the lock."""
    with contextlib.suppress(OSError):
        descriptor = os.open(lock, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if left != lock:
                shutil.rmtree(left, ignore_errors=True)
            lock.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    try:
        return path.read_text()[:80] or "another process"
    except OSError:
        return "another process"


def _missing(folder: Path) -> list[Path]:
    """The folders that have to be made for it, innermost first."""
    return [path for path in (folder, *folder.parents) if not os.path.lexists(path)]


def _remove_empty(*folders: Path) -> None:
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()
