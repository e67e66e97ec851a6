"""Fewer annotations on purpose: what remains of a data set when only some of its cells or slices are annotated."""

import json
import shutil
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from tqdm.auto import tqdm

from cascade.data.frames import DataError, Frame, check_pair, find_frames
from cascade.data.outlines import is_outlines
from cascade.data.settings import ThinSettings
from cascade.files import STATE, exclusive
from cascade.geometry.masks import one_piece
from cascade.ownership import check_not_input, is_unfinished, renewing
from cascade.rng import stream


def thin(settings: ThinSettings) -> Path:
    """Copy a data set and keep the annotation of so many cells, or of so many frames, chosen by seed.

    Chosen cells lie whole in their image, and of one in several pieces the largest is kept; they are scattered over all
    annotated frames, and images without a chosen cell are left out. The layout stays, ids stay,
    outlines become labels, and what was chosen is written to `thinned.json`.

    Raises DataError if the source cannot be read or has fewer annotations, or for `cells` of whole stacks; ValueError
    if `output_dir` lies among the images, FileExistsError if it is not empty, `files.Busy` if another process is at
    work in it.
    """
    output = settings.output_dir
    check_not_input(output, settings.source)
    with exclusive(output, "cascade thin"):
        if any(path.name != STATE for path in output.iterdir()) and not is_unfinished(output):
            raise FileExistsError(f"{output}: is not empty; name another output_dir")
        return _thin(settings)


def _thin(settings: ThinSettings) -> Path:
    """`thin`, into a folder that is held."""
    source, output = settings.source, settings.output_dir
    found, _ = find_frames(source, settings.truth, list(settings.sequences) or None, channel=settings.channel)
    rng = stream(settings.seed, "thin")
    kept: dict[int, list[int] | None] = {}  # labels by frame, None for all of them
    if settings.frames is not None:
        kept |= dict.fromkeys(_choose_frames(source, found, settings.frames, rng))
    if settings.cells is not None:
        kept |= _choose_cells(source, found, settings.cells, rng)
    record = []
    with renewing(output, "thinned", last="thinned.json") as partial:
        for n in tqdm(sorted(kept), desc="thinning", unit="frame"):
            frame, labels, chosen = found[n], found[n].labels(), kept[n]
            if frame.image_path.is_dir():
                raise DataError(f"{frame.image_path}: is a folder, and files are copied: save TIFFs, and thin those")
            if chosen is not None:
                labels = one_piece(np.where(np.isin(labels, chosen), labels, 0))[0].astype(labels.dtype)
            image, place = (partial / path.relative_to(source) for path in (frame.image_path, frame.label_path))
            for path in (image, place):
                path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(frame.image_path, image)
            if is_outlines(place):
                place = place.with_name(f"{image.stem}_masks.tif")
            tifffile.imwrite(place.with_suffix(".tif"), labels, compression="zlib")
            record.append({"frame": frame.name, "labels": "all" if chosen is None else chosen})
        if (source / "dataset.json").is_file():
            shutil.copyfile(source / "dataset.json", partial / "dataset.json")
        (partial / "thinned.json").write_text(json.dumps({"seed": settings.seed, "kept": record}, indent=1))
    return output


def _choose_frames(source: Path, frames: list[Frame], count: int, rng: np.random.Generator) -> list[int]:
    """Numbers of the frames to keep."""
    if count > len(frames):
        raise DataError(f"{source}: has {len(frames)} annotated frames, not {count}")
    return [int(n) for n in rng.permutation(len(frames))[:count]]


def _choose_cells(source: Path, frames: list[Frame], count: int, rng: np.random.Generator) -> dict[int, list[int]]:
    """Labels to keep, by frame."""
    whole = []
    for n, frame in enumerate(tqdm(frames, desc="reading", unit="frame")):
        labels = frame.labels()
        check_pair(frame, frame.image(), labels)
        if labels.ndim == 3:
            raise DataError(
                f"{frame.label_path}: a whole stack, of which `prepare` with sparse takes no single cells; give frames"
            )
        for label, box in enumerate(ndimage.find_objects(labels), 1):
            if box is not None and all(
                b.start > 0 and b.stop < size for b, size in zip(box, labels.shape, strict=True)
            ):
                whole.append((n, label))
    if count > len(whole):
        raise DataError(f"{source}: has {len(whole)} annotated cells that no border cuts, not {count}")
    kept: dict[int, list[int]] = {}
    for pick in sorted(rng.permutation(len(whole))[:count]):
        n, label = whole[pick]
        kept.setdefault(n, []).append(label)
    return kept
