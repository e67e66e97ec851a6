import numpy as np
import pytest
import zarr
from conftest import ellipse
from scipy import ndimage

from cascade.annotation import CellRecord
from cascade.export.records import SampleRecord
from cascade.generation.tiles import compose_tiles
from cascade.optics.axial import Axial
from cascade.optics.background import Background
from cascade.optics.halo import Halo
from cascade.optics.noise import Noise
from cascade.optics.statistics import Statistics
from cascade.optics.window import Window
from cascade.population.bank import draw_uses, used
from cascade.population.compositing import Cell, compose
from cascade.population.picture import large_first, take_picture
from cascade.population.placement import place
from cascade.population.scene import Scene
from cascade.rng import stream


def statistics(ndim):
    axial = Axial((1.5, 0.1), [0.0, 1.0], [1.0, 0.5], glow=0.2, glow_um=4.0) if ndim == 3 else None
    return Statistics(
        source="made up", licence="none", spacing_um=(2.0, 0.5, 0.5)[-ndim:], image_shape=(8, 64, 64)[-ndim:],
        dtype="uint16", window=Window(0, 1000), background=Background([100.0], 4.0, 20.0, 1.0, 3.0),
        noise=Noise(0.0, 0.0, 0.0, [[1.0]]), halo=Halo([0.2]), axial=axial, cells_per_image=[5], region_um=None,
        clustering_probability=0.5, cell_area_um2=[1.0], cell_brightness=[500.0], cell_image=[0],
    )  # fmt: skip


def bank(ndim):
    """Cells with blurred edges: where they are pressed together, gaps close across the tiles' borders."""
    cells = []
    for n in range(5):
        mask = np.pad(ellipse((21, 27), (9, 14), (5 + n, 9 - n), 0.3 * n), 4)
        mask = mask if ndim == 2 else np.stack([mask] * 3)
        light = ndimage.gaussian_filter(100.0 * (n + 1) * mask.astype(np.float32), (0, 2, 2)[-ndim:])
        cells.append(Cell(mask, light, (1.0, 13.0, 18.0)[-ndim:], CellRecord(brightness=300.0)))
    return cells


@pytest.mark.parametrize("ndim", [2, 3])
def test_tiles_make_the_same_image_as_one_canvas(ndim, tmp_path):
    canvas = (6, 230, 310)[-ndim:]
    scene = Scene(canvas, None, 60, 0, 100.0, 0.5)
    record = compose_tiles(bank(ndim), scene, statistics(ndim), tmp_path / "big.ome.zarr", 3, 0, tile=64)
    root = zarr.open_group(tmp_path / "big.ome.zarr", mode="r")
    image, labels = root["0"][:], root["labels/cells/0"][:]

    cells = [used(bank(ndim), use, 100.0) for use in draw_uses(bank(ndim), scene, statistics(ndim), 3, 0)]
    cells = [cells[n] for n in large_first(cells)]
    corners = place([c.mask for c in cells], canvas, 0.5, stream(3, "placement", 0))
    wanted, wanted_labels, placed = compose(cells, corners, canvas)
    if ndim == 3:
        wanted = statistics(ndim).axial.with_glow(wanted, statistics(ndim).spacing_um)
    wanted += statistics(ndim).background.draw(canvas, 3, 0, 100.0)
    np.testing.assert_array_equal(labels, wanted_labels)
    np.testing.assert_allclose(image, wanted, atol=0.6)  # rounded to integers

    whole = take_picture(
        [used(bank(ndim), use, 100.0) for use in draw_uses(bank(ndim), scene, statistics(ndim), 3, 0)],
        scene, statistics(ndim), 3, 0, counts={},
    )  # fmt: skip
    assert record.num_cells == len(placed) == 60 - record.counts["cells without room"]
    assert record.to_json() == SampleRecord.of(whole, 0).to_json()
