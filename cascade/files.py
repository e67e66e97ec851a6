"""Files that are never seen half-written, whoever else works in the same folder."""

import os
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
