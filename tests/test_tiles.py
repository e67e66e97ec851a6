import numpy as np
import pytest
import zarr
from made_up import bank, small_statistics

from cascade.export.records import SampleRecord
from cascade.generation.tiles import compose_tiles
from cascade.population.bank import draw_uses, used
from cascade.population.compositing import compose
from cascade.population.picture import large_first, take_picture
from cascade.population.placement import place
from cascade.population.room import Room
from cascade.population.scene import Scene
from cascade.rng import stream


@pytest.mark.parametrize("ndim", [2, 3])
def test_tiles_make_the_same_image_as_one_canvas(ndim, tmp_path):
    canvas = (6, 230, 310)[-ndim:]
    scene = Scene(canvas, Room(), 60, 0, 100.0, 0.5)
    record = compose_tiles(bank(ndim), scene, small_statistics(ndim), tmp_path / "big.ome.zarr", 3, 0, tile=64)
    root = zarr.open_group(tmp_path / "big.ome.zarr", mode="r")
    image, labels = root["0"][:], root["labels/cells/0"][:]

    cells = [used(bank(ndim), use, 100.0) for use in draw_uses(bank(ndim), scene, small_statistics(ndim), 3, 0)]
    cells = [cells[n] for n in large_first(cells)]
    corners = place([c.mask for c in cells], canvas, 0.5, stream(3, "placement", 0))
    wanted, wanted_labels, placed = compose(cells, corners, canvas)
    if ndim == 3:
        wanted = small_statistics(ndim).axial.with_glow(wanted, small_statistics(ndim).spacing_um)
    wanted += small_statistics(ndim).background.draw(canvas, 3, 0, 100.0)
    np.testing.assert_array_equal(labels, wanted_labels)
    np.testing.assert_allclose(image, wanted, atol=0.6)  # rounded to integers

    whole = take_picture(
        [used(bank(ndim), use, 100.0) for use in draw_uses(bank(ndim), scene, small_statistics(ndim), 3, 0)],
        scene, small_statistics(ndim), 3, 0, counts={},
    )  # fmt: skip
    assert record.num_cells == len(placed) == 60 - record.counts["cells without room"]
    assert record.to_json() == SampleRecord.of(whole, 0).to_json()
