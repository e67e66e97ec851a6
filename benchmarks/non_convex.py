"""How far from convex must cells be before imagined views and NeuS pay?

    python benchmarks/non_convex.py [--count 48] [--sets bent_0 bent_90 bent_150 bent_210 ovule tissue BBBC050]

Of each set one half of the solids gives outlines, their largest planes along z, and how tall cells are; from those
alone solids are made by views and NeuS (embedded nuclei3d), as random harmonic solids, as ellipsoids and by inflating
the outline, the `--shapes` of `cascade generate`. They are compared with the other half, the halves with each other
being the floor: Wasserstein distances in spreads of the real solids, of their volume, sphericity, elongation, height
over diameter and roughness (`cascade.evaluation.solids`), of `solidity`, volume over that of the convex hull, and of
`solidity_of_planes`, area over that of the hull, of the middle planes along all three axes, which a segmenter sees.
bent_N: capsules along an arc of about N degrees, in any direction; ovule: nuclei of ovule_nuclei, tissue: cells of
tissue_labels, BBBC050: dense labels of `10`-`11`, each with CASCADE_DATA (skipped without). Prints one JSON object on
its last line.
"""

import argparse
import json

import numpy as np
import tifffile
import torch
from common import data_folder, machine
from scipy import ndimage, stats
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation
from shapes import from_views
from skimage import measure

from cascade import MultiviewPipeline, embedded
from cascade.data.frames import find_frames
from cascade.data.spacing import needed_spacing
from cascade.evaluation.solids import cells_of, solid_statistics
from cascade.geometry.grid import Grid, signed_distance, voxelize
from cascade.geometry.resample import resample
from cascade.multiview.outlines import diameters_um
from cascade.rng import stream
from cascade.shapes.ellipsoid import ellipsoid_of_outline
from cascade.shapes.harmonic_solids import harmonic_solids
from cascade.shapes.inflated import inflated_outline

Array = np.ndarray
SIDE, WIDEST = 64, 44  # pixels of an outline's crop, and of the widest cell in it
BENDS = (0, 90, 150, 210)
SETS = (*(f"bent_{angle}" for angle in BENDS), "ovule", "tissue", "BBBC050")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=48, help="solids of each method")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    options = parser.parse_args()
    pipeline = MultiviewPipeline.from_pretrained(embedded("nuclei3d") / "multiview")
    pipeline.set_progress_bar_config(disable=True)
    report: dict = {}
    for name in options.sets:
        solids = solids_of(name, options.count)
        if solids is not None:
            report[name] = compared(pipeline, *solids, options.count)
            print(name, json.dumps(report[name]), flush=True)
    print(json.dumps(report | {"machine": machine()}))


def solids_of(name: str, count: int) -> tuple[list[Array], tuple[float, ...]] | None:
    """Binary volumes of a set, and their voxel size; None where its data are not there."""
    if name.startswith("bent"):
        rng = stream(0, name)
        return [bent(float(name.split("_")[1]), rng) for _ in range(3 * count)], (1.0, 1.0, 1.0)
    data = data_folder()
    folder = data / {"ovule": "ovule_nuclei", "tissue": "tissue_labels", "BBBC050": "BBBC050"}[name]
    if not folder.is_dir():
        return None
    if name == "tissue":
        stacks, spacing = [tifffile.imread(folder / "tissue_masks.tif")], (1.0, 1.0, 1.0)
    elif name == "ovule":
        frames, _ = find_frames(folder)
        stacks, spacing = [one.labels() for one in frames], needed_spacing(folder, frames, 3, None)
    else:
        frames, _ = find_frames(folder, "st", ["10", "11"])
        stacks, spacing = [one.labels() for one in frames], (1.75, 0.8, 0.8)
    cells = [
        cell for labels in stacks for cell in cells_of(np.unique(labels, return_inverse=True)[1].reshape(labels.shape))
    ]
    usual = np.median([cell.sum() for cell in cells])
    return [cell for cell in cells if cell.sum() > 0.3 * usual], spacing


def bent(angle: float, rng: np.random.Generator) -> Array:
    """A capsule, 1.5 to 3 times as long as wide, along an arc of about so many degrees, turned in any direction."""
    radius, length = 6.0 * float(np.exp(rng.normal(0, 0.1))), rng.uniform(3.0, 6.0)
    bend = np.deg2rad(max(rng.normal(angle, 15), 1.0))
    at = np.linspace(-0.5, 0.5, 25)
    arc = length * radius / bend
    line = np.stack([arc * np.sin(bend * at), arc * np.cos(bend * at), 0 * at], 1)
    line = Rotation.random(random_state=int(rng.integers(2**31))).apply(line - line.mean(0))
    reach = int(np.ceil(np.abs(line).max() + radius)) + 2
    place = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1.0)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    inside = (np.square(place - line).sum(-1) < radius**2).any(1)
    return inside.reshape((2 * reach + 1,) * 3)


