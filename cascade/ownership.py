"""What the tool wrote into a folder, file by file: that, and nothing else, may be replaced."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from cascade.files import BrokenRecord, read_record, replacing
from cascade.locks import STATE, scratch

log = logging.getLogger(__name__)

UNKNOWN = -1  # a size or time that was not recorded
_MANIFEST = "files.json"  # what was written
_MOVING = "moving-*.json"  # what is being put in place, or was by a process that was killed
_INPUTS = (
    "images",
    "imagestr",
    "masks",
    "labels",
    "labelstr",
    "instancestr",
    "outlines",
    "rois",
)  # parts of a data set
_EMPTY = hashlib.sha256().hexdigest()
_MEND = "remove the file; what the folder holds is then looked at by its names"


@dataclass(frozen=True)
class Stamp:
    """What is known of a written file: bytes, time of the last change in nanoseconds, and hash."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """As the file is now."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, file_sha256(path))

    def fault(self, path: Path) -> str | None:
        """What is wrong with the file: missing, emptied or changed; None if nothing is.

        A file of the same size and time is taken for unchanged, so that a million of them are looked at in seconds;
        one of the same size and another time, as in a copied folder, is read.
        """
        try:
            found = path.stat()
        except OSError:
            return "missing"
        if found.st_size != self.size != UNKNOWN or (not found.st_size and self.sha256 != _EMPTY):
            return "changed" if found.st_size else "emptied"
        same = found.st_mtime_ns == self.mtime_ns or file_sha256(path) == self.sha256
        return None if same else "changed"


