"""Raw images of a folder, whatever else lies there."""

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.data.frame_checks import check_range
from cascade.data.frames import Frame
from cascade.data.listing import images_in, stem_of
from cascade.data.pairs import IMAGE_FOLDERS, NEAR_TAGS
from cascade.data.spacing import needed_spacing
from cascade.ngff import is_zarr
from cascade.reading import DataError, is_image, read_channels, read_image

log = logging.getLogger(__name__)

_PREVIEW = "preview.png"  # which this package lays beside `images/`
_MASK = re.compile(r"_(cp_)?masks$")


def find_images(source: Path, sequences: Sequence[str] = ()) -> list[list[Path]]:
    """The images of a folder, TIFF, PNG, OME-Zarr or a microscope's own format: of sequences as in the Cell Tracking
    Challenge (`01/t000.tif`) a list each, in the order of time, of any other folder one list; of one without images
    that in its `images/` or `imagesTr/`. Cellpose's masks are passed over, and with a warning `x_mask.tif`, `x_seg.tif`
    and the like beside `x.tif`. An OME-Zarr folder is an image itself.

    Raises DataError where there are none, or not the sequences that are asked for.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; name the folder that holds the images")
    if is_zarr(source):
        return [[source]]
    folders = sorted(p for p in source.iterdir() if p.is_dir() and re.fullmatch(r"\d{2,}", p.name))
    missing = sorted(set(sequences) - {p.name for p in folders})
    if missing:
        there = f"there are {', '.join(p.name for p in folders)}" if folders else "there are none"
        raise DataError(f"{source}: no sequence {', '.join(missing)}; {there}")
    folders = [p for p in folders if not sequences or p.name in sequences] or [source]
    found = [_raw_in(sorted(folder.iterdir())) for folder in folders]
    if folders == [source] and all(path.name == _PREVIEW for path in found[0]):
        inner = [p for p in sorted(source.iterdir()) if p.is_dir() and p.name.lower() in IMAGE_FOLDERS]
        found = [_raw_in(images_in(folder)) for folder in inner] or found
    if not any(found):
        raise DataError(f"{source}: no images (.tif, .tiff, .png, .ome.zarr); name the folder that holds them")
    return [paths for paths in found if paths]


def _raw_in(paths: Iterable[Path]) -> list[Path]:
    """Of some files of one folder the raw images."""
    raw = [(path, stem_of(path).removesuffix(".ome")) for path in paths if is_raw(path)]
    stems = {stem for _, stem in raw}
    masks = [p for p, s in raw if any(s.lower().endswith(tag) and s[: -len(tag)] in stems for tag in NEAR_TAGS)]
    if masks:
        others = f" and {len(masks) - 1} more" if len(masks) > 1 else ""
        log.warning("%s%s: taken for labels by the name, and passed over", masks[0], others)
    labels = set(masks)
    return [path for path, _ in raw if path not in labels]


def is_raw(path: Path) -> bool:
    """Is this, by its name, an image and no mask?

    >>> [is_raw(Path(name)) for name in ("x.tif", "x_masks.tif", "x_cp_masks.ome.tif", "x.txt")]
    [True, False, False, False]
    """
    return is_image(path) and not _MASK.search(path.stem.removesuffix(".ome"))


def read_scenes(
    source: str | Path | Sequence[str | Path],
    *,
    sequences: Sequence[str] = (),
    channels: int = 1,
    channel: str | None = None,
    time_as_depth: bool = False,
) -> tuple[list[Path], list[npt.NDArray[Any]]]:
    """Raw images (C, Y, X) or (C, Z, Y, X) of a folder, see `find_images`, or of files, and the file of each.

    channel: one of several, by its name or its number from 1, alone. time_as_depth: planes of one sequence, or folder,
    are one volume (C, T, Y, X), named by its first file. Raises DataError for images of other numbers of channels or
    axes than the others, frames of several sizes, and images that would lose something as uint16.
    """
    if isinstance(source, str | Path):
        groups = find_images(Path(source), sequences) if not Path(source).is_file() else [[Path(source)]]
    else:
        groups = [[Path(path) for path in source]]
    paths: list[Path] = []
    images: list[npt.NDArray[Any]] = []
    for group in groups:
        own = [read_channels(path, channels) if channel is None else read_image(path, channel)[None] for path in group]
        for path, one in zip(group, own, strict=True):
            check_range(path, one)
        if time_as_depth:
            odd = next((n for n, one in enumerate(own) if one.ndim != 3 or one.shape != own[0].shape), None)
            if odd is not None:
                raise DataError(f"{group[odd]}: of shape {own[odd].shape[1:]}, no plane like {group[0]}: leave it out")
            own, group = [np.stack(own, 1)], group[:1]
        paths, images = paths + group, images + own
    odd = next((n for n, one in enumerate(images) if one.ndim != images[0].ndim), None)
    if odd is not None:
        raise DataError(f"{paths[odd]}: another number of axes than {paths[0]}; train on planes and stacks apart")
    return paths, images


def images_spacing(
    source: Path, paths: Sequence[Path], ndim: int, given: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Voxel size of raw images in µm, see `needed_spacing`; raises DataError for stacks that have none."""
    folder = source if source.is_dir() else source.parent
    return needed_spacing(folder, [Frame(path.stem, path, path) for path in paths], ndim, given)
