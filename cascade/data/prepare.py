"""From a folder of annotated images to crops and statistics: `cascade prepare`."""

import logging
from collections import Counter
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from tqdm.auto import tqdm

from cascade.data.axial import Census
from cascade.data.crops import Crop, Plane, cut_crops, fit_halo, longer_sides_um, plane_of
from cascade.data.fit import fit_statistics
from cascade.data.frames import Annotated, Frame, find_frames
from cascade.data.settings import PrepareSettings
from cascade.data.sizes import choose_sizes
from cascade.data.spacing import needed_spacing
from cascade.data.unlabelled import with_unlabelled
from cascade.data.validate import soundness
from cascade.export.card import write_data_card
from cascade.files import exclusive
from cascade.geometry.masks import one_piece
from cascade.hub.cards import licence_id
from cascade.optics.statistics import FILE_NAME, Statistics
from cascade.ownership import check_not_input, is_free, renewing
from cascade.reading import DataError
from cascade.rng import stream

log = logging.getLogger(__name__)

_SHOWN = 5  # of what deserves a look; validate shows all
_KIND = "crops"
_PARQUET = "data/train-*-of-*.parquet"


@dataclass(frozen=True)
class _Row:
    """One crop as the data set holds it: a column a field."""

    image: npt.NDArray[np.uint16]  # (size, size) camera units
    mask: npt.NDArray[np.uint8]
    brightness: float
    area_um2: float
    relative_height: float
    pixel_size_um: float
    source: str
    z: int
    label: int


def prepare(settings: PrepareSettings) -> Path:
    """Cut a data set into crops of one cell each, and fit what generation needs to know about it.

    The output is written as a Hugging Face data set (`datasets.load_dataset(output_dir)`): `data/*.parquet` with
    columns image (uint16 camera units), mask, brightness, area_um2, relative_height, pixel_size_um, source, z, label;
    beside it `statistics.json`, a preview and a card. Earlier crops there are replaced, and only once everything has
    succeeded; what users put beside them stays.

    Raises DataError for input that cannot be used, naming the file and the mend; ValueError for an output among the
    images, `files.Busy` if another process is at work in it.
    """
    check_not_input(settings.output_dir, settings.source)
    with exclusive(settings.output_dir, "cascade prepare"):
        return _prepare(settings)


def _prepare(settings: PrepareSettings) -> Path:
    """`prepare`, in a folder that is held."""
    source, output_dir, sparse = settings.source, settings.output_dir, settings.sparse
    licence, seed, slices = settings.licence, settings.seed, settings.slices_per_cell
    frames, bare = find_frames(source, settings.truth, list(settings.sequences) or None, channel=settings.channel)
    _check_replaceable(output_dir)
    notes = Counter({"images without annotation": bare})
    spacing = needed_spacing(source, frames, frames[0].image().ndim, settings.spacing_um)
    doubts = soundness(source, frames, settings.spacing_um, first_only=True).warnings
    for line in doubts[:_SHOWN]:
        log.warning("look at: %s", line)
    if len(doubts) > _SHOWN:
        log.warning("and %d more to look at: cascade validate", len(doubts) - _SHOWN)
    planes, names, images = _read_planes(frames, slices, stream(seed, "planes"), notes, sparse)
    sides = [side for plane in planes for side in longer_sides_um(plane, spacing[-2:])]
    sizes = choose_sizes(source, sides, spacing[-1], settings.crop_size, settings.pixel_size_um)
    halo = fit_halo(planes)
    statistics, found = fit_statistics(source.name, licence, images, planes, spacing, halo, seed)
    if statistics.axial is not None and statistics.middles_um:  # the cells of a layer are wider than where they are cut
        sides = [side / statistics.axial.section for side in sides]
        sizes = choose_sizes(source, sides, spacing[-1], settings.crop_size, settings.pixel_size_um)
    crop_size, pixel_um = sizes.crop_size, sizes.pixel_size_um
    heights = _relative_heights(images, found)
    numbers = {frame.name: n for n, frame in enumerate(f for image in images for f in image.frames)}
    rows = []
    for plane, (frame, z) in zip(tqdm(planes, desc="cutting crops", unit="plane"), names, strict=True):
        crops, skipped = cut_crops(plane, spacing[-2:], crop_size, pixel_um, halo, statistics.background.level)
        rows += [_row(crop, frame, z, pixel_um, heights) for crop in crops]
        notes.update({f"cells {reason}": count for reason, count in skipped.items()})
        notes["ids in several pieces (largest kept)"] += plane.split
    if not rows:
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(notes.items()) if count)
        raise DataError(f"{source}: no cell can be cut out: {why}; annotate whole cells")
    log.info("%s", sizes.said)
    _write(output_dir, rows, _with_cells(statistics, rows, numbers), notes)
    for reason, count in sorted(notes.items()):
        if count:
            log.warning("left out or mended: %d %s", count, reason)
    return output_dir


