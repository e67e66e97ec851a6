"""Images and masks that someone drops: the crops that `cascade fit` would learn from, and why not of the rest."""

import logging
import shlex
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from imageio.v3 import imread

from cascade.app.uploads import check_files, deleted_after, named_without, without
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings

_FOLDER = "my_images"  # as the command calls the folder that the files are from


@dataclass(frozen=True)
class Found:
    """What `prepare` makes of the files. crops: a contact sheet, (Y, X, 3) uint8. notes: a line each on what was left
    out or mended, and why, and on what deserves a look. command: what learns from these files."""

    crops: npt.NDArray[np.uint8]
    used: int
    notes: list[str]
    command: str


def look_at_pairs(
    files: Sequence[Path],
    *,
    crop_size: int | None = None,
    pixel_size_um: float | None = None,
    spacing_um: tuple[float, ...] = (),
    sparse: bool = False,
) -> Found:
    """The crops of annotated images, x.tif with x_masks.tif; the files are deleted, whatever happens.

    Settings: see `PrepareSettings`. Raises DataError for files that cannot be used, naming file and mend, ValueError
    for settings that cannot be.
    """
    with deleted_after(files), tempfile.TemporaryDirectory(prefix="cascade-pairs-") as top:
        if not files:
            raise ValueError("drop images with their masks, such as x.tif and x_masks.tif")
        check_files(files)
        source, crops = Path(top) / _FOLDER, Path(top) / "crops"
        source.mkdir()
        for path in files:
            if (source / path.name).exists():
                raise ValueError(f"{path.name} is there twice: keep one of them")
            shutil.copy(path, source / path.name)
        given: dict[str, Any] = {"crop_size": crop_size, "pixel_size_um": pixel_size_um, "spacing_um": spacing_um}
        settings = PrepareSettings(source, output_dir=crops, sparse=sparse, **given)
        with named_without(source.parent), _notes(source.parent) as notes:
            prepare(settings)
        tables = sorted((crops / "data").glob("*.parquet"))
        used = sum(pq.ParquetFile(table).metadata.num_rows for table in tables)
        sheet = np.asarray(imread(crops / "preview.png"))[..., :3]
    return Found(sheet, used, notes, fit_command(sparse=sparse, **given))


def fit_command(
    *,
    crop_size: int | None = None,
    pixel_size_um: float | None = None,
    spacing_um: Sequence[float] = (),
    sparse: bool = False,
) -> str:
    """What learns from such images: `cascade fit` with the options that are not at their defaults.

    >>> fit_command(pixel_size_um=1.3, sparse=True)
    'cascade fit my_images --output_dir my_cells --pixel_size_um 1.3 --sparse'
    """
    words = ["cascade", "fit", _FOLDER, "--output_dir", "my_cells"]
    if crop_size is not None:
        words += ["--crop_size", str(crop_size)]
    if pixel_size_um is not None:
        words += ["--pixel_size_um", f"{pixel_size_um:g}"]
    if spacing_um:
        words += ["--spacing_um", *(f"{length:g}" for length in spacing_um)]
    if sparse:
        words.append("--sparse")
    return shlex.join(words)


@contextmanager
def _notes(folder: Path) -> Iterator[list[str]]:
    """What the package says in the block, in this thread: warnings, files named without their folder."""
    found: list[str] = []
    thread, package = threading.get_ident(), logging.getLogger("cascade")

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread and record.levelno >= logging.WARNING:
                found.append(without(folder, record.getMessage()))

    handler = Kept()
    package.addHandler(handler)
    try:
        yield found
    finally:
        package.removeHandler(handler)
