"""A bank of textured cells: generated once, then used again and again, turned and as bright as an image asks for."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from cascade.annotation import CellRecord
from cascade.files import BrokenRecord, create_once, replacing
from cascade.geometry.grid import SignedDistance
from cascade.optics.statistics import Statistics
from cascade.population.compositing import Cell
from cascade.population.scene import Scene, light_of, real_cells
from cascade.rng import stream

_SQUARE = 0.01  # relative difference of y and x that is none
_MEND = "remove the file, and the same command makes it again"


class Use(NamedTuple):
    """One cell of the bank in an image: which, in which of its eight orientations, and how much brighter."""

    cell: int
    symmetry: int
    factor: float


def draw_uses(bank: list[Cell], scene: Scene, statistics: Statistics, seed: int, index: int) -> list[Use]:
    """Who is in image `index`: cells as large, among their like, and as bright as those of the real image `scene.like`.

    For each real cell (`real_cells`) one is taken of the eighth of the bank that is nearest in size, by rank; first
    those that the image has not shown yet, in random orientations.
    """
    if not bank:
        raise ValueError("the bank is empty: no cell of the model was good enough to be kept")
    rng = stream(seed, "bank", index)
    wanted = real_cells(statistics, scene.like, scene.num_cells, rng)
    by_area = np.argsort([cell.mask.sum((-2, -1)).max() for cell in bank], kind="stable")
    areas = np.array(statistics.cell_area_um2)
    middle = (np.searchsorted(np.sort(areas), areas[wanted]) + 0.5) / len(areas) * len(bank)
    width = max(len(bank) // 8, 1)
    first = np.clip(np.rint(middle - 0.5 * width), 0, len(bank) - width).astype(int)
    times, picked = np.zeros(len(bank), int), []
    for start in first:
        near = by_area[start : start + width]
        picked.append(int(rng.permutation(near[times[near] == times[near].min()])[0]))
        times[picked[-1]] += 1
    y_um, x_um = statistics.spacing_um[-2:]
    square = np.isclose(y_um, x_um, rtol=_SQUARE)  # else a quarter turn would make cells longer, or shorter
    symmetries = rng.integers(0, 8, scene.num_cells) if square else 2 * rng.integers(0, 4, scene.num_cells)
    own = np.array([_brightness(bank[n]) for n in picked]) - statistics.background.level
    factors = np.clip(light_of(statistics, wanted) / np.maximum(own, 1.0), 0.2, 5.0)
    return [Use(int(n), int(s), float(f)) for n, s, f in zip(picked, symmetries, factors, strict=True)]


def used(bank: list[Cell], use: Use, level: float) -> Cell:
    """A cell of the bank as it is used; `level` is the data set's background, in camera units."""
    cell = turned(bank[use.cell], use.symmetry)
    brightness = float(level + use.factor * (_brightness(cell) - level))
    record = replace(cell.record, brightness=brightness, bank=use.cell, symmetry=use.symmetry)
    return replace(cell, signal=cell.signal * np.float32(use.factor), record=record)


def _brightness(cell: Cell) -> float:
    if cell.record.brightness is None:
        raise ValueError("a cell of a bank needs its brightness: record=CellRecord(brightness=…)")
    return cell.record.brightness


def turned(cell: Cell, symmetry: int) -> Cell:
    """A cell in one of the eight flips and quarter turns of its plane, 0 to 7: no pixel is interpolated."""
    quarter, flip = symmetry % 4, symmetry >= 4

    def turn(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array = np.rot90(array, quarter, (-2, -1))
        return np.ascontiguousarray(array[..., ::-1] if flip else array)

    *z, cy, cx = cell.centre
    height, width = cell.mask.shape[-2:]
    for _ in range(quarter):
        cy, cx, height, width = width - 1 - cx, cy, width, height
    cx = width - 1 - cx if flip else cx
    record, outline, solid = cell.record, cell.record.outline, cell.record.solid
    record = replace(
        record,
        outline=None if outline is None else turn(outline),
        solid=None if solid is None else _turned_solid(solid, quarter, flip),
    )
    return Cell(turn(cell.mask), turn(cell.signal), (*z, cy, cx), record)


def _turned_solid(solid: SignedDistance, quarter: int, flip: bool) -> SignedDistance:
    def sdf(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        z, y, x = np.asarray(points).T
        if flip:
            x = -x
        for _ in range(quarter):
            y, x = x, -y
        return solid(np.stack([z, y, x], -1))

    return sdf


def stored_bank(
    folder: str | Path,
    count: int,
    make: Callable[[int, int], list[Cell]],
    rank: int = 0,
    world: int = 1,
    together: int = 32,
) -> list[Cell]:
    """The bank kept in `folder`, made where it is missing: `make(part, size)` gives the cells of each part.

    together: how many cells are made and stored at once, where the bank is begun; it is then gone on with as it was.

    Processes share the parts by their rank, and each makes what the others have not finished when it is through with
    its own: the same bytes, whoever made them. Solids are not kept. May be fewer than `count`, where cells were not
    good enough.
    """
    folder = Path(folder)
    together = _settled(folder, together)
    sizes = [min(together, count - first) for first in range(0, count, together)]
    order = [*range(rank, len(sizes), world), *(n for n in range(len(sizes)) if n % world != rank)]
    for part in tqdm(order, desc="bank of cells", unit=f"{together} cells"):
        path = folder / f"{part:06d}.safetensors"
        if not path.is_file():
            write_cells(make(part, sizes[part]), path)
    return [cell for part in range(len(sizes)) for cell in read_cells(folder / f"{part:06d}.safetensors")]


def _settled(folder: Path, together: int) -> int:
    """What the first process to come here wanted."""
    path = folder / "together"
    if not path.is_file():
        create_once(path, str(together))
    text = path.read_text(errors="replace").strip()
    if not text.isdecimal() or not int(text):
        raise BrokenRecord(
            f"{path}: holds {text[:20]!r}, not how many cells are made at once; "
            f"remove {folder}, and the same command makes the bank again"
        )
    return int(text)


def write_cells(cells: list[Cell], path: Path) -> None:
    """Store cells, without their solids, in one file that is never seen half-written."""
    tensors: dict[str, npt.NDArray[Any]] = {}
    records: list[dict[str, Any]] = []
    for n, cell in enumerate(cells):
        records.append({"centre": [float(c) for c in cell.centre], "record": cell.record.row(cell.mask.ndim)})
        tensors |= {f"{n}.mask": np.ascontiguousarray(cell.mask), f"{n}.signal": np.ascontiguousarray(cell.signal)}
        if cell.record.outline is not None:
            tensors[f"{n}.outline"] = np.ascontiguousarray(cell.record.outline)
    with replacing(path) as partial:
        save_file(tensors, partial, {"cells": json.dumps(records)})


def read_cells(path: Path) -> list[Cell]:
    """What `write_cells` stored; raises BrokenRecord if the file was cut or is something else."""
    try:
        return _read_cells(path)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise BrokenRecord(f"{path}: cells of the bank cannot be read ({error}); {_MEND}") from error


def _read_cells(path: Path) -> list[Cell]:
    with safe_open(path, "np") as file:
        records = json.loads(file.metadata()["cells"])
        names = set(file.keys())
        cells = []
        for n, stored in enumerate(records):
            record = CellRecord.of_row(stored["record"])
            if f"{n}.outline" in names:
                record = replace(record, outline=file.get_tensor(f"{n}.outline"))
            mask, signal = file.get_tensor(f"{n}.mask"), file.get_tensor(f"{n}.signal")
            cells.append(Cell(mask, signal, tuple(stored["centre"]), record))
    return cells
