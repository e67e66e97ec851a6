"""Files that are never seen half-written, whoever else works in the same folder."""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cascade.locks import STATE, Busy, exclusive, locked_file, remove_if_dead, scratch

__all__ = ["STATE", "BrokenRecord", "Busy", "create_once", "exclusive", "read_record", "replacing", "replacing_folder"]


class BrokenRecord(ValueError):
    """A file in which the tool remembers something cannot be read; the message names it and the mend."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it takes the place of `path` at the end, if nothing was raised."""
    with _temporary(path) as temporary:
        yield temporary
        os.replace(temporary, path)


def create_once(path: Path, text: str) -> bool:
    """Write a new file whole, and never over one that another process has just written; False if there is one."""
    with _temporary(path) as temporary:
        temporary.write_text(text)
        try:
            os.link(temporary, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            return False
        return True


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to fill; its files take the places of their namesakes in `folder` at the end, if nothing was
    raised. Whatever else lies there stays. See `cascade.ownership.renewing` for whole outputs."""
    with scratch(folder / STATE / "filling") as partial:
        yield partial
        for path in sorted(p for p in partial.rglob("*") if p.is_file()):
            place = folder / path.relative_to(partial)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, place)
    with contextlib.suppress(OSError):
        (folder / STATE).rmdir()


def read_record(path: Path, mend: str) -> dict[str, object]:
    """A JSON object that the tool wrote; raises BrokenRecord, which names the file and the mend, for anything else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # what is cut, and what is not text
        raise BrokenRecord(f"{path}: cannot be read ({type(error).__name__}); {mend}") from error
    if not isinstance(record, dict):
        raise BrokenRecord(f"{path}: holds no record but {type(record).__name__}; {mend}")
    return record


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A file beside `path` that is removed at the end, and by the next one to come here if this process is killed."""
    for left in path.parent.glob(f".{_plain(path.name)}.????????????????.partial"):
        remove_if_dead(left, left)
    temporary, descriptor = locked_file(path.parent, f".{path.name}.", ".partial")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(descriptor)


def _plain(name: str) -> str:
    """A name without meaning to glob."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
