"""Are generated images seen through the same microscope as real ones? Noise, rims, contacts, glow, sections, light.

    python benchmarks/optics.py --generated DIR [--generated_2d DIR] [--quick]

Needs CASCADE_DATA with BBBC050; all but light along z is measured on the annotated slices of 01-09, light along z on
the dense labels of 10-11, which are for measuring only. --generated_2d compares contacts with BBBC039 01, too. Prints
one JSON object on its last line.
"""

import argparse
import json
import logging
from pathlib import Path

import numpy as np
from common import data_folder, machine
from scipy import ndimage

from cascade.data.axial import fit_axial
from cascade.data.frames import find_frames
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.sources import Source
from cascade.optics.foreground import background_mask

LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], float)
HEIGHTS = np.linspace(-1.5, 1.5, 13)
SECTIONS = (0.25, 0.5, 0.75, 1.0, 1.4)  # relative heights
SPACING = (1.75, 0.8, 0.8)
RIM = (-3, -2, -1, 1, 2, 3, 4, 5)


def planes(images: list[LabelledImage], rng: np.random.Generator, each: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Annotated planes; of stacks so many random ones that show a cell."""
    found = []
    for one in images:
        if one.image.ndim == 2:
            found.append((one.image.astype(float), one.labels))
            continue
        shown = np.flatnonzero(one.labels.any((1, 2)))
        found += [(one.image[z].astype(float), one.labels[z]) for z in rng.choice(shown, min(each, len(shown)), False)]
    return found


def background_level(images: list[LabelledImage]) -> float:
    """Camera units; the median over images."""
    return float(np.median([one.image[background_mask(one.image)].mean() for one in images]))


def noise(planes, level: float) -> list[list[float]]:
    """Light and noise variance (3×3 Laplacian) per unit of light, in five groups of cells from faint to bright."""
    cells = []
    for image, labels in planes:
        variance = ndimage.convolve(image, LAPLACIAN) ** 2 / 36
        inner = np.where(ndimage.binary_erosion(labels > 0, iterations=2), labels, 0)
        ids, sizes = np.unique(inner[inner > 0], return_counts=True)
        ids = ids[sizes > 30]
        cells += zip(ndimage.mean(image, inner, ids) - level, ndimage.mean(variance, inner, ids), strict=True)
    cells = np.array(cells)
    groups = np.array_split(cells[np.argsort(cells[:, 0])], 5)
    return [[float(g[:, 0].mean()), float(np.median(g[:, 1] / g[:, 0]))] for g in groups]


def rim(planes, level: float) -> list[float]:
    """Light at pixels from cells' outlines, of the light inside; median over cells, other cells are kept out."""
    rows = []
    for image, labels in planes:
        for label, box in enumerate(ndimage.find_objects(labels), 1):
            if box is None:
                continue
            window = tuple(slice(max(b.start - 8, 0), b.stop + 8) for b in box)
            own, light = labels[window] == label, image[window] - level
            if own.sum() < 60:
                continue
            others = (labels[window] > 0) & ~own
            free = ndimage.distance_transform_edt(~others) > 4 if others.any() else np.ones_like(own)
            rings = np.rint(ndimage.distance_transform_edt(~own) - ndimage.distance_transform_edt(own))
            inside = light[rings <= -2].mean()
            places = [free & (rings == d) for d in RIM]
            rows.append([light[p].mean() / inside if p.sum() > 3 else np.nan for p in places])
    return np.nanmedian(rows, 0).tolist()


def contacts(planes, level: float) -> dict:
    """Of cells of a plane that meet: how many such pairs there are to a cell (in planes of up to seven cells, and of
    twelve and more), on how many pixels of the one they meet, and the light there, both sides, of the light inside;
    quartiles over pairs."""
    cells, pairs, widths, lights = np.zeros(2), np.zeros(2), [], []
    for image, labels in planes:
        light = ndimage.gaussian_filter(image, 0.7) - level
        ids = np.unique(labels)[1:]
        group = [0] if len(ids) <= 7 else [1] if len(ids) >= 12 else []
        cells[group] += len(ids)
        typical = dict(zip(ids, ndimage.median(light, labels, ids), strict=True))
        for one in ids:
            around = ndimage.binary_dilation(labels == one) & (labels > one)
            for other in np.unique(labels[around]):
                there = around & (labels == other)
                if there.sum() < 2:
                    continue
                here = ndimage.binary_dilation(labels == other) & (labels == one)
                pairs[group] += 1
                widths.append(int(there.sum()))
                lights.append(light[here | there].mean() / (0.5 * (typical[one] + typical[other])))
    return {
        "pairs_a_cell_few_many": (pairs / np.maximum(cells, 1)).tolist(),
        "width_px": np.percentile(widths, [25, 50, 75]).tolist(),
        "light": np.percentile(lights, [25, 50, 75]).tolist(),
    }


def along_z(images: list[LabelledImage]) -> dict[str, list[float]]:
    """Light in the middle of densely labelled cells, and their diameter, at relative heights; medians over cells."""
    lights, diameters = [], []
    for one in images:
        far = ~ndimage.binary_dilation(one.labels > 0, iterations=4)
        light = one.image - float(np.median(one.image[far]))
        for label, box in enumerate(ndimage.find_objects(one.labels), 1):
            if box is None or box[0].start == 0 or box[0].stop == len(light):
                continue
            cell = one.labels == label
            area, z = cell.sum((1, 2)), np.flatnonzero(cell.any((1, 2)))
            if area.max() < 100:
                continue
            _, cy, cx = (round(c) for c in ndimage.center_of_mass(cell))
            column = light[:, max(cy - 2, 0) : cy + 3, max(cx - 2, 0) : cx + 3].mean((1, 2))
            u = (np.arange(len(column)) - 0.5 * (z[0] + z[-1])) / (0.5 * len(z))
            middle = column[np.abs(u) < 0.25].mean()
            lights.append(np.interp(HEIGHTS, u, column / middle, left=np.nan, right=np.nan))
            diameters.append(np.interp(HEIGHTS, u, np.sqrt(area / area.max())))
    return {"light": np.nanmedian(lights, 0).tolist(), "diameter": np.median(diameters, 0).tolist()}


def sections(stacks: list[tuple[np.ndarray, np.ndarray, int]]) -> dict[str, list]:
    """Cells cut by an annotated slice, by how far from their middle: diameter, of that near the middle; and light at 1,
    2 and 3 pixels outside their outlines, of that inside. Heights are found as `fit_axial` does, in both alike."""
    cells = fit_axial(((image, labels, z, labels.max()) for image, labels, z in stacks), SPACING)[1]
    heights, diameters, rims = [], [], []
    for (image, labels, z), found in zip(stacks, cells, strict=True):
        light = image[z] - float(np.median(image[background_mask(image.astype(np.float32))]))
        for label, u in found.relative_height.items():
            cell = labels == label
            if cell.sum() < 20:
                continue
            away = np.rint(ndimage.distance_transform_edt(~cell))
            free = ~ndimage.binary_dilation((labels > 0) & ~cell, iterations=2)
            heights.append(abs(u))
            diameters.append(2 * np.sqrt(cell.sum() * SPACING[1] * SPACING[2] / np.pi))
            ring = [light[(away == n) & free] for n in (1, 2, 3)]
            rims.append([r.mean() / light[cell].mean() if len(r) else np.nan for r in ring])
    group, diameters, rims = np.digitize(heights, SECTIONS), np.array(diameters), np.array(rims)
    near = diameters[group == 0].mean()
    return {
        "diameter": [diameters[group == n].mean() / near for n in range(len(SECTIONS))],
        "light_outside": [np.nanmedian(rims[group == n], 0).tolist() for n in range(len(SECTIONS))],
    }


def glow(planes, level: float) -> list[float]:
    """Light between cells of a plane, and far from all of them, of the cells' light; medians over planes."""
    rows = []
    for image, labels in planes:
        smooth, away = ndimage.gaussian_filter(image, 3) - level, ndimage.distance_transform_edt(labels == 0)
        padded = np.pad(labels > 0, 30)
        among = ndimage.binary_closing(padded, iterations=25)[30:-30, 30:-30]
        ids = np.unique(labels)[1:]
        light = np.median(ndimage.mean(image, labels, ids)) - level
        between, beyond = (away > 6) & among, (away > 20) & ~among
        if len(ids) > 2 and between.sum() > 50 and beyond.sum() > 50:
            rows.append([np.median(smooth[between]) / light, np.median(smooth[beyond]) / light])
    return np.median(rows, 0).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generated", required=True, type=Path, help="stacks of nuclei3d")
    parser.add_argument("--generated_2d", type=Path, help="images of nuclei2d")
    parser.add_argument("--quick", action="store_true", help="a quarter of the images")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    step, rng, data = (4 if options.quick else 1), np.random.default_rng(0), data_folder() / "BBBC050"
    slices = Source(data, sequences=tuple(f"{n:02d}" for n in range(1, 10))).load()[::step]
    dense = Source(data, truth="st", sequences=("10", "11")).load()[::step]
    made = Source(options.generated).load()[::step]
    level = background_level(slices)
    report = {"machine": machine()}
    frames = find_frames(data, sequences=[f"{n:02d}" for n in range(1, 10)])[0][::step]
    cut = {"real": [(frame.image(), frame.labels(), frame.z) for frame in frames], "generated": []}
    for one in made:
        z = int(np.argmax([len(np.unique(plane)) for plane in one.labels]))  # as whoever annotated BBBC050 chose them
        plane = np.unique(one.labels[z], return_inverse=True)[1].reshape(one.labels[z].shape)
        cut["generated"].append((one.image, plane, z))
    for name, flat, stacks in (("real", slices, dense), ("generated", made, made)):
        shown = planes(flat, rng, 6)
        report[name] = {
            "noise": noise(shown, level),
            "rim": rim(shown, level),
            "contacts": contacts(shown, level),
            "along_z": along_z(stacks),
            "sections": sections(cut[name]),
            "glow": glow(shown, level),
        }
    if options.generated_2d:
        real = Source(data_folder() / "BBBC039", sequences=("01",)).load()[:: 2 * step]
        level = background_level(real)
        for name, images in (("real", real), ("generated", Source(options.generated_2d).load()[:: 4 * step])):
            report[name]["contacts_2d"] = contacts(planes(images, rng, 1), level)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