def compared(pipeline, solids: list[Array], spacing: tuple[float, ...], count: int) -> dict:
    """Distances of each method's solids to the second half of the real ones."""
    rng = stream(0, "halves")
    order = rng.permutation(len(solids))
    first, second = ([solids[n] for n in part] for part in np.array_split(order, 2))
    widest = max(max(np.array(solid.shape) * spacing) for solid in solids)
    pixel = widest / WIDEST
    some = [first[n] for n in rng.integers(len(first), size=count)]
    outlines = np.stack([outline_of(solid, spacing, pixel) for solid in some])
    tall = rng.choice(solid_statistics(first, spacing).height_ratio, count)
    area = outlines.sum((1, 2)) * pixel**2
    made = {
        "views_and_neus": from_views(pipeline, outlines, tall, pixel),
        "harmonics": harmonic_solids(area, tall, torch.Generator().manual_seed(7))[0],
        "ellipsoids": [ellipsoid_of_outline(m, pixel, e) for m, e in zip(outlines, tall, strict=True)],
        "inflated": [inflated_outline(m, pixel, e, rng) for m, e in zip(outlines, tall, strict=True)],
    }
    high = 1.3 * float((tall * diameters_um(outlines, pixel)).max())
    size = [int(np.ceil(extent / s)) for extent, s in zip((high, 1.3 * widest, 1.3 * widest), spacing, strict=True)]
    grid = Grid.centred(tuple(size), spacing)
    real = statistics(second, spacing)
    found = {"floor": distances(statistics(first, spacing), real)}
    for name, fields in made.items():
        found[name] = distances(statistics([voxelize(field, grid).array for field in fields], spacing), real)
    means = {name: round(float(real[name].mean()), 3) for name in ("solidity", "solidity_of_planes")}
    return {"solids": len(solids), **means, **found}


def outline_of(solid: Array, spacing: tuple[float, ...], pixel: float) -> Array:
    """The largest plane along z, in the middle of a crop."""
    plane = solid[int(solid.sum((1, 2)).argmax())]
    fine = resample(signed_distance(np.pad(plane, 2), (1, 1)), spacing[1:], (pixel, pixel)) < 0
    y, x = np.rint(ndimage.center_of_mass(fine)).astype(int)
    wide = np.pad(fine, SIDE)
    return wide[y + SIDE // 2 : y + 3 * SIDE // 2, x + SIDE // 2 : x + 3 * SIDE // 2]


def statistics(solids: list[Array], spacing: tuple[float, ...]) -> dict[str, Array]:
    """One value a solid of all that is compared, of planes three."""
    solids = [cut(solid) for solid in solids if solid.sum() >= 20]
    planes = [np.take(solid, solid.shape[axis] // 2, axis) for solid in solids for axis in range(3)]
    flat = np.array([solidity(plane, np.delete(spacing, n % 3)) for n, plane in enumerate(planes) if plane.sum() > 9])
    whole = np.array([solidity(solid, spacing) for solid in solids])
    return solid_statistics(solids, spacing).as_dict() | {"solidity": whole, "solidity_of_planes": flat}


def cut(solid: Array) -> Array:
    return solid[ndimage.find_objects(solid.astype(np.uint8))[0]]


def solidity(mask: Array, spacing: Array) -> float:
    """Area or volume within the surface half way between voxels, over that of its convex hull."""
    padded = np.pad(mask, 1).astype(np.float32)
    if mask.ndim == 3:
        vertices, faces, _, _ = measure.marching_cubes(padded, 0.5, spacing=tuple(spacing))
        corners = vertices[faces]
        size = abs(np.einsum("ti,ti->t", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()) / 6
    else:
        lines = [line * spacing for line in measure.find_contours(padded, 0.5)]
        size = sum(0.5 * (line[:-1, 0] * line[1:, 1] - line[1:, 0] * line[:-1, 1]).sum() for line in lines)
        vertices = np.concatenate(lines)
    return float(abs(size) / ConvexHull(vertices).volume)


def distances(made: dict[str, Array], real: dict[str, Array]) -> dict[str, float]:
    """Wasserstein distances in spreads of the real ones, and their mean."""
    found = {n: float(stats.wasserstein_distance(made[n], real[n]) / real[n].std()) for n in real}
    return {n: round(x, 3) for n, x in (found | {"mean": float(np.mean(list(found.values())))}).items()}


if __name__ == "__main__":
    main()