def file_sha256(path: Path) -> str:
    """Of its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamps_of(folder: Path) -> dict[str, Stamp]:
    """Of all files in a folder, by their names relative to it."""
    return {name: Stamp.of(folder / name) for name in names_in(folder)}


def names_in(folder: Path) -> list[str]:
    """All files in a folder but what the tool remembers of it, sorted, relative to it."""
    found = []
    for place, folders, files in os.walk(folder):
        relative = os.path.relpath(place, folder)
        if relative == ".":
            folders[:] = [name for name in folders if name != STATE]
        found += [os.path.normpath(os.path.join(relative, name)) for name in files]
    return sorted(found)


def stamps_to_json(stamps: dict[str, Stamp]) -> dict[str, dict[str, int | str]]:
    return {name: asdict(stamp) for name, stamp in stamps.items()}


def stamps_from_json(record: object, path: Path, mend: str) -> dict[str, Stamp]:
    """What `stamps_to_json` gave and `path` holds; raises BrokenRecord if it is something else."""
    try:
        stamps = {name: Stamp(**stamp) for name, stamp in record.items()}  # type: ignore[attr-defined]
    except (AttributeError, TypeError) as error:
        raise BrokenRecord(f"{path}: holds no list of files; {mend}") from error
    if any(not isinstance(s.size, int) or not isinstance(s.sha256, str) for s in stamps.values()):
        raise BrokenRecord(f"{path}: holds no list of files; {mend}")
    return stamps


def check_outside(output: Path, source: Path, what: str) -> None:
    """Raise ValueError for an output folder that is `source` or lies inside of it; `what` says what the source is."""
    inner, outer = Path(output).resolve(), Path(source).resolve()
    if inner == outer or outer in inner.parents:
        raise ValueError(f"{output}: is, or lies inside, {what} {source}; name another folder for the output")


def check_not_input(output: Path, source: Path) -> None:
    """Raise ValueError for an output that would be taken for a part of the images in `source`, or for the images."""
    inner, outer = Path(output).resolve(), Path(source).resolve()
    parts = inner.relative_to(outer).parts if outer in (inner, *inner.parents) else ("apart",)
    inside = bool(parts) and (parts[0][:2].isdecimal() or parts[0].lower() in _INPUTS)  # sequences have numbers
    if not parts or inside:
        raise ValueError(f"{output}: is where the images are read from; name another folder for the output")


def is_free(folder: Path, kind: str, *, older: bool = False) -> bool:
    """Whether a folder may be written to: it holds nothing but what the tool wrote there, of the same kind, and what
    users put beside that.

    older: it was recognised as the work of a version that kept no list.
    """
    if not folder.exists():
        return True
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: is no folder; name another")
    lists = _lists(folder)
    if lists:
        return all(read_record(path, _MEND).get("kind") == kind for path in lists)
    return older or {path.name for path in folder.iterdir()} <= {STATE}


def is_unfinished(folder: Path) -> bool:
    """Whether a process was killed while it put its files in place."""
    return any((folder / STATE).glob(_MOVING))


@contextmanager
def renewing(folder: Path, kind: str, *, last: str, older: Iterable[str] = ()) -> Iterator[Path]:
    """A temporary folder to fill; at the end, if nothing was raised, its files take the places of those that the tool
    wrote into `folder` before. Whatever else lies there stays, and so does what was changed since: a changed file
    that is in the way is kept under `.cascade/changed`.

    kind: what is written, as for `is_free`. last: the file that says that all are there; it is the first to go and the
    last to come, so that nothing takes a mixture for whole. older: patterns of files that versions without a list
    wrote. The caller holds the folder (`exclusive`). Works where a folder cannot be renamed: in a mount point, a link,
    the current folder. A process that is killed on the way leaves a folder that the next call mends.
    """
    state = folder / STATE
    with scratch(state / "filling") as place:
        partial = place / "files"
        partial.mkdir()
        yield partial
        new = stamps_of(partial)
        own = _own(folder, older)
        _write(place / "moving.json", kind, new)
        os.replace(place / "moving.json", state / _MOVING.replace("*", place.name))
        if _may_go(folder, last, own):
            (folder / last).unlink(missing_ok=True)
        for name in own.keys() - new.keys():
            if _may_go(folder, name, own):
                (folder / name).unlink(missing_ok=True)
                _prune(folder, (folder / name).parent)
        for name in sorted(new, key=lambda name: (name == last, name)):
            if not _may_go(folder, name, own):
                keep_aside(folder, name, new[name])
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / name, folder / name)
        with replacing(state / _MANIFEST) as temporary:
            _write(temporary, kind, new)
        for path in state.glob(_MOVING):
            path.unlink()


def keep_aside(folder: Path, name: str, new: Stamp) -> None:
    """Keep a file that is in the way of a new one, unless it is empty or the same."""
    path = folder / name
    if path.is_file() and path.stat().st_size and new.fault(path):
        place = folder / STATE / "changed" / name
        while place.exists():
            place = place.with_name(place.name + "~")
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
        log.warning("%s was changed since it was made, and is made again: what it held is now in %s", path, place)


def _lists(folder: Path) -> list[Path]:
    return [path for name in (_MANIFEST, _MOVING) for path in sorted((folder / STATE).glob(name))]


def _own(folder: Path, older: Iterable[str]) -> dict[str, list[Stamp]]:
    """What the tool wrote there, and what it was putting in place when it was killed; nothing is known of the files of
    versions without a list but their names."""
    found: dict[str, list[Stamp]] = {}
    for path in _lists(folder):
        for name, stamp in stamps_from_json(read_record(path, _MEND).get("files"), path, _MEND).items():
            found.setdefault(name, []).append(stamp)
    if not (folder / STATE / _MANIFEST).is_file():
        for path in (path for pattern in older for path in folder.glob(pattern) if path.is_file()):
            found.setdefault(str(path.relative_to(folder)), [])
    return found


def _may_go(folder: Path, name: str, own: dict[str, list[Stamp]]) -> bool:
    """Whether a file is the tool's, and as it was written."""
    return name in own and (not own[name] or any(stamp.fault(folder / name) is None for stamp in own[name]))


def _write(path: Path, kind: str, stamps: dict[str, Stamp]) -> None:
    path.write_text(json.dumps({"kind": kind, "files": stamps_to_json(stamps)}, indent=1))


def _prune(folder: Path, place: Path) -> None:
    """Remove folders that have become empty."""
    with contextlib.suppress(OSError):
        while place != folder:
            place.rmdir()
            place = place.parent
