import numpy as np
import pytest
import zarr
from conftest import ellipse

from cascade.background import Background, Noise
from cascade.data.crops import Halo
from cascade.data.statistics import Statistics
from cascade.intensity import Window
from cascade.population import Cell, compose, place
from cascade.rng import stream
from cascade.scene import Scene
from cascade.tiles import compose_tiles, turned


def statistics(ndim):
    return Statistics(
        source="made up", licence="none", spacing_um=(2.0, 0.5, 0.5)[-ndim:], image_shape=(8, 64, 64)[-ndim:],
        dtype="uint16", window=Window(0, 1000), background=Background([100.0], 4.0, 20.0, 1.0, 3.0),
        noise=Noise(0.0, 0.0, 0.0, [[1.0]]), halo=Halo([0.2]), axial=None, cells_per_image=[5], region_um=None,
        clustering_probability=0.5, cell_area_um2=[1.0], cell_brightness=[500.0], cell_image=[0],
    )  # fmt: skip


def bank(ndim):
    cells = []
    for n in range(5):
        mask = ellipse((21, 27), (9, 14), (5 + n, 9 - n), 0.3 * n)
        mask = mask if ndim == 2 else np.stack([mask] * 3)
        cells.append(Cell(mask, 100.0 * (n + 1) * mask.astype(np.float32), (1.0, 9.0, 14.0)[-ndim:], {}))
    return cells


def test_turned_cells_are_the_same_cell():
    (cell, *_) = bank(2)
    seen = set()
    for symmetry in range(8):
        other = turned(cell, symmetry)
        assert other.mask.sum() == cell.mask.sum()
        np.testing.assert_array_equal(other.signal > 0, other.mask)
        np.testing.assert_allclose(np.argwhere(other.mask).mean(0), other.centre, atol=0.3)
        seen.add(other.mask.tobytes() + bytes(other.mask.shape))
    assert len(seen) == 8


@pytest.mark.parametrize("ndim", [2, 3])
def test_tiles_make_the_same_image_as_one_canvas(ndim, tmp_path):
    canvas = (6, 230, 310)[-ndim:]
    scene = Scene(canvas, None, 60, 0, 100.0, 0.5)
    record = compose_tiles(bank(ndim), scene, statistics(ndim), tmp_path / "big.ome.zarr", 3, 0, tile=64)
    root = zarr.open_group(tmp_path / "big.ome.zarr", mode="r")
    image, labels = root["0"][:], root["labels/cells/0"][:]

    rng = stream(3, "tiles", 0)
    picks = np.concatenate([rng.permutation(5) for _ in range(12)])
    cells = [turned(bank(ndim)[n], s) for n, s in zip(picks, rng.integers(0, 8, 60), strict=True)]
    corners = place([c.mask for c in cells], canvas, 0.5, stream(3, "placement", 0))
    background = statistics(ndim).background.draw(canvas, 3, 0, 100.0)
    wanted, wanted_labels, placed = compose(cells, corners, background)
    np.testing.assert_array_equal(labels, wanted_labels)
    np.testing.assert_allclose(image, wanted, atol=0.6)  # rounded to integers
    assert record["cells"] == len(placed) == 60 - record["without_room"]
    assert record["used_at_most"] == 12
    assert record["bank"] == 5
