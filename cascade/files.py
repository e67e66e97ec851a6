"""Files that are never seen half-written, whoever else works in the same folder."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def own_name() -> str:
    """A name for this process's temporary files that no other process on any machine has."""
    return f"{socket.gethostname()}-{os.getpid()}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` at the end, if nothing was raised."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{own_name()}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; it takes the place of `folder` at the end, if nothing was raised.

    One process at a time: what a killed one left is removed.
    """
    temporary = folder.with_name(folder.name + ".partial")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Busy(OSError):
    """A folder that another process is at work in."""


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """Keep a folder that exists to this process: raises Busy where another one has it; a killed one holds nothing."""
    import fcntl

    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{folder}: {what} is at work here; wait for it, or name another folder") from None
        yield