def _read_planes(
    frames: list[Frame], slices_per_cell: int, rng: np.random.Generator, notes: Counter[str], sparse: bool
) -> tuple[list[Plane], list[tuple[Frame, int]], list[Annotated]]:
    """All annotated planes, the (frame, z) of each, and the images that they are from."""
    planes: list[Plane] = []
    names: list[tuple[Frame, int]] = []
    images: dict[Path, list[Frame]] = {}
    length_px = None
    for frame in tqdm(frames, desc="reading", unit="frame"):
        image, labels = frame.image(), frame.labels()
        if not labels.any():
            notes["empty frames"] += 1
            continue
        images.setdefault(frame.image_path, []).append(frame)
        if length_px is None:
            sizes = np.bincount(labels.ravel())[1:]
            length_px = 3.0 * float(np.median(sizes[sizes > 0])) ** (1 / labels.ndim)
        if sparse and labels.ndim == 3:
            raise DataError(f"{frame.label_path}: sparse is for planes, or single slices of stacks; leave it out")
        if labels.ndim == 2:
            plane, chosen = image if frame.z is None else image[frame.z], None
            if sparse:
                chosen = np.unique(labels[labels > 0]).tolist()
                labels = with_unlabelled(plane, one_piece(labels)[0])
                notes["cells nobody annotated"] += len(np.unique(labels)) - 1 - len(chosen)
            planes.append(plane_of(plane, labels, length_px, chosen))
            names.append((frame, -1 if frame.z is None else frame.z))
        else:
            for z, kept in sorted(_chosen_slices(labels, slices_per_cell, rng).items()):
                planes.append(plane_of(image[z], labels[z], length_px, kept))
                names.append((frame, z))
    if not planes:
        raise DataError(f"{frames[0].label_path}: every annotated frame is empty; there is no cell to learn from")
    return planes, names, [Annotated(path, group) for path, group in images.items()]


def _chosen_slices(labels: npt.NDArray[Any], count: int, rng: np.random.Generator) -> dict[int, list[int]]:
    """For every cell of a fully annotated volume `count` random heights: {z: [labels]}."""
    chosen: dict[int, list[int]] = {}
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is not None:
            heights = np.arange(box[0].start, box[0].stop)
            for z in rng.choice(heights, min(count, len(heights)), replace=False):
                chosen.setdefault(int(z), []).append(label)
    return chosen


def _relative_heights(images: list[Annotated], found: list[Census]) -> dict[tuple[str, int], float]:
    """Relative height of the annotated slice in its cell, by (frame name, label), where single slices are annotated."""
    frames = [frame for image in images for frame in image.frames]
    return {
        (frame.name, label): u
        for frame, seen in zip(frames, found, strict=len(found) == len(frames))
        for label, u in seen.relative_height.items()
    }


