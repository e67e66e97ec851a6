"""Files of a folder that hold images, and what is said of those that are not read."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from cascade.reading import DataError, is_image

_FOREIGN = (".jpg", ".jpeg", ".bmp", ".gif", ".lsm", ".ims", ".npy")


def images_in(folder: Path) -> Iterator[Path]:
    """Files to be read as images or as label images, by name; none where there is no such folder."""
    return (p for p in sorted(folder.iterdir()) if is_image(p)) if folder.is_dir() else iter(())


def stem_of(path: Path) -> str:
    """A file's name without suffix, its .ome in lower case.

    >>> stem_of(Path("X.OME.TIF"))
    'X.ome'
    """
    return path.stem[:-4] + ".ome" if path.stem.lower().endswith(".ome") else path.stem


def one_each(paths: Iterable[Path]) -> list[Path]:
    """The same paths; raises DataError where two differ by their suffix only."""
    found: dict[str, Path] = {}
    for path in paths:
        if (stem := stem_of(path)) in found:
            raise DataError(f"{path}: there is {found[stem].name}, too; keep one of them")
        found[stem] = path
    return list(found.values())


def foreign(folder: Path, stem: str | None = None) -> str:
    """What to do with images of other formats in a folder, or that of a name; nothing if there are none."""
    seen = (p for p in sorted(folder.iterdir()) if not p.name.startswith("."))
    path = next((p for p in seen if p.suffix.lower() in _FOREIGN and stem in (None, p.stem)), None)
    return f"; {path.name} is not read: export TIFF or PNG (never JPEG, which is lossy)" if path else ""


def names_of(folders: Iterable[Path]) -> str:
    """Their names, to be read."""
    return ", ".join(p.name for p in folders)