def _row(crop: Crop, frame: Frame, z: int, pixel_um: float, heights: dict[tuple[str, int], float]) -> _Row:
    limit = np.iinfo(np.uint16).max
    return _Row(
        image=np.clip(np.rint(crop.image), 0, limit).astype(np.uint16),
        mask=crop.mask.astype(np.uint8),
        brightness=crop.brightness,
        area_um2=crop.area_um2,
        relative_height=heights.get((frame.name, crop.label), 0.0),
        pixel_size_um=pixel_um,
        source=frame.name,
        z=z,
        label=crop.label,
    )


def _with_cells(statistics: Statistics, rows: list[_Row], numbers: dict[str, int]) -> Statistics:
    """Records of single cells. Where slices of stacks are annotated, of those cut near the middle, and with the
    brightness of the middle plane."""
    rows = [row for row in rows if abs(row.relative_height) <= 0.7] or rows
    level, axial = statistics.background.level, statistics.axial
    share = axial.at(np.array([row.relative_height for row in rows])) if axial else np.ones(len(rows))
    light = np.array([row.brightness for row in rows]) - level
    return replace(
        statistics,
        cell_area_um2=[round(row.area_um2, 3) for row in rows],
        cell_brightness=(level + light / share).round(2).tolist(),
        cell_image=[numbers[row.source] for row in rows],
    )


def _check_replaceable(output_dir: Path) -> None:
    ours = (output_dir / FILE_NAME).is_file() and any(output_dir.glob(_PARQUET))
    if not is_free(output_dir, _KIND, older=ours):
        raise DataError(f"{output_dir}: holds something else than crops; name another --output_dir")


def _write(output_dir: Path, rows: list[_Row], statistics: Statistics, notes: Counter[str]) -> None:
    """Write everything under a temporary name, then put it in place."""
    import datasets  # heavy; only needed here

    from cascade.export.preview import crop_sheet

    size = len(rows[0].mask)
    kinds = {"image": "uint16", "mask": "uint8", "source": "string", "z": "int32", "label": "int32"}
    names = [one.name for one in fields(_Row)]
    features = datasets.Features(
        {
            name: datasets.Array2D((size, size), kinds[name])
            if name in ("image", "mask")
            else datasets.Value(kinds.get(name, "float32"))
            for name in names
        }
    )
    columns = {name: [getattr(row, name) for row in rows] for name in names}
    older = (_PARQUET, FILE_NAME, "preview.png")
    with renewing(output_dir, _KIND, last=FILE_NAME, older=older) as partial:
        (partial / "data").mkdir()
        datasets.Dataset.from_dict(columns, features).to_parquet(partial / "data" / "train-00000-of-00001.parquet")
        statistics.save(partial)
        crop_sheet([row.image for row in rows], [row.mask for row in rows], statistics.window, partial / "preview.png")
        title, text = f"{len(rows)} single-cell crops of {statistics.source}", _about(statistics, rows, notes)
        licence = licence_id(statistics.licence)
        write_data_card(partial, title, text, count=len(rows), licence=licence, synthetic=False)
    log.info("%d crops in %s; look at %s", len(rows), output_dir, output_dir / "preview.png")


def _about(statistics: Statistics, rows: list[_Row], notes: Counter[str]) -> str:
    size, pixel_um = len(rows[0].mask), rows[0].pixel_size_um
    layer = " in one layer" if statistics.middles_um else ""
    left_out = "".join(f"- {count} {reason}\n" for reason, count in sorted(notes.items()) if count)
    return f"""{size}×{size} pixels at {pixel_um:g} µm, one cell each, its neighbours removed; by `cascade prepare`.
`statistics.json` holds the intensity window, background, noise and population that generation needs:
{np.mean(statistics.cells_per_image):.1f} cells per image{layer}, clustering {statistics.clustering_probability:.2f}.

Licence of the images: {statistics.licence}

Left out or mended:

{left_out or "- nothing"}
"""
